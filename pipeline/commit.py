"""Stage 4 of the shard job: prove that nothing is lost, describe the dataset, make it visible."""

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from pipeline import croissant, files, manifest, schema, taxonomy, tfds_metadata
from pipeline.console import UserError
from pipeline.shard_config import ShardConfig, WorkFolder
from pipeline.source import Reader, Source

_QUARANTINE = "quarantine"
_SHOWN = 3
_COPY_BYTES = 16 << 20


def commit(
    config: ShardConfig, sources: Sequence[Source], dumps: Sequence[Source], work: WorkFolder
) -> manifest.Manifest:
    """Makes the written shards a dataset at its final place.

    Args:
      config: The options.
      sources: The inputs as they were when the job began.
      dumps: The same, decompressed.
      work: Where the shards are.

    Raises:
      UserError: Parts of the input were refused and the options do not
        tolerate it, no document has an image, or the input has changed.
    """
    totals = files.read_json(work.plan)
    receipts = [files.read_json(work.receipt(shard)) for shard in range(totals["shards"])]
    refusals = [*totals["refusals"], *(refusal for receipt in receipts for refusal in receipt["refusals"])]
    left_out = refusals + totals["skipped"]
    splits = {
        split: [receipt["splits"][split] for receipt in receipts] for split, count in totals["splits"].items() if count
    }
    _check_tiling(dumps, splits, left_out)
    _check_refusals(config, sources, splits, refusals)
    _check_images(config, splits)
    _quarantine(sources, dumps, left_out, work)
    _describe(config, sources, splits, left_out, work)
    _make_visible(config, work)
    return manifest.Manifest.load(config.output)


def _check_tiling(dumps: Sequence[Source], splits: dict[str, Any], refusals: Sequence[Any]) -> None:
    """Checks that every byte of the decompressed input went into one record or one refusal."""
    recorded = sum(shard["source_bytes"] for shards in splits.values() for shard in shards)
    refused = sum(end - start for _, start, end, _ in refusals)
    expected = sum(dump.size for dump in dumps)
    if recorded + refused != expected:
        raise RuntimeError(
            f"{recorded} bytes in records and {refused} refused are not the {expected} bytes of the input."
        )


def _check_refusals(
    config: ShardConfig, sources: Sequence[Source], splits: dict[str, Any], refusals: Sequence[Any]
) -> None:
    if not refusals or config.tolerate_damage:
        return
    shown = "; ".join(
        f"{sources[file].path} at bytes {start} to {end}: {reason}" for file, start, end, reason in refusals[:_SHOWN]
    )
    more = f"; and {len(refusals) - _SHOWN} more" if len(refusals) > _SHOWN else ""
    products = sum(shard["records"] for shards in splits.values() for shard in shards)
    raise UserError(
        f"{len(refusals)} parts of the input make no product: {shown}{more}. The {products} whole products are "
        "written; the same command with --tolerate_damage makes them the dataset at once and keeps the rest in "
        f"{_QUARANTINE}/."
    )


def _check_images(config: ShardConfig, splits: dict[str, Any]) -> None:
    if not any(shard["images"] for shards in splits.values() for shard in shards):
        raise UserError(
            f"no document has an image under {config.fields.images}[].{config.fields.picture}; name the fields of "
            "this dump with --images_field and --picture_field."
        )


def _describe(
    config: ShardConfig, sources: Sequence[Source], splits: dict[str, Any], refusals: Sequence[Any], work: WorkFolder
) -> None:
    """Writes everything beside the shards; the marker last."""
    tree = taxonomy.Taxonomy.load(os.path.join(work.root, taxonomy.FILE_NAME))
    seen = {split: _seen_elsewhere(work, splits, split) for split in _held_out(splits)}
    for name, text in tfds_metadata.label_files(tree).items():
        files.write(os.path.join(work.root, name), [text.encode()])
    files.write_json(os.path.join(work.root, "features.json"), tfds_metadata.features(tree))
    files.write_json(os.path.join(work.root, "dataset_info.json"), tfds_metadata.dataset_info(splits))
    for split, product_ids in seen.items():
        listed = "".join(f"{product_id}\n" for product_id in product_ids.tolist()) or "\n"
        files.write(os.path.join(work.root, manifest.seen_name(split)), [listed.encode()])
    if config.croissant:
        files.write_json(os.path.join(work.root, croissant.FILE_NAME), croissant.metadata(splits, tree))
    details = config.identity(sources, tree.fingerprint) | {
        "splits": splits,
        "refused": {"parts": len(refusals), "bytes": sum(end - start for _, start, end, _ in refusals)},
        "products_seen_in_train": {split: len(product_ids) for split, product_ids in seen.items()},
        "software": _software(),
    }
    files.write_json(os.path.join(work.root, manifest.FILE_NAME), details)
    files.write(os.path.join(work.root, manifest.MARKER), [b"committed\n"])


def _software() -> dict[str, str]:
    names = ("apache-beam", "pymongo", "numpy", "google-crc32c", "xxhash")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _held_out(splits: dict[str, Any]) -> list[str]:
    """Returns the splits that are held out in some training: validation, or every fold."""
    return [split for split in splits if split not in (schema.TRAIN, schema.TEST)]


def _seen_elsewhere(work: WorkFolder, splits: dict[str, Any], held_out: str) -> np.ndarray:
    """Returns the sorted ids of a split's products that share an image with what is trained on."""
    others = [split for split in splits if split not in (held_out, schema.TEST)]
    trained_on = [table for split in others for table in _tables(work, splits, split)]
    return manifest.sharing_images(_tables(work, splits, held_out), trained_on)


def _tables(work: WorkFolder, splits: dict[str, Any], split: str) -> list[manifest.Records]:
    names = [manifest.records_name(shard["name"]) for shard in splits[split] if shard["records"]]
    return [manifest.read_records(os.path.join(work.root, name)) for name in names]


def _quarantine(sources: Sequence[Source], dumps: Sequence[Source], refusals: Sequence[Any], work: WorkFolder) -> None:
    """Keeps the refused bytes in one file, and in another where they came from and why."""
    if not refusals:
        return
    lines: list[dict[str, Any]] = []
    position = 0
    for file, start, end, reason in refusals:
        lines.append({"source": sources[file].path, "start": start, "end": end, "reason": reason, "at": position})
        position += end - start
    folder = os.path.join(work.root, _QUARANTINE)
    files.write(os.path.join(folder, "refused.bin"), _refused_bytes(dumps, refusals))
    files.write_json(os.path.join(folder, "refused.json"), lines)


def _refused_bytes(dumps: Sequence[Source], refusals: Sequence[Any]) -> Iterator[bytes]:
    for file, start, end, _ in refusals:
        with Reader(dumps[file].path) as reader:
            for position in range(start, end, _COPY_BYTES):
                yield reader.read(position, min(_COPY_BYTES, end - position))


def _make_visible(config: ShardConfig, work: WorkFolder) -> None:
    """Puts the finished folder in its place; an older one stays readable until then."""
    if files.exists(config.output):
        files.remove_tree(work.replaced)
        files.move_folder(config.output, work.replaced)
    files.move_folder(work.root, config.output, last=manifest.MARKER)
    files.remove_tree(os.path.join(config.output, os.path.basename(work.scratch)))
    files.remove_tree(work.replaced)
