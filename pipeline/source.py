"""Random access to the bytes of an input file, local or on Beam's file systems."""

import glob
import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import files
from pipeline.console import UserError


@dataclass(frozen=True)
class Source:
    """An input file as it was when the job began.

    Attributes:
      path: Where it is.
      size: Its length in bytes.
      modified: Time of its last change in seconds since 1970.
    """

    path: str
    size: int
    modified: float

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return asdict(self)


class Reader:
    """Reads ranges of one file; use it as a context manager.

    Attributes:
      size: Length of the file in bytes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if files.is_remote(path):
            from apache_beam.io.filesystems import FileSystems

            self._file: Any = FileSystems.open(path, compression_type="uncompressed")
            self.size = stat(path).size
        else:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - `close` closes it.
            self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Returns up to `length` bytes from offset `start`; fewer at the end of the file."""
        if files.is_remote(self.path):
            self._file.seek(start)
            return bytes(self._file.read(length))
        parts = []
        while length > 0:  # One call returns at most 2 GiB, and less when interrupted.
            part = os.pread(self._file.fileno(), length, start)
            if not part:
                break
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fills a buffer from offset `start`; returns the number of bytes, fewer at the end of the file."""
        filled = 0
        while filled < len(buffer):
            if files.is_remote(self.path):
                part = self.read(start + filled, len(buffer) - filled)
                count = len(part)
                buffer[filled : filled + count] = part
            else:
                count = os.preadv(self._file.fileno(), [buffer[filled:]], start + filled)
            if not count:
                break
            filled += count
        return filled

    def window(self, start: int, length: int) -> memoryview:
        """Returns a view like `read` does, which reads a local page only when it is touched."""
        length = min(length, self.size - start)
        if length <= 0 or files.is_remote(self.path):
            return memoryview(self.read(start, length))
        aligned = start - start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self._file.fileno(), start - aligned + length, access=mmap.ACCESS_READ, offset=aligned)
        return memoryview(mapped)[start - aligned :]


def stat(path: str) -> Source:
    """Returns the size and the time of the last change of a file.

    Raises:
      UserError: There is no such file.
    """
    if files.is_remote(path):
        return _match(path, path)[0]
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "is not there"
        raise UserError(f"{path} {what}; expected a BSON file, as mongodump writes it.")
    found = os.stat(path)
    return Source(path, found.st_size, found.st_mtime)


def _match(pattern: str, named: str) -> list[Source]:
    from apache_beam.io.filesystems import FileSystems

    [match] = FileSystems.match([pattern])
    if not match.metadata_list:
        raise UserError(f"{named} matches no file; expected one or more BSON files.")
    return [Source(item.path, item.size_in_bytes, item.last_updated_in_seconds or 0.0) for item in match.metadata_list]


def find(patterns: Sequence[str]) -> tuple[Source, ...]:
    """Returns the files that paths and glob patterns name, sorted within each pattern.

    Raises:
      UserError: A pattern matches nothing, or a file is named twice.
    """
    found: list[Source] = []
    for pattern in patterns:
        found += sorted(_expand(pattern), key=lambda source: source.path)
    paths = [source.path for source in found]
    repeated = {path for path in paths if paths.count(path) > 1}
    if repeated:
        raise UserError(f"{min(repeated)} is named twice; expected each input once.")
    return tuple(found)


def _expand(pattern: str) -> list[Source]:
    if files.is_remote(pattern):
        return _match(pattern, pattern)
    if os.path.exists(pattern) or not any(mark in pattern for mark in "*?["):
        return [stat(pattern)]
    paths = [path for path in glob.glob(pattern) if os.path.isfile(path)]
    if not paths:
        raise UserError(f"{pattern} matches no file; expected one or more BSON files.")
    return [stat(path) for path in paths]
