"""From shards to batches of whole products, which evaluation and prediction read."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline import python_batches, schema
from pipeline.decode import BatchDecoder
from pipeline.image_reader import ImageReader
from pipeline.input import InputConfig
from pipeline.manifest import Manifest
from pipeline.odd_images import ImageReport
from pipeline.selection import Selection


class ProductBatch(NamedTuple):
    """Whole products: all images of each stand in the same batch.

    Attributes:
      images: uint8 of shape (images, image_size, image_size, 3). The number of
        images is the batch size, or a multiple of it for a product with more.
      owners: Row in `product_ids` of each image's product: int32 of shape
        (images,). Padding and unreadable images have the row after the last.
      product_ids: int64 of shape (batch size,); rows after the last product
        are padding.
      labels: Label of the category at the last level, int32 of shape (batch
        size,); `schema.NO_CATEGORY` in a test set and in padding.
      products: Number of rows that are products, int32 scalar.
    """

    images: np.ndarray
    owners: np.ndarray
    product_ids: np.ndarray
    labels: np.ndarray
    products: np.ndarray


def products(
    data: Manifest,
    config: InputConfig,
    *,
    split: str,
    shard: int | Sequence[int] | None = None,
    report: ImageReport | None = None,
) -> tf.data.Dataset:
    """Returns a split as batches of whole products, each product once, in the order of the shards.

    Args:
      data: The dataset.
      config: How batches are made.
      split: Name of the split.
      shard: Number of the one shard to read, or of several, each of which
        begins a batch of its own; None for all, packed without a gap.
      report: Where odd pictures are counted as batches are made.

    Returns:
      A dataset of `ProductBatch`. Where training keeps to some categories, so
      does this, but for products without a category.
    """
    size = config.batch_size
    columns = [
        (tf.uint8, (None, config.image_size, config.image_size, 3)),
        *((tf.int32, (None,)), (tf.int64, (size,)), (tf.int32, (size,)), (tf.int32, ())),
    ]
    batches = _Batches(data, config, split, [shard] if isinstance(shard, int) else shard, report)
    return python_batches.dataset(range(len(batches.ends) - 1), batches.make, columns, of=ProductBatch)


class _Batches:
    """What makes the batches, see `products`; `ends` tells which of the chosen products each one has."""

    def __init__(
        self,
        data: Manifest,
        config: InputConfig,
        split: str,
        shards: Sequence[int] | None,
        report: ImageReport | None,
    ) -> None:
        self._config = config
        self._reader = reader = ImageReader(data, split, shards)
        self._decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy, report=report)
        self._chosen = chosen = np.flatnonzero(_rule(data, config)(reader.label))
        # Shards that are named begin batches of their own.
        groups = [chosen] if shards is None else np.split(chosen, np.flatnonzero(np.diff(reader.shard[chosen])) + 1)
        counts = [count for group in groups for count in _fill(reader.num_images[group].tolist(), config.batch_size)]
        self.ends = np.cumsum([0, *counts])

    def make(self, number: int) -> ProductBatch:
        """Makes a batch."""
        reader, size = self._reader, self._config.batch_size
        products = self._chosen[self.ends[number] : self.ends[number + 1]]
        count, images = len(products), reader.images_of(products)
        missing = -len(images) % size if len(images) > size else size - len(images)
        encoded = itertools.chain(reader.read(images), itertools.repeat(memoryview(b""), missing))
        rows = np.repeat(np.arange(count, dtype=np.int32), reader.num_images[products])
        owners = np.append(rows, np.full(missing, size, np.int32))
        ids, labels = np.zeros(size, np.int64), np.full(size, schema.NO_CATEGORY, np.int32)
        ids[:count], labels[:count] = reader.product_id[products], reader.label[products]
        pictures, readable = self._decoder.decode(
            encoded,
            corners=np.full((len(owners), 2), self._config.middle.start),
            product_ids=np.append(ids[rows], np.zeros(missing, np.int64)),
        )
        owners = np.where(readable, owners, np.int32(size))
        return ProductBatch(pictures, owners, ids, labels, np.array(count, np.int32))


def kept(data: Manifest, config: InputConfig, *, split: str, shards: Sequence[int]) -> list[np.ndarray]:
    """Returns which records of some shards are of chosen categories, or of none: bool of shape (records,) for each."""
    if not config.selection.only_categories:
        held = data.shards(split)
        return [np.ones(held[shard].records, np.bool_) for shard in shards]
    tree, rule = data.taxonomy(), _rule(data, config)
    return [rule(tree.labels(data.records(split, shard).category_id)) for shard in shards]


def _rule(data: Manifest, config: InputConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from labels to which products are chosen, bool."""
    if not config.selection.only_categories:
        return lambda labels: np.ones(len(labels), np.bool_)
    chosen = Selection(data, config.selection).chosen
    return lambda labels: (labels == schema.NO_CATEGORY) | chosen[labels]


def _fill(num_images: Sequence[int], size: int) -> Iterator[int]:
    """Yields the number of products of each batch: as many whole ones as fit, in their order."""
    products = images = 0
    for own in num_images:
        if products and (images + own > size or products == size):
            yield products
            products = images = 0
        products, images = products + 1, images + own
    if products:
        yield products


def decode_middle(encoded: Sequence[bytes], config: InputConfig) -> tuple[np.ndarray, np.ndarray]:
    """Decodes images as evaluation and prediction see them, cut out of the middle; see `BatchDecoder.decode`."""
    decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy)
    corners = np.full((len(encoded), 2), config.middle.start)
    return decoder.decode(encoded, corners=corners, product_ids=np.zeros(len(encoded), np.int64))
