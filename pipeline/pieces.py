"""Runs of whole documents, and reading them back for a task."""

import contextlib
import io
import itertools
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline import bson_framing, files
from pipeline.console import UserError
from pipeline.source import Reader

_SLACK = 32  # One part in so many is asked for in addition, since the next task may be a little larger.


@dataclass(frozen=True)
class Pieces:
    """What one task reads.

    Attributes:
      ranges: Input number, first offset and end of each run of whole
        documents: int64 of shape (pieces, 3).
      codes: A small number for each document of these runs, in order: uint8 of
        shape (documents,).
    """

    ranges: np.ndarray
    codes: np.ndarray

    @cached_property
    def firsts(self) -> np.ndarray:
        """Where each run begins, and where the last one ends, if they are read one after another."""
        return np.append(0, np.cumsum(self.ranges[:, 2] - self.ranges[:, 1]))

    def place(self, offset: int) -> tuple[int, int]:
        """Returns the input number and the file offset of a byte of the runs that are read one after another."""
        piece = int(np.searchsorted(self.firsts, offset, side="right")) - 1
        file, start, _ = self.ranges[piece].tolist()
        return file, start + offset - int(self.firsts[piece])

    @classmethod
    def load(cls, path: str) -> "Pieces":
        """Reads what `save` wrote."""
        with np.load(io.BytesIO(files.read(path))) as content:
            return cls(content["ranges"], content["codes"])

    def save(self, path: str) -> None:
        """Writes the pieces, atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, ranges=self.ranges, codes=self.codes)
        files.write(path, [buffer.getvalue()])


class PieceReader:
    """Reads the pieces of one task after another into one buffer.

    Each task uses it again, since fresh memory costs more than reading does.

    Args:
      paths: The dumps, by input number.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._buffer: mmap.mmap | None = None

    def read(self, pieces: Pieces) -> tuple[memoryview, np.ndarray]:
        """Returns the bytes of all pieces, one after another, and where documents begin and end in them.

        Both stay valid until the next call.

        Returns:
          The bytes, and the boundaries: int64 of shape (documents + 1,).

        Raises:
          UserError: The input is not what was indexed.
        """
        data = self._room(pieces.firsts[-1])
        numbers = set(pieces.ranges[:, 0].tolist())
        with contextlib.ExitStack() as stack:
            readers = {number: stack.enter_context(Reader(self._paths[number])) for number in numbers}
            for (file, start, _), (first, last) in zip(
                pieces.ranges.tolist(), itertools.pairwise(pieces.firsts.tolist()), strict=True
            ):
                readers[file].read_into(start, data[first:last])
        boundaries = np.array(bson_framing.boundaries(data), np.int64)
        lost = np.flatnonzero(~np.isin(pieces.firsts, boundaries))
        if len(lost) or len(boundaries) != len(pieces.codes) + 1:
            file, start, _ = pieces.ranges[max(0, lost[0] - 1) if len(lost) else 0].tolist()
            raise UserError(
                f"{self._paths[file]} has changed since it was indexed (at offset {start}); "
                "run the job again with --overwrite."
            )
        return data, boundaries

    def _room(self, size: int) -> memoryview:
        if self._buffer is None or len(self._buffer) < size:
            self._buffer = None  # Frees the old one before the new one is asked for.
            self._buffer = _fresh_memory(size + size // _SLACK)
        return memoryview(self._buffer)[:size]


def _fresh_memory(size: int) -> mmap.mmap:
    """Returns memory in huge pages where the system has them: records are gathered from all over it."""
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
