"""From shards to batches of training: read, select, shuffle, decode.

Pictures stay uint8 up to the accelerator, which casts, normalises and augments
them: as float32 they would be four times the bytes to copy. Shuffling moves
encoded images, a twentieth of the size of decoded ones.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from pipeline import hashing, schema
from pipeline.console import UserError
from pipeline.decode import BatchDecoder
from pipeline.manifest import Manifest
from pipeline.odd_images import ImagePolicy, ImageReport
from pipeline.selection import Selection, SelectionConfig

_READ_AHEAD_SHARDS = 16  # Fixed, since the order of elements follows from it.
RECORDS_PER_PARSE = 64
_EPOCH_SALT, _CROP_SALT = 0x61, 0x62
_USER_ERROR = re.compile(r"UserError: (.*)")


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
      seed: Determines first weights, order, crops and what is selected.
      selection: Which products an epoch has.
      policy: What to do with pictures that are not as expected.
    """

    batch_size: int = 64
    decode_size: int = 180
    image_size: int = 180
    shuffle_images: int = 16_384
    seed: int = 0
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    policy: ImagePolicy = field(default_factory=ImagePolicy)

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


@dataclass(frozen=True)
class Part:
    """The share of one of several hosts in every batch.

    Attributes:
      index: Number of the host, from 0.
      count: Number of hosts.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of a batch that are this host's.

        Raises:
          UserError: The batch cannot be divided evenly.
        """
        if batch_size % self.count:
            raise UserError(
                f"--batch_size={batch_size} cannot be divided among {self.count} hosts; expected a multiple."
            )
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


def steps_per_epoch(data: Manifest, config: InputConfig) -> int:
    """Returns the number of whole batches in an epoch of training.

    Raises:
      UserError: The chosen products have fewer images than one batch.
    """
    return _steps(data, config, _selection(data, config))


def _selection(data: Manifest, config: InputConfig) -> Selection | None:
    """Returns what an epoch has; None for every product once. It reads a table of each shard."""
    return None if config.selection.takes_all else Selection(data, config.selection, seed=config.seed)


def _steps(data: Manifest, config: InputConfig, selection: Selection | None) -> int:
    every = sum(shard.images for shard in data.shards(schema.TRAIN))
    images = selection.images_per_epoch(data) if selection else every
    if images < config.batch_size:
        raise UserError(f"{data.folder} has {images} images to train on; expected one batch, --batch_size={images}.")
    return images // config.batch_size


def train(
    data: Manifest,
    config: InputConfig,
    *,
    epoch: int,
    first_step: int = 0,
    part: Part = Part(),
    report: ImageReport | None = None,
) -> tf.data.Dataset:
    """Returns the batches of one epoch of training.

    The order and the crops follow from (seed, epoch) alone, so a dataset that
    begins at a later step gives the batches that would have come. Skipped
    images are read, but not decoded: 12 microseconds each, where decoding takes
    100. So do several hosts: each reads all, and decodes its own rows.

    Args:
      data: The dataset; its train split is read.
      config: How batches are made.
      epoch: Number of the epoch, from 0; each has another order.
      first_step: Number of batches to skip.
      part: The rows of every batch to return; all by default.
      report: Where odd pictures are counted as batches are made.

    Returns:
      A dataset of (images, labels, weights): uint8 of shape (rows, image_size,
      image_size, 3); int32 of shape (rows,), the category's label at the last
      level; and float32 of shape (rows,), 0 for an unreadable image and else 1.
      The last images that fill no batch are left out of the epoch.
    """
    selection = _selection(data, config)
    seed, images = _shuffled(data, config, epoch, selection)
    if selection:
        # Shares differ in size a little; where one is short, the next one helps out.
        images = images.concatenate(_shuffled(data, config, epoch + 1, selection)[1])
    batches = images.batch(config.batch_size, drop_remainder=True).take(_steps(data, config, selection))
    decoder = _train_decoder(config, seed, part.rows(config.batch_size), report)
    decoded = batches.enumerate().skip(first_step).map(decoder, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.prefetch(2).with_options(options())


def options() -> tf.data.Options:
    """Returns options of every dataset here: each stage may have all cores, so there is nothing to tune.

    Tuning would take 3% of all time, and keep whoever ends a dataset waiting
    until its thread wakes, which sleeps up to a minute: 2 to 5 seconds for each
    short one.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    return options


def shuffled(data: Manifest, config: InputConfig, *, epoch: int) -> tuple[int, tf.data.Dataset]:
    """Returns the seed of an epoch, and its encoded images in their order.

    Returns:
      The seed, and a dataset of (encoded image, keys): a string scalar, and
      label and product id as int64 of shape (2,), since each component more
      costs a microsecond an image.
    """
    return _shuffled(data, config, epoch, _selection(data, config))


def _shuffled(
    data: Manifest, config: InputConfig, epoch: int, selection: Selection | None
) -> tuple[int, tf.data.Dataset]:
    seed = int(hashing.mix(np.array([epoch]), config.seed ^ _EPOCH_SALT)[0] >> np.uint64(1))
    parse, choose = parser(data), _chosen_rows(selection, epoch)
    rows = serialized(data, seed=seed).map(lambda records: choose(*parse(records)), num_parallel_calls=tf.data.AUTOTUNE)
    # Keras may look at a first batch before it begins anew, which must find the same order.
    return seed, rows.unbatch().shuffle(config.shuffle_images, seed=seed, reshuffle_each_iteration=False)


def serialized(data: Manifest, *, seed: int) -> tf.data.Dataset:
    """Returns the records of train as they stand in the shards, which are read in an order that follows from a seed.

    Returns:
      A dataset of serialized examples, string of shape (records,): to parse
      one at a time would take 13% of all time.
    """
    paths = [data.path(shard.name) for shard in data.shards(schema.TRAIN)]
    order = np.argsort(hashing.mix(np.arange(len(paths)), seed), kind="stable")
    return tf.data.Dataset.from_tensor_slices([paths[number] for number in order]).interleave(
        lambda path: tf.data.TFRecordDataset(path).batch(RECORDS_PER_PARSE),
        cycle_length=_READ_AHEAD_SHARDS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


@contextlib.contextmanager
def reading(data: Manifest) -> Iterator[None]:
    """Turns what TensorFlow says of a dataset that cannot be read in the body into one line.

    Raises:
      UserError: A record is damaged, or a picture is refused by policy.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        raise UserError(
            f"a record in {data.folder} is damaged ({error.message.split(' [')[0].strip()}); find it with python -m "
            f"tools.verify {data.folder}, and restore that shard or shard the input again."
        ) from error
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        refused = _USER_ERROR.search(error.message)
        if refused:
            raise UserError(refused[1]) from error
        raise


def parser(data: Manifest) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.RaggedTensor]]:
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


def _chosen_rows(selection: Selection | None, epoch: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns a function from parsed records to (encoded images, keys) of those that the epoch has."""

    def all_rows(product_ids: tf.Tensor, labels: tf.Tensor, images: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        keys = tf.stack([tf.cast(labels, tf.int64), product_ids], axis=1)
        return images.values, tf.repeat(keys, images.row_lengths(), axis=0)

    if selection is None:
        return all_rows

    def chosen_rows(product_ids: tf.Tensor, labels: tf.Tensor, images: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        copies = tf.numpy_function(
            lambda ids, of: selection.copies(ids, of, epoch), (product_ids, labels), tf.int64, stateful=False
        )
        copies.set_shape((None,))
        chosen = tf.repeat(tf.range(tf.shape(labels)[0]), copies)
        return all_rows(tf.gather(product_ids, chosen), tf.gather(labels, chosen), tf.gather(images, chosen))

    return chosen_rows


def _train_decoder(
    config: InputConfig, seed: int, rows: slice, report: ImageReport | None
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns a function from (step, (encoded images, keys)) to a batch of training."""
    size, count = config.image_size, rows.stop - rows.start
    decoder = BatchDecoder(config.decode_size, size, policy=config.policy, report=report)

    def decode_and_crop(step: np.ndarray, encoded: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = step * config.batch_size + np.arange(rows.start, rows.stop)
        corners = _corners(config.decode_size - size, positions, seed)
        pictures, readable = decoder.decode(encoded, corners=corners, product_ids=ids)
        return pictures, readable.astype(np.float32)

    def to_batch(step: tf.Tensor, images: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        # A slice of strings copies them all, so a host that has every row takes none.
        encoded, keys = images if count == config.batch_size else (column[rows] for column in images)
        pictures, weights = tf.numpy_function(decode_and_crop, (step, encoded, keys[:, 1]), (tf.uint8, tf.float32))
        pictures.set_shape((count, size, size, 3))
        weights.set_shape((count,))
        return pictures, tf.cast(keys[:, 0], tf.int32), weights

    return to_batch


def _corners(room: int, positions: np.ndarray, seed: int) -> np.ndarray:
    """Returns a random top and left from 0 to `room` for the image at each position: int64 of shape (images, 2)."""
    draws = hashing.mix(positions, seed ^ _CROP_SALT)
    choices = np.uint64(room + 1)
    return np.stack([draws % choices, draws // choices % choices], axis=1).astype(np.int64)
