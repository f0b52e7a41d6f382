"""Runs of whole documents, and reading them back for a task."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import bson_framing, files
from pipeline.console import UserError
from pipeline.source import Reader


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
        self._buffer = bytearray()

    def read(self, pieces: Pieces) -> Iterator[tuple[int, memoryview, int, list[int]]]:
        """Yields the input number, bytes, file offset and boundaries of each piece.

        All stay valid until the next call.

        Raises:
          UserError: The input is not what was indexed.
        """
        sizes = pieces.ranges[:, 2] - pieces.ranges[:, 1]
        room = self._room(int(sizes.sum()))
        planned = len(pieces.codes)
        numbers = set(pieces.ranges[:, 0].tolist())
        with contextlib.ExitStack() as stack:
            readers = {number: stack.enter_context(Reader(self._paths[number])) for number in numbers}
            for (file, start, end), last in zip(pieces.ranges.tolist(), np.cumsum(sizes).tolist(), strict=True):
                data = room[last - (end - start) : last]
                filled = readers[file].read_into(start, data)
                boundaries = bson_framing.boundaries(data)
                planned -= len(boundaries) - 1
                if filled != end - start or boundaries[-1] != filled or planned < 0:
                    raise UserError(
                        f"{self._paths[file]} has changed since it was indexed (at offset {start}); "
                        "run the job again with --overwrite."
                    )
                yield file, data, start, boundaries

    def _room(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = bytearray()  # Frees the old one before the new one is asked for.
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[:size]
