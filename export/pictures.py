"""The encoded pictures of chosen products, read back from the shards."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from pipeline import schema
from pipeline.manifest import Manifest

_FEATURES = {schema.IMAGES: tf.io.RaggedFeature(tf.string)}


def of_products(data: Manifest, *, split: str, product_ids: Iterable[int]) -> dict[int, list[bytes]]:
    """Returns the pictures of products, as they stand in their records, by product id.

    Reads each shard that holds one of them up to the last of them, once.

    Args:
      data: A dataset.
      split: Name of the split.
      product_ids: Ids; those which the split does not hold are left out.
    """
    wanted = np.unique(np.fromiter(product_ids, np.int64))
    found: dict[int, list[bytes]] = {}
    for shard, item in enumerate(data.shards(split)):
        table = data.records(split, shard)
        rows = np.flatnonzero(np.isin(table.product_id, wanted))
        pictures = _of_rows(data.path(item.name), rows)
        found |= dict(zip(table.product_id[rows].tolist(), pictures, strict=True))
    return found


def _of_rows(path: str, rows: np.ndarray) -> Iterator[list[bytes]]:
    """Yields the pictures of some records of a shard, in order."""
    if not len(rows):
        return
    chosen = set(rows.tolist())
    for row, record in enumerate(tf.data.TFRecordDataset(path).take(int(rows[-1]) + 1)):
        if row in chosen:
            yield tf.io.parse_single_example(record, _FEATURES)[schema.IMAGES].numpy().tolist()
