"""Encoded images, read out of shards by their numbers.

No record is parsed, and every image is compared with its digest before it is used.
"""

import errno
import mmap
import resource
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import xxhash

from pipeline import files
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.source import Reader

_READ_THROUGH = 32 << 10  # So many bytes that nobody asked for are read rather than skipped.
_OTHER_FILES = 512  # What the rest of a process may have open.
_READS_AT_ONCE = 8  # Object stores answer several sooner than one after another.
_AROUND = 64 << 10  # Where one byte is touched, Linux maps so many around it.


class Fetched(NamedTuple):
    """Images that are in memory, or on their way.

    Attributes:
      numbers: Their numbers, int64 of shape (images,).
      buffers: What holds them.
      buffer: Place of each image's buffer among these, integers of shape (images,).
      offset: What to subtract from an offset in a shard for one in the buffer, int64 of shape (images,).
      mapped: Shard, first byte and end of each run of them in mapped shards.
    """

    numbers: np.ndarray
    buffers: Sequence[memoryview]
    buffer: np.ndarray
    offset: np.ndarray
    mapped: Sequence[tuple[int, int, int]] = ()


class ImageReader:
    """The images of a split, or of some of its shards, numbered in the order of their records.

    Where they stand comes from the tables beside the shards, which are held in
    memory: 24 bytes an image and 32 a product, 530 MB for all of Cdiscount's.
    Local shards are mapped into memory, so that the system keeps as much of them
    as it has room for; a disk that fails under a mapped file ends the process.

    Args:
      data: The dataset.
      split: Name of the split.
      shards: Numbers of the shards, in the order in which to number; all by default.

    Attributes:
      product_id: Id of each product, int64 of shape (products,).
      label: Label of its category at the last level, int32 of the same shape;
        `schema.NO_CATEGORY` in a test set.
      num_images: Number of its images, int32 of the same shape.
      shard: Place of its shard among the chosen ones, int32 of the same shape.
      row: Number of its record in the shard, int32 of the same shape.
      first_image: Number of its first image, int64 of the same shape.
      owner: Number of the product of each image, int32 of shape (images,).

    Raises:
      UserError: There is no such split, or a shard is missing or not whole.
    """

    def __init__(self, data: Manifest, split: str, shards: Sequence[int] | None = None) -> None:
        held = data.shards(split)
        chosen = range(len(held)) if shards is None else shards
        self._paths = [data.path(held[number].name) for number in chosen]
        self._sizes = [held[number].bytes for number in chosen]
        products = sum(held[number].records for number in chosen)
        images = sum(held[number].images for number in chosen)
        self.product_id, self.label = np.empty(products, np.int64), np.empty(products, np.int32)
        self.num_images, self.shard, self.row = (np.empty(products, np.int32) for _ in range(3))
        self._start, self._bytes = np.empty(images, np.int64), np.empty(images, np.int32)
        self._digest = np.empty(images, np.uint64)
        self._fill(data, split, chosen)
        self.first_image = np.cumsum(self.num_images, dtype=np.int64) - self.num_images
        self.owner = np.repeat(np.arange(products, dtype=np.int32), self.num_images)
        self._remote = any(map(files.is_remote, self._paths))
        self._lock = threading.Lock()
        self._maps: list[mmap.mmap | None] = [None] * len(self._paths)
        self._views = [memoryview(b"")] * len(self._paths)
        self._pool = ThreadPoolExecutor(_READS_AT_ONCE, "read")
        _allow_open_files(len(self._paths))

    def _fill(self, data: Manifest, split: str, chosen: Sequence[int]) -> None:
        """Reads table after table, so that no more than one is in memory beside the columns."""
        tree = data.taxonomy()
        product = image = 0
        for place, number in enumerate(chosen):
            table = data.records(split, number)
            products = slice(product, product := product + len(table.product_id))
            images = slice(image, image := image + len(table.digest))
            self.product_id[products], self.num_images[products] = table.product_id, table.num_images
            self.label[products] = tree.labels(table.category_id)
            self.shard[products], self.row[products] = place, np.arange(len(table.product_id))
            self._start[images], self._bytes[images] = table.image_start, table.image_bytes
            self._digest[images] = table.digest

    def images_of(self, products: np.ndarray) -> np.ndarray:
        """Returns the numbers of all images of products, product after product."""
        return ranges(self.first_image[products], self.num_images[products])

    def fetch(self, images: np.ndarray) -> Fetched:
        """Reads images from an object store, or has the system begin to read them from a local disk.

        Args:
          images: Their numbers, int64 of shape (images,). Those that stand near
            each other, one after another, are read at once.

        Raises:
          UserError: A shard is missing, or shorter than when it was written.
        """
        shards, starts = self.shard[self.owner[images]], self._start[images]
        ends = starts + self._bytes[images]
        gaps = starts[1:] - ends[:-1]
        new = np.append(True, (np.diff(shards) != 0) | (gaps < 0) | (gaps > _READ_THROUGH))[: len(images)]
        firsts = np.flatnonzero(new)
        lasts = np.append(firsts[1:], len(images))[: len(firsts)] - 1
        runs = [column.tolist() for column in (shards[firsts], starts[firsts], ends[lasts])]
        if not self._remote:
            mapped = list(zip(*runs, strict=True))
            self._advise(mapped, mmap.MADV_WILLNEED)
            return Fetched(images, self._views, shards, np.zeros(len(images), np.int64), mapped)
        buffers = list(self._pool.map(self._download, *runs))
        run = np.cumsum(new) - 1
        return Fetched(images, buffers, run, starts[firsts][run])

    def encoded(self, fetched: Fetched, places: np.ndarray) -> Iterator[memoryview]:
        """Yields fetched images.

        Args:
          fetched: What `fetch` returned.
          places: Which of them, and in which order: integers of shape (chosen,).

        Raises:
          UserError: An image is not as it was written.
        """
        numbers = fetched.numbers[places]
        starts = self._start[numbers] - fetched.offset[places]
        ends = starts + self._bytes[numbers]
        columns = (fetched.buffer[places], starts, ends, self._digest[numbers], numbers)
        buffers, digest_of = fetched.buffers, xxhash.xxh3_64_intdigest
        for buffer, start, end, digest, number in zip(*(column.tolist() for column in columns), strict=True):
            image = buffers[buffer][start:end]
            if digest_of(image) != digest:
                raise self._damaged(number)
            yield image

    def read(self, images: np.ndarray) -> Iterator[memoryview]:
        """Fetches images, yields them, and releases them after the last."""
        fetched = self.fetch(images)
        yield from self.encoded(fetched, np.arange(len(images)))
        self.release(fetched)

    def release(self, fetched: Fetched) -> None:
        """Tells the system that fetched images are not needed for now: the process no longer holds their memory.

        They may still be read; a local file's are likely to be in the page cache.
        """
        self._advise(fetched.mapped, mmap.MADV_DONTNEED)

    def _advise(self, mapped: Sequence[tuple[int, int, int]], advice: int) -> None:
        for shard, start, end in mapped:
            aligned = start - start % _AROUND
            length = min(end + _AROUND, self._sizes[shard]) - aligned
            (self._maps[shard] or self._map(shard)).madvise(advice, aligned, length)

    def _map(self, shard: int) -> mmap.mmap:
        path, size = self._paths[shard], self._sizes[shard]
        with self._lock:
            if mapped := self._maps[shard]:
                return mapped
            try:
                with open(path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            except (FileNotFoundError, ValueError):
                raise self._short(path, size) from None
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise UserError(f"{len(self._paths)} shards are more files than may be open; see ulimit -n.") from None
            self._views[shard] = memoryview(mapped)
            self._maps[shard] = mapped
            return mapped

    def _download(self, shard: int, start: int, end: int) -> memoryview:
        path = self._paths[shard]

        def read() -> bytes:
            with Reader(path) as file:
                return file.read(start, end - start)

        content = files.retry(read)
        if len(content) < end - start:
            raise self._short(path, self._sizes[shard])
        return memoryview(content)

    def _short(self, path: str, size: int) -> UserError:
        return UserError(
            f"{path} is no longer whole; expected {size} bytes. Restore the file, or shard the input again."
        )

    def _damaged(self, image: int) -> UserError:
        product = self.owner[image]
        return UserError(
            f"{self._paths[self.shard[product]]} is damaged: image {image - self.first_image[product]} of record "
            f"{self.row[product]}, product {self.product_id[product]}, at byte {self._start[image]}, is not what was "
            "written. Restore the file, or shard the input again."
        )


def _allow_open_files(count: int) -> None:
    """Raises the limit of open files, as far as the system lets a process, where it is less than twice a number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def ranges(firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the integers from each first one on, so many of each, int64."""
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(firsts - (ends - counts), counts) + np.arange(total)
