"""The two files that make a folder of shards a TFDS dataset, and its label names.

Written by hand, since importing TFDS takes TensorFlow along; a test reads them
with `tfds.builder_from_directory`.
"""

from typing import Any

from pipeline import schema
from pipeline.taxonomy import Taxonomy

_FEATURES = "tensorflow_datasets.core.features"
_DESCRIPTION = "Products of a shop's catalogue: images, and the category at every level of the shop's tree."


def features(tree: Taxonomy) -> dict[str, Any]:
    """Returns the content of `features.json`."""
    number = {
        "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
        "tensor": {"dtype": "int64", "encoding": "none", "shape": {}},
    }
    image = {
        "pythonClassName": f"{_FEATURES}.image_feature.Image",
        "image": {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["-1", "-1", "3"]}},
    }
    images = {
        "pythonClassName": f"{_FEATURES}.sequence_feature.Sequence",
        "sequence": {"feature": image, "length": "-1"},
    }
    levels = {
        schema.level_key(level): {
            "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(tree.nodes(level)))},
        }
        for level in range(1, tree.num_levels + 1)
    }
    fixed = {schema.CATEGORY_ID: number, schema.IMAGES: images, schema.PRODUCT_ID: number}
    return {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": fixed | levels},
    }


def label_files(tree: Taxonomy) -> dict[str, str]:
    """Returns the content of the files that name the labels of each level, by file name."""
    return {
        f"{schema.level_key(level)}.labels.txt": "".join(
            " ".join(name.split()) + "\n" for name in tree.node_names(level)
        )
        for level in range(1, tree.num_levels + 1)
    }


def dataset_info(splits: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the content of `dataset_info.json`.

    Args:
      splits: For each split, what the receipts say of its shards, in order.
    """
    return {
        "name": schema.DATASET_NAME,
        "version": schema.VERSION,
        "description": _DESCRIPTION,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "filepathTemplate": schema.SHARD_TEMPLATE,
                "numBytes": str(sum(shard["bytes"] for shard in shards)),
                "shardLengths": [str(shard["records"]) for shard in shards],
            }
            for split, shards in splits.items()
        ],
    }
