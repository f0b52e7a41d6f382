"""From shards to batches: the datasets that training, evaluation and prediction read.

Pictures stay uint8 up to the accelerator, which casts, normalises and augments
them: as float32 they would be four times the bytes to copy. Shuffling moves
encoded images, a twentieth of the size of decoded ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline import decode, hashing, schema
from pipeline.console import UserError
from pipeline.manifest import Manifest

_READ_AHEAD_SHARDS = 16  # Fixed, since the order of elements follows from it.
_RECORDS_PER_PARSE = 64
_EPOCH_SALT, _CROP_SALT = 0x61, 0x62


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How shards become batches.

    Attributes:
      batch_size: Images in a batch.
      decode_size: Height and width to which pictures are decoded, in pixels:
        180 is the native size of Cdiscount's.
      image_size: Height and width in a batch, cut out of the decoded picture:
        at a random place for training, else from the middle.
      shuffle_images: Size of the shuffle buffer in encoded images, about 6 KB each.
      seed: Determines order and crops.
    """

    batch_size: int = 64
    decode_size: int = 180
    image_size: int = 180
    shuffle_images: int = 16_384
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "decode_size", "image_size", "shuffle_images"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; expected 1 or more.")
        if self.image_size > self.decode_size:
            raise UserError(
                f"--image_size={self.image_size} cannot be cut out of --decode_size={self.decode_size}; "
                "expected it to be no larger."
            )

    @property
    def middle(self) -> slice:
        """Rows, and columns, of the decoded picture that stand in a batch of whole products."""
        begin = (self.decode_size - self.image_size) // 2
        return slice(begin, begin + self.image_size)


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


def steps_per_epoch(data: Manifest, config: InputConfig) -> int:
    """Returns the number of whole batches in an epoch of training.

    Raises:
      UserError: The train split has fewer images than one batch.
    """
    images = sum(shard.images for shard in data.shards(schema.TRAIN))
    if images < config.batch_size:
        raise UserError(f"{data.folder} has {images} images to train on; expected one batch, --batch_size={images}.")
    return images // config.batch_size


def train(data: Manifest, config: InputConfig, *, epoch: int, first_step: int = 0) -> tf.data.Dataset:
    """Returns the batches of one epoch of training.

    The order and the crops follow from (seed, epoch) alone, so a dataset that
    begins at a later step gives the batches that would have come. Skipped
    images are read, but not decoded.

    Args:
      data: The dataset; its train split is read.
      config: How batches are made.
      epoch: Number of the epoch, from 0; each has another order.
      first_step: Number of batches to skip.

    Returns:
      A dataset of (images, labels, weights): uint8 of shape (batch size,
      image_size, image_size, 3); int32 of shape (batch size,), the category's
      label at the last level; and float32 of shape (batch size,), 0 for an
      unreadable image and else 1. The last images that fill no batch are left
      out of the epoch.
    """
    seed = int(hashing.mix(np.array([epoch]), config.seed ^ _EPOCH_SALT)[0] >> np.uint64(1))
    paths = [data.path(shard.name) for shard in data.shards(schema.TRAIN)]
    order = np.argsort(hashing.mix(np.arange(len(paths)), seed), kind="stable")
    images = (
        tf.data.Dataset.from_tensor_slices([paths[number] for number in order])
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=_READ_AHEAD_SHARDS,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(_RECORDS_PER_PARSE)
        .map(_parser(data), num_parallel_calls=tf.data.AUTOTUNE)
        .map(_image_rows, num_parallel_calls=tf.data.AUTOTUNE)
        .unbatch()
        .shuffle(config.shuffle_images, seed=seed)
    )
    batches = images.batch(config.batch_size, drop_remainder=True).enumerate().skip(first_step)
    return batches.map(_train_decoder(config, seed), num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def products(data: Manifest, config: InputConfig, *, split: str, shard: int | None = None) -> tf.data.Dataset:
    """Returns a split as batches of whole products, each product once, in the order of the shards.

    Args:
      data: The dataset.
      config: How batches are made.
      split: Name of the split.
      shard: Number of the one shard to read; None for all.

    Returns:
      A dataset of `ProductBatch`.
    """
    shards = data.shards(split)
    chosen = shards if shard is None else shards[shard : shard + 1]
    paths = [data.path(item.name) for item in chosen]
    packed = tf.data.Dataset.from_generator(
        lambda: _pack(_parsed(data, paths), config.batch_size),
        output_signature=(
            tf.TensorSpec((None,), tf.string),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((config.batch_size,), tf.int64),
            tf.TensorSpec((config.batch_size,), tf.int32),
            tf.TensorSpec((), tf.int32),
        ),
    )
    return packed.map(_product_decoder(config), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _parser(data: Manifest):  # type: ignore[no-untyped-def]
    """Returns a function from serialized examples to (product ids, labels, ragged encoded images)."""
    levels = data.taxonomy().num_levels
    label_key = schema.level_key(levels) if levels else schema.CATEGORY_ID
    features = {
        schema.PRODUCT_ID: tf.io.FixedLenFeature((), tf.int64),
        label_key: tf.io.FixedLenFeature((), tf.int64),
        schema.IMAGES: tf.io.RaggedFeature(tf.string),
    }

    def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.RaggedTensor]:
        parsed = tf.io.parse_example(serialized, features)
        return parsed[schema.PRODUCT_ID], tf.cast(parsed[label_key], tf.int32), parsed[schema.IMAGES]

    return parse


def _image_rows(_: tf.Tensor, labels: tf.Tensor, images: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    return images.values, tf.repeat(labels, images.row_lengths())


def _train_decoder(config: InputConfig, seed: int):  # type: ignore[no-untyped-def]
    """Returns a function from (step, (encoded images, labels)) to a batch of training."""
    size = config.image_size

    def decode_and_crop(step: np.ndarray, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pictures, readable = decode.decode_batch(encoded, config.decode_size)
        positions = step * config.batch_size + np.arange(len(encoded))
        return _crop_at_random(pictures, size, positions, seed), readable.astype(np.float32)

    def to_batch(step: tf.Tensor, images: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, labels = images
        pictures, weights = tf.numpy_function(decode_and_crop, (step, encoded), (tf.uint8, tf.float32))
        pictures.set_shape((config.batch_size, size, size, 3))
        weights.set_shape((config.batch_size,))
        return pictures, labels, weights

    return to_batch


def _crop_at_random(pictures: np.ndarray, size: int, positions: np.ndarray, seed: int) -> np.ndarray:
    room = pictures.shape[1] - size
    if not room:
        return pictures
    draws = hashing.mix(positions, seed ^ _CROP_SALT)
    tops = (draws % np.uint64(room + 1)).astype(np.int64).tolist()
    lefts = (draws // np.uint64(room + 1) % np.uint64(room + 1)).astype(np.int64).tolist()
    crops = [
        picture[top : top + size, left : left + size] for picture, top, left in zip(pictures, tops, lefts, strict=True)
    ]
    return np.stack(crops)


def decode_middle(encoded: Sequence[bytes] | np.ndarray, config: InputConfig) -> tuple[np.ndarray, np.ndarray]:
    """Decodes images as evaluation and prediction see them, cut out of the middle; see `decode.decode_batch`."""
    pictures, readable = decode.decode_batch(encoded, config.decode_size)
    middle = config.middle
    return np.ascontiguousarray(pictures[:, middle, middle]), readable


def _product_decoder(config: InputConfig):  # type: ignore[no-untyped-def]
    """Returns a function from packed products to a `ProductBatch`."""

    def to_batch(
        encoded: tf.Tensor, owners: tf.Tensor, product_ids: tf.Tensor, labels: tf.Tensor, products: tf.Tensor
    ) -> ProductBatch:
        images, readable = tf.numpy_function(partial(decode_middle, config=config), (encoded,), (tf.uint8, tf.bool))
        images.set_shape((None, config.image_size, config.image_size, 3))
        readable.set_shape((None,))
        return ProductBatch(images, tf.where(readable, owners, config.batch_size), product_ids, labels, products)

    return to_batch


def _parsed(data: Manifest, paths: list[str]) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yields (product id, label, encoded images) of each record of some files."""
    records = tf.data.TFRecordDataset(paths).batch(_RECORDS_PER_PARSE).map(_parser(data)).prefetch(2)
    for product_ids, labels, images in records:
        values, ends = images.values.numpy(), images.row_limits().numpy().tolist()
        begin = 0
        for product_id, label, end in zip(product_ids.numpy().tolist(), labels.numpy().tolist(), ends, strict=True):
            yield product_id, label, values[begin:end].tolist()
            begin = end


def _pack(records: Iterator[tuple[int, int, list[bytes]]], size: int) -> Iterator[tuple[object, ...]]:
    """Fills batches with as many whole products as fit."""
    rows: list[tuple[int, int]] = []
    encoded: list[bytes] = []
    owners: list[int] = []
    for product_id, label, images in records:
        if rows and (len(encoded) + len(images) > size or len(rows) == size):
            yield _padded(rows, encoded, owners, size)
            rows, encoded, owners = [], [], []
        owners += [len(rows)] * len(images)
        rows.append((product_id, label))
        encoded += images
    if rows:
        yield _padded(rows, encoded, owners, size)


def _padded(rows: list[tuple[int, int]], encoded: list[bytes], owners: list[int], size: int) -> tuple[object, ...]:
    missing = size - len(encoded) if len(encoded) <= size else -len(encoded) % size
    product_ids, labels = zip(*(rows + [(0, schema.NO_CATEGORY)] * (size - len(rows))), strict=True)
    return (
        np.array(encoded + [b""] * missing, object),
        np.array(owners + [size] * missing, np.int32),
        np.array(product_ids, np.int64),
        np.array(labels, np.int32),
        len(rows),
    )
