"""Where documents begin and end in a BSON file: hops, and recovery after damage.

A dump is documents one after another, each of which begins with its own length
(https://bsonspec.org/spec.html). Hopping from length to length touches a few
bytes of each. Where the chain breaks, `resync` finds the next document that is
whole; what lies between is reported, never dropped in silence.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import bson
import numpy as np

from pipeline.source import Reader

# MongoDB refuses documents over 16 MiB; its own, internal ones may have 16 KiB more.
MAX_DOCUMENT_BYTES = (16 << 20) + (16 << 10)
MIN_DOCUMENT_BYTES = 5
WINDOW_BYTES = 64 << 20

_LENGTH = struct.Struct("<i")
# Length below 32 MiB, the type of a first element, and its name, which has no control characters.
# It is matched as a lookahead, so that overlapping candidates are all found.
_HEADER = re.compile(rb"(?=([\x00-\xff]{3}[\x00\x01][\x01-\x13][^\x00-\x1f]{1,64}\x00))")
_HEADER_BYTES = 70

# Bytes of an element's value by type, and what some add to the length that they begin with.
_FIXED_SIZES = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16}
_FIXED_SIZES |= {0x7F: 0, 0xFF: 0}
_COUNTED_SIZES = {0x02: 4, 0x03: 0, 0x04: 0, 0x05: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, 0x0F: 0}


class Block(NamedTuple):
    """Documents that follow one another without a gap.

    Attributes:
      base: Offset in the file of the first byte of `buffer`.
      buffer: The bytes, a whole number of documents and perhaps more.
      boundaries: Offsets in `buffer`, int64 of shape (documents + 1,): document
        i has the bytes from boundaries[i] up to boundaries[i + 1].
    """

    base: int
    buffer: memoryview
    boundaries: np.ndarray

    def __len__(self) -> int:
        return len(self.boundaries) - 1

    @property
    def end(self) -> int:
        """Offset in the file after the last document."""
        return self.base + int(self.boundaries[-1])

    def document(self, index: int) -> bytes:
        """Returns the bytes of one document."""
        return bytes(self.buffer[self.boundaries[index] : self.boundaries[index + 1]])


class Damage(NamedTuple):
    """Bytes from `start` up to `end` of a file that are no whole document."""

    start: int
    end: int
    reason: str


def hop(reader: Reader, start: int, stop: int) -> Block:
    """Follows the lengths of documents from one that begins at `start`.

    Args:
      reader: The file.
      start: Offset at which a document begins.
      stop: The last document of the block is the first to reach this offset.

    Returns:
      At most a window's worth of documents, and none where no whole document
      begins at `start`.
    """
    window = reader.window(start, min(WINDOW_BYTES, stop - start + MAX_DOCUMENT_BYTES))
    return Block(start, window, np.array(_boundaries(window, 0, stop - start), np.int64))


def boundaries(data: bytes | memoryview) -> list[int]:
    """Returns where the documents in `data` begin, and where the last whole one ends."""
    return _boundaries(data, 0, len(data))


def _boundaries(window: memoryview | bytes, position: int, stop: int) -> list[int]:
    unpack = _LENGTH.unpack_from
    size = len(window)
    found = [position]
    while position < stop and position + MIN_DOCUMENT_BYTES <= size:
        (length,) = unpack(window, position)
        following = position + length
        if not MIN_DOCUMENT_BYTES <= length <= MAX_DOCUMENT_BYTES or following > size or window[following - 1]:
            break
        found.append(following)
        position = following
    return found


def resync(reader: Reader, start: int, marker: str) -> Damage:
    """Finds where whole documents go on after a place where none begins.

    A JPEG may carry bytes that look like whole chains of documents, so what the
    damaged document still says of itself comes first: where its length says
    that it ends, and where its elements end. Each is believed if the other
    agrees or if a document begins there. Only where both are lost is the next
    place taken that looks like a document.

    Args:
      reader: The file.
      start: Offset at which no whole document begins.
      marker: Name of a field that every document has at its top level.
    """
    declared, reason = _declared_end(reader, start)
    structural = _structural_end(reader, start)
    if declared is None and structural is None and _is_cut(reader, start):
        return Damage(start, reader.size, reason)
    for end in (declared, structural):
        if end is not None and (declared == structural or _begins_document(reader, end, marker)):
            return Damage(start, end, reason)
    return Damage(start, first_boundary(reader, start + 1, marker), reason)


def first_boundary(reader: Reader, start: int, marker: str) -> int:
    """Returns the first place at or after `start` that looks like the beginning of a document.

    It is wrong where a JPEG carries documents; the proof of it is whether the
    documents before it end exactly there.

    Args:
      reader: The file.
      start: Offset at which the search begins.
      marker: Name of a field that every document has at its top level.
    """
    candidates = _candidates(reader, start)
    return next((found for found in candidates if _begins_document(reader, found, marker)), reader.size)


def _declared_end(reader: Reader, start: int) -> tuple[int | None, str]:
    header = reader.read(start, 4)
    left = reader.size - start
    if len(header) < 4:
        return None, f"{left} bytes are left, too few for a document"
    (length,) = _LENGTH.unpack(header)
    if not MIN_DOCUMENT_BYTES <= length <= MAX_DOCUMENT_BYTES:
        return None, f"the length says {length} bytes, and a document has 5 to {MAX_DOCUMENT_BYTES}"
    if length > left:
        return None, f"the document is cut: its length says {length} bytes, and {left} are left"
    if reader.read(start + length - 1, 1) != b"\0":
        return start + length, "the document does not end in a zero byte"
    return start + length, "the document cannot be parsed"


def _structural_end(reader: Reader, start: int) -> int | None:
    """Returns where the elements of a document end, whatever its length says."""
    end = _walk_elements(reader.window(start, MAX_DOCUMENT_BYTES))
    return None if end is None or end > reader.size - start else start + end


def _is_cut(reader: Reader, start: int) -> bool:
    """Tells whether a document's elements are sound up to the end of the file, and go on."""
    window = reader.window(start, MAX_DOCUMENT_BYTES)
    if len(window) < 4:
        return True
    if start + len(window) < reader.size:
        return False
    end = _walk_elements(window)
    return end is not None and end > len(window) and _LENGTH.unpack_from(window)[0] >= end


def _walk_elements(document: memoryview) -> int | None:
    """Returns the offset after the last element; over the size where that is cut off; None if unsound."""
    size, position = len(document), 4
    while position < size and document[position]:
        after_name = _after_zero(document, position + 1)
        if after_name is None:
            return None
        end = _value_end(document, document[position], after_name)
        if end is None or end > size:
            return end
        position = end
    return position + 1


def _after_zero(document: memoryview, position: int) -> int | None:
    name = bytes(document[position : position + 1025])
    length = name.find(b"\0")
    return position + length + 1 if length >= 0 else None


def _value_end(document: memoryview, kind: int, position: int) -> int | None:
    if kind in _FIXED_SIZES:
        return position + _FIXED_SIZES[kind]
    if kind == 0x0B:  # A regular expression is two names.
        middle = _after_zero(document, position)
        return middle and _after_zero(document, middle)
    if kind not in _COUNTED_SIZES or position + 4 > len(document):
        return None
    (length,) = _LENGTH.unpack_from(document, position)
    return position + length + _COUNTED_SIZES[kind] if 0 <= length <= MAX_DOCUMENT_BYTES else None


def _candidates(reader: Reader, start: int) -> Iterator[int]:
    """Yields the offsets from `start` on at which a document may begin."""
    size = 64 << 10  # The next document is near as a rule.
    while start < reader.size:
        chunk = reader.read(start, size)
        for match in _HEADER.finditer(chunk):
            (length,) = _LENGTH.unpack_from(chunk, match.start(1))
            if MIN_DOCUMENT_BYTES <= length <= min(MAX_DOCUMENT_BYTES, reader.size - start - match.start()):
                yield start + match.start()
        if start + len(chunk) >= reader.size:
            return
        start += len(chunk) - _HEADER_BYTES
        size = min(2 * size, MAX_DOCUMENT_BYTES)


def _begins_document(reader: Reader, start: int, marker: str) -> bool:
    """Tells whether a whole, parseable document with the marked field begins here, or the file ends."""
    if start == reader.size:
        return True
    header = reader.read(start, 4)
    if len(header) < 4:
        return False
    (length,) = _LENGTH.unpack(header)
    if not MIN_DOCUMENT_BYTES <= length <= min(MAX_DOCUMENT_BYTES, reader.size - start):
        return False
    if reader.read(start + length - 1, 1) != b"\0":  # Spares most that is none the reading of up to 16 MiB.
        return False
    try:
        return marker in bson.decode(reader.read(start, length))
    except (bson.errors.InvalidBSON, RecursionError):
        return False
