"""From shards to batches of whole products, which evaluation and prediction read."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline import schema
from pipeline.decode import BatchDecoder
from pipeline.input import RECORDS_PER_PARSE, InputConfig, options, parser
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
    shards = data.shards(split)
    numbers = range(len(shards)) if shard is None else [shard] if isinstance(shard, int) else shard
    chosen = kept(data, config, split=split, shards=numbers)
    records = tf.data.TFRecordDataset([data.path(shards[number].name) for number in numbers])
    if config.selection.only_categories:
        keeps = tf.data.Dataset.from_tensor_slices(np.concatenate([np.zeros(0, np.bool_), *chosen]))
        records = tf.data.Dataset.zip(records, keeps).filter(lambda _, keep: keep).map(lambda record, _: record)
    tables = [
        data.records(split, number).num_images[keep].tolist() for number, keep in zip(numbers, chosen, strict=True)
    ]
    groups = [list(itertools.chain(*tables))] if shard is None else tables
    counts = [count for group in groups for count in _fill(group, config.batch_size)]
    return (
        records.batch(RECORDS_PER_PARSE)
        .rebatch(np.array(counts or [1], np.int64))
        .map(_product_decoder(data, config, report), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(options())
    )


def kept(data: Manifest, config: InputConfig, *, split: str, shards: Sequence[int]) -> list[np.ndarray]:
    """Returns which records of some shards are of chosen categories, or of none: bool of shape (records,) for each."""
    if not config.selection.only_categories:
        all_shards = data.shards(split)
        return [np.ones(all_shards[shard].records, np.bool_) for shard in shards]
    chosen = np.array(data.taxonomy().category_ids)[Selection(data, config.selection).chosen]
    allowed = np.append(chosen, schema.NO_CATEGORY)
    return [np.isin(data.records(split, shard).category_id, allowed) for shard in shards]


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


def _product_decoder(
    data: Manifest, config: InputConfig, report: ImageReport | None
) -> Callable[[tf.Tensor], ProductBatch]:
    """Returns a function from the serialized examples of a batch of whole products to a `ProductBatch`."""
    parse, size = parser(data), config.batch_size
    decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy, report=report)

    def decode_middle(encoded: np.ndarray, owners: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        corners = np.full((len(encoded), 2), config.middle.start)
        return decoder.decode(encoded, corners=corners, product_ids=ids[np.minimum(owners, len(ids) - 1)])

    def to_batch(serialized: tf.Tensor) -> ProductBatch:
        product_ids, labels, pictures = parse(serialized)
        products, lengths = tf.size(product_ids), pictures.row_lengths()
        count = tf.size(pictures.values)
        missing = tf.where(count > size, -count % size, size - count)
        encoded = tf.concat([pictures.values, tf.fill([missing], "")], axis=0)
        owners = tf.concat([tf.repeat(tf.range(products), lengths), tf.fill([missing], size)], axis=0)
        images, readable = tf.numpy_function(decode_middle, (encoded, owners, product_ids), (tf.uint8, tf.bool))
        images.set_shape((None, config.image_size, config.image_size, 3))
        readable.set_shape((None,))
        rows = [[0, size - products]]
        product_ids = tf.ensure_shape(tf.pad(product_ids, rows), (size,))
        labels = tf.ensure_shape(tf.pad(labels, rows, constant_values=schema.NO_CATEGORY), (size,))
        return ProductBatch(images, tf.where(readable, owners, size), product_ids, labels, products)

    return to_batch


def decode_middle(encoded: Sequence[bytes], config: InputConfig) -> tuple[np.ndarray, np.ndarray]:
    """Decodes images as evaluation and prediction see them, cut out of the middle; see `BatchDecoder.decode`."""
    decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy)
    corners = np.full((len(encoded), 2), config.middle.start)
    return decoder.decode(encoded, corners=corners, product_ids=np.zeros(len(encoded), np.int64))
