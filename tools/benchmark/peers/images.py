"""The images of a dataset in a form that any row of them can be read from, and what loaders do with them."""

import functools
import mmap
import os
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg

from tools.benchmark import loaders
from tools.benchmark.rates import Work


def made(work: Work, name: str, write: Callable[[str], object]) -> str:
    """Returns a path in the scratch folder, after it was written, once for all, by a function of it."""
    path = os.path.join(work.scratch, name)
    if not os.path.exists(path):
        os.makedirs(work.scratch, exist_ok=True)
        write(path + ".partial")
        os.rename(path + ".partial", path)
    return path


class Images:
    """The encoded images of the train split in one file, which is mapped into memory.

    Args:
      work: Names the dataset.

    Attributes:
      labels: Label of each image's category, int64 of shape (images,).
    """

    def __init__(self, work: Work) -> None:
        self._folder = made(work, "images", functools.partial(_pack, work))
        self.labels = np.load(os.path.join(self._folder, "labels.npy"))
        self._ends = np.load(os.path.join(self._folder, "ends.npy"))

    @functools.cached_property
    def _content(self) -> memoryview:  # Mapped where it is read: it cannot be sent to another process.
        with open(os.path.join(self._folder, "images.bin"), "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> memoryview:
        return self._content[self._ends[row] : self._ends[row + 1]]


def _pack(work: Work, folder: str) -> None:
    encoded, labels = zip(*loaders.labelled_pictures(work), strict=True)
    os.makedirs(folder, exist_ok=True)
    np.save(os.path.join(folder, "labels.npy"), np.array(labels, np.int64))
    np.save(os.path.join(folder, "ends.npy"), np.cumsum([0, *map(len, encoded)]))
    with open(os.path.join(folder, "images.bin"), "wb") as file:
        file.writelines(encoded)


def decode(encoded: bytes | memoryview, into: np.ndarray | None = None) -> np.ndarray:
    """Returns the pixels of a JPEG, those of `tf.io.decode_jpeg`: uint8 of shape (height, width, 3)."""
    return simplejpeg.decode_jpeg(encoded, fastdct=True, fastupsample=False, buffer=into)


def cut_out(picture: np.ndarray, work: Work) -> np.ndarray:
    """Returns what is cut out of a picture at a random place: a view of shape (image_size, image_size, 3)."""
    top, left = np.random.randint(0, work.decode_size - work.image_size + 1, 2)
    return picture[top : top + work.image_size, left : left + work.image_size]


def decode_batch(encoded: Sequence[bytes | memoryview], work: Work, *, into: np.ndarray | None = None) -> np.ndarray:
    """Decodes a batch in one call.

    Args:
      encoded: JPEGs.
      work: Says what is cut out of them.
      into: Where the pixels go; a new array if None.

    Returns:
      uint8 of shape (len(encoded), image_size, image_size, 3).
    """
    batch = np.empty((len(encoded), work.image_size, work.image_size, 3), np.uint8) if into is None else into
    whole = np.empty((work.decode_size, work.decode_size, 3), np.uint8)
    for row, data in enumerate(encoded):
        batch[row] = cut_out(decode(data, whole), work)
    return batch
