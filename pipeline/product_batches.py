"""From shards to batches of whole products, which evaluation and prediction read."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline import schema
from pipeline.decode import BatchDecoder
from pipeline.image_reader import ImageReader
from pipeline.input import InputConfig, options
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
    reader = ImageReader(data, split, [shard] if isinstance(shard, int) else shard)
    chosen = np.flatnonzero(_chosen(data, config, reader.label))
    # Shards that are named begin batches of their own.
    groups = [chosen] if shard is None else np.split(chosen, np.flatnonzero(np.diff(reader.shard[chosen])) + 1)
    counts = [count for group in groups for count in _fill(reader.num_images[group].tolist(), config.batch_size)]
    ends = np.cumsum([0, *counts])
    decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy, report=report)
    size = config.batch_size

    def make(number: np.ndarray) -> ProductBatch:
        return _batch(reader, decoder, config, chosen[ends[number] : ends[number + 1]])

    def to_batch(number: tf.Tensor) -> ProductBatch:
        batch = tf.numpy_function(make, (number,), (tf.uint8, tf.int32, tf.int64, tf.int32, tf.int32))
        shapes = [(None, config.image_size, config.image_size, 3), (None,), (size,), (size,), ()]
        for column, shape in zip(batch, shapes, strict=True):
            column.set_shape(shape)
        return ProductBatch(*batch)

    batches = tf.data.Dataset.range(len(counts))
    return batches.map(to_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2).with_options(options())


def _batch(reader: ImageReader, decoder: BatchDecoder, config: InputConfig, products: np.ndarray) -> ProductBatch:
    """Makes a batch of whole products, by their numbers."""
    size, count = config.batch_size, len(products)
    images = reader.images_of(products)
    missing = -len(images) % size if len(images) > size else size - len(images)
    encoded = itertools.chain(reader.read(images), itertools.repeat(memoryview(b""), missing))
    rows = np.repeat(np.arange(count, dtype=np.int32), reader.num_images[products])
    owners = np.append(rows, np.full(missing, size, np.int32))
    ids, labels = np.zeros(size, np.int64), np.full(size, schema.NO_CATEGORY, np.int32)
    ids[:count], labels[:count] = reader.product_id[products], reader.label[products]
    pictures, readable = decoder.decode(
        encoded,
        corners=np.full((len(owners), 2), config.middle.start),
        product_ids=np.append(ids[rows], np.zeros(missing, np.int64)),
    )
    return ProductBatch(pictures, np.where(readable, owners, np.int32(size)), ids, labels, np.array(count, np.int32))


def kept(data: Manifest, config: InputConfig, *, split: str, shards: Sequence[int]) -> list[np.ndarray]:
    """Returns which records of some shards are of chosen categories, or of none: bool of shape (records,) for each."""
    tree = data.taxonomy()
    return [_chosen(data, config, tree.labels(data.records(split, shard).category_id)) for shard in shards]


def _chosen(data: Manifest, config: InputConfig, labels: np.ndarray) -> np.ndarray:
    if not config.selection.only_categories:
        return np.ones(len(labels), np.bool_)
    return (labels == schema.NO_CATEGORY) | Selection(data, config.selection).chosen[labels]


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
