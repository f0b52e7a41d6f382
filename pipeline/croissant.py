"""Croissant metadata, by which catalogues of datasets describe what is in one.

The form is that of https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. It knows no
TFRecords inside, so it names the files with their checksums, and the categories.
"""

from typing import Any

from pipeline import schema
from pipeline.taxonomy import Taxonomy

FILE_NAME = "croissant.json"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def metadata(splits: dict[str, list[dict[str, Any]]], tree: Taxonomy) -> dict[str, Any]:
    """Returns the content of `croissant.json`.

    Args:
      splits: For each split, what the receipts say of its shards, SHA-256 included.
      tree: The categories.
    """
    shards = [shard for shards in splits.values() for shard in shards if shard["records"]]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": schema.DATASET_NAME,
        "version": schema.VERSION,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": "Products of a shop's catalogue: JPEG images, and the category at every level of its tree.",
        "distribution": [_file(shard) for shard in shards],
        "recordSet": [_categories(tree)] if tree.num_categories else [],
    }


def _file(shard: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard["name"],
        "name": shard["name"],
        "description": f"{shard['records']} products with {shard['images']} images, as TFRecords of tf.train.Example.",
        "contentUrl": shard["name"],
        "contentSize": f"{shard['bytes']} B",
        "encodingFormat": "application/x-tfrecord",
        "sha256": shard["sha256"],
    }


def _categories(tree: Taxonomy) -> dict[str, Any]:
    columns = {"category_id": "sc:Integer"} | {
        schema.level_key(level): "sc:Text" for level in range(1, tree.num_levels + 1)
    }
    rows = [
        dict(zip((f"categories/{name}" for name in columns), (category_id, *path), strict=True))
        for category_id, path in zip(tree.category_ids, tree.paths, strict=True)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "categories",
        "name": "categories",
        "description": "The category tree, in the order of the labels.",
        "key": {"@id": "categories/category_id"},
        "field": [
            {"@type": "cr:Field", "@id": f"categories/{name}", "name": name, "dataType": kind}
            for name, kind in columns.items()
        ],
        "data": rows,
    }
