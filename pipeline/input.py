"""From shards to batches of training: read, select, shuffle, decode.

Pictures stay uint8 up to the accelerator, which casts, normalises and augments
them: as float32 they would be four times the bytes to copy. What a batch holds
is computed from the tables beside the shards, so no record is parsed, and any
batch can be made without those before it.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from pipeline import hashing, python_batches, schema, shuffle
from pipeline.console import UserError
from pipeline.decode import BatchDecoder
from pipeline.image_reader import ImageReader
from pipeline.manifest import Manifest
from pipeline.odd_images import ImagePolicy, ImageReport
from pipeline.selection import Selection, SelectionConfig
from pipeline.shuffle import Windows

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
      shuffle_images: Images among which to shuffle, in runs from all over the
        dataset; up to three times as many are in memory, encoded, about 6 KB each.
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


class TrainInput:
    """The batches of training, epoch by epoch, of which one process may take a part.

    The order and the crops follow from (seed, epoch) alone: whatever the number
    of hosts and threads, and wherever an epoch is begun, its batches are the same.

    Args:
      data: The dataset; its train split is read.
      config: How batches are made.
      part: The rows of every batch to return; all by default.
      report: Where odd pictures are counted as batches are made.

    Attributes:
      steps: Number of whole batches in an epoch. The last images that fill none
        are left out of the epoch.

    Raises:
      UserError: The chosen products have fewer images than one batch, a batch
        cannot be divided among the hosts, or a shard is missing.
    """

    def __init__(
        self, data: Manifest, config: InputConfig, *, part: Part = Part(), report: ImageReport | None = None
    ) -> None:
        self._config, self._rows = config, part.rows(config.batch_size)
        self._reader = ImageReader(data, schema.TRAIN)
        takes_all = config.selection.takes_all
        self._selection = None if takes_all else Selection(data, config.selection, seed=config.seed)
        self._decoder = BatchDecoder(config.decode_size, config.image_size, policy=config.policy, report=report)
        images = len(self._reader.owner)
        if self._selection:
            reader = self._reader
            images = self._selection.images_per_epoch(reader.product_id, reader.label, reader.num_images)
        if not images:
            raise UserError(f"{data.folder} has no images to train on; expected one batch of {config.batch_size}.")
        if images < config.batch_size:
            raise UserError(
                f"{data.folder} has {images} images to train on; expected one batch, --batch_size={images}."
            )
        self.steps = images // config.batch_size

    def epoch(self, number: int, *, first_step: int = 0) -> tf.data.Dataset:
        """Returns the batches of an epoch from some step on; those before it are neither read nor decoded.

        Args:
          number: Number of the epoch, from 0; each has another order.
          first_step: Number of batches to skip.

        Returns:
          A dataset of (images, labels, weights): uint8 of shape (rows, image_size,
          image_size, 3); int32 of shape (rows,), the category's label at the last
          level; and float32 of shape (rows,), 0 for an unreadable image and else 1.
        """
        size, rows = self._config.image_size, self._rows.stop - self._rows.start
        columns = [(tf.uint8, (rows, size, size, 3)), (tf.int32, (rows,)), (tf.float32, (rows,))]
        epoch = _Epoch(self, self._windows(number), self._seed(number))
        return python_batches.dataset(range(first_step, self.steps), epoch.batch, columns)

    def product_ids(self, number: int) -> np.ndarray:
        """Returns the product ids of an epoch's images, in the order of training: int64 of shape (images,)."""
        return self._reader.product_id[self._reader.owner[self._windows(number).order()]]

    def _seed(self, epoch: int) -> int:
        return int(hashing.mix(np.array([epoch]), self._config.seed ^ _EPOCH_SALT)[0] >> np.uint64(1))

    def _windows(self, epoch: int) -> Windows:
        images = self._images(epoch)
        if self._selection:
            # Shares differ in size a little; where one is short, the next one helps out.
            images = np.append(images, self._images(epoch + 1))
        images = np.resize(images, self.steps * self._config.batch_size)
        row = np.arange(len(images)) % self._config.batch_size
        return Windows(
            self._reader,
            images,
            size=self._config.shuffle_images,
            seed=self._seed(epoch),
            asked_for=(row >= self._rows.start) & (row < self._rows.stop),
        )

    def _images(self, epoch: int) -> np.ndarray:
        """Returns the numbers of the images of an epoch as they are read."""
        products = shuffle.products_by_run(self._reader, window=self._config.shuffle_images, seed=self._seed(epoch))
        if self._selection:
            reader = self._reader
            copies = self._selection.copies(reader.product_id[products], reader.label[products], epoch)
            products = np.repeat(products, copies)
        return self._reader.images_of(products)

    def batch(self, windows: Windows, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Makes a batch of an epoch, whose order the windows have; see `epoch` for what it is."""
        config = self._config
        positions = step * config.batch_size + np.arange(self._rows.start, self._rows.stop)
        numbers, encoded = windows.take(positions)
        products = self._reader.owner[numbers]
        pictures, readable = self._decoder.decode(
            encoded,
            corners=_corners(config.decode_size - config.image_size, positions, seed),
            product_ids=self._reader.product_id[products],
        )
        return pictures, self._reader.label[products], readable.astype(np.float32)


@dataclass(frozen=True)
class _Epoch:
    """What makes the batches of one epoch."""

    input: TrainInput
    windows: Windows
    seed: int

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.input.batch(self.windows, self.seed, step)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turns what TensorFlow says of a dataset that cannot be read in the body into one line.

    Raises:
      UserError: An image is damaged, or a picture is refused by policy.
    """
    try:
        yield
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        refused = _USER_ERROR.search(error.message)
        if refused:
            raise UserError(refused[1]) from error
        raise


def _corners(room: int, positions: np.ndarray, seed: int) -> np.ndarray:
    """Returns a random top and left from 0 to `room` for the image at each position: int64 of shape (images, 2)."""
    draws = hashing.mix(positions, seed ^ _CROP_SALT)
    choices = np.uint64(room + 1)
    return np.stack([draws % choices, draws // choices % choices], axis=1).astype(np.int64)
