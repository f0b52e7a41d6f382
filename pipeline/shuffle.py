"""The order in which an epoch sees its images: runs of records from all over the dataset, shuffled in windows.

Shuffling moves numbers. The encoded images of a window are read once it is
near, and wait in memory until their turn.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipeline import hashing
from pipeline.image_reader import Fetched, ImageReader, ranges

_RUNS_PER_WINDOW = 256  # Enough that batches look random; longer runs are faster to read.
_RUN_SALT, _WINDOW_SALT = 0x65, 0x66


def products_by_run(reader: ImageReader, *, window: int, seed: int) -> np.ndarray:
    """Returns the numbers of all products, in runs that stand together in a shard and follow in random order.

    Args:
      reader: Numbers the products.
      window: Number of images in a window. Of the usual 16,384 a run has 64
        records, about 600 KB that are read at once.
      seed: Determines the order.
    """
    firsts = np.flatnonzero(reader.row % -(-window // _RUNS_PER_WINDOW) == 0)
    counts = np.diff(np.append(firsts, len(reader.row)))
    order = np.argsort(hashing.mix(np.arange(len(firsts)), seed ^ _RUN_SALT), kind="stable")
    return ranges(firsts[order], counts[order])


class _Window(NamedTuple):
    """Some images that follow each other in training.

    Attributes:
      images: Their numbers, in this order.
      fetched: Those that are asked for, as they stand in the shards.
      place: Place of each of the images among these; nonsense for others.
    """

    images: np.ndarray
    fetched: Fetched
    place: np.ndarray


class Windows:
    """Images, shuffled inside windows of the order they are given in; the next is fetched while one is in use.

    Any position may be asked for at any time and by several threads, but they
    had better move on together: windows before the last one are forgotten.

    Args:
      reader: Where the images are.
      images: Their numbers, int64 of shape (images,).
      size: Number of images in a window.
      seed: Determines the order.
      asked_for: The positions that will be, bool of shape (images,); the others are not fetched.
    """

    def __init__(self, reader: ImageReader, images: np.ndarray, *, size: int, seed: int, asked_for: np.ndarray) -> None:
        self._reader, self._images, self._size, self._seed = reader, images, size, seed
        self._asked_for = asked_for
        self._lock = threading.Lock()
        self._windows: dict[int, Future[_Window]] = {}
        self._fetching = ThreadPoolExecutor(1, "window")

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, Iterator[memoryview]]:
        """Returns the images at some positions in increasing order: their numbers, and they themselves, encoded."""
        windows, places = np.divmod(positions, self._size)
        parts = [(self._window(number), places[windows == number]) for number in np.unique(windows).tolist()]
        numbers = np.concatenate([window.images[chosen] for window, chosen in parts])
        return numbers, self._encoded(parts)

    def _encoded(self, parts: list[tuple[_Window, np.ndarray]]) -> Iterator[memoryview]:
        for window, chosen in parts:
            yield from self._reader.encoded(window.fetched, window.place[chosen])

    def order(self) -> np.ndarray:
        """Returns the numbers of all images in their order; fetches nothing."""
        windows = range(-(-len(self._images) // self._size))
        parts = [self._images[chosen][order] for chosen, order in map(self._order, windows)]
        return np.concatenate([self._images[:0], *parts])

    def _order(self, number: int) -> tuple[slice, np.ndarray]:
        """Returns which images stand in a window, and how they are permuted."""
        chosen = slice(number * self._size, min((number + 1) * self._size, len(self._images)))
        keys = hashing.mix(np.arange(chosen.start, chosen.stop), self._seed ^ _WINDOW_SALT)
        return chosen, np.argsort(keys, kind="stable")

    def _window(self, number: int) -> _Window:
        with self._lock:
            for near in (number, number + 1):
                if near not in self._windows and near * self._size < len(self._images):
                    self._windows[near] = self._fetching.submit(self._fetch, near)
            old = [self._windows.pop(other) for other in list(self._windows) if other < number - 1]
            window = self._windows[number]
        for passed in old:
            self._reader.release(passed.result().fetched)
        return window.result()

    def _fetch(self, number: int) -> _Window:
        chosen, order = self._order(number)
        asked_for = np.flatnonzero(self._asked_for[chosen])
        asked_for = asked_for[np.argsort(order[asked_for], kind="stable")]  # As the images stand in the shards.
        images = self._images[chosen][order]
        place = np.zeros(len(images), np.int64)
        place[asked_for] = np.arange(len(asked_for))
        return _Window(images, self._reader.fetch(images[asked_for]), place)
