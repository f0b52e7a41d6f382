"""Compressed dumps: recognised by content, decompressed once into the work folder."""

import bz2
import functools
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import zstandard

from pipeline import files
from pipeline.console import UserError
from pipeline.source import Reader

_CHUNK_BYTES = 1 << 20
_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


_Chunks = Callable[[IO[bytes]], Iterator[bytes]]


def _reads(open_compressed: Callable[[IO[bytes]], Any]) -> _Chunks:
    return lambda file: iter(functools.partial(open_compressed(file).read, _CHUNK_BYTES), b"")


def _zstd(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of all frames; the library's own reader takes a cut for the end."""
    frame = None
    while packed := file.read(_CHUNK_BYTES):
        while packed:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(packed)
            packed = frame.unused_data
            frame = None if frame.eof else frame
    if frame:
        raise EOFError("the file ends inside a frame")


# Each reads files of several members, streams or frames one after another.
_FORMATS: dict[bytes, tuple[str, _Chunks]] = {
    b"\x1f\x8b": ("gzip", _reads(gzip.open)),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
    b"BZh": ("bzip2", _reads(bz2.open)),
    b"\xfd7zXZ\x00": ("xz", _reads(lzma.open)),
}


def kind(path: str) -> str | None:
    """Returns the name of a file's compression, by its first bytes; None for a plain one."""
    found = _format(path)
    return found[0] if found else None


def _format(path: str) -> tuple[str, _Chunks] | None:
    with Reader(path) as reader:
        begin = reader.read(0, 6)
    return next((found for magic, found in _FORMATS.items() if begin.startswith(magic)), None)


def decompress(path: str, destination: str, advance: Callable[[int], object]) -> None:
    """Writes what a compressed file holds, atomically.

    Args:
      path: The compressed file.
      destination: Where its content goes.
      advance: Called now and then with the number of compressed bytes read since.

    Raises:
      UserError: The compressed file is cut or damaged.
    """
    found = _format(path)
    if not found:
        raise ValueError(f"{path} is not compressed.")
    name, chunks = found
    with files.open_stream(path) as file:
        files.write(destination, _content(path, name, file, chunks(file), advance))


def _content(
    path: str, name: str, file: IO[bytes], chunks: Iterator[bytes], advance: Callable[[int], object]
) -> Iterator[bytes]:
    done = total = 0
    while True:
        try:
            chunk = next(chunks, None)
        except _ERRORS as error:
            raise UserError(
                f"{path} cannot be decompressed ({name}) after {total} bytes of content: {error}. Fetch the file "
                f"again; or decompress what can be saved of it and shard that with --tolerate_damage."
            ) from None
        position = file.tell()
        advance(position - done)
        done = position
        if chunk is None:
            return
        total += len(chunk)
        yield chunk
