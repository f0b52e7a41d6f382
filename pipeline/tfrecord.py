"""TFRecord framing: the length and the checksums around each record.

The format is that of https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import functools
import struct
from collections.abc import Iterator

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_CRC_MASK_DELTA = 0xA282EAD8
HEADER_BYTES, FOOTER_BYTES = 12, 4

if google_crc32c.implementation != "c":
    raise ImportError(
        "google-crc32c has no compiled implementation here, and its Python one is 700 times slower; "
        "install a wheel for this platform: pip install --force-reinstall google-crc32c."
    )

extend_crc = google_crc32c.extend  # From the crc32c so far, and bytes, to the crc32c of all.


class CorruptRecord(Exception):
    """A record that is not as it was written.

    Attributes:
      number: Its number in the file, from 0.
      offset: Where it begins.
    """

    def __init__(self, number: int, offset: int, reason: str) -> None:
        super().__init__(f"record {number}, at byte {offset}: {reason}")
        self.number = number
        self.offset = offset


@functools.lru_cache(maxsize=1 << 16)
def header(length: int) -> bytes:
    """Returns what stands before a record of some length, 12 bytes; a dump has few lengths, and each costs a crc."""
    packed = _LENGTH.pack(length)
    return packed + masked(extend_crc(0, packed))


def masked(crc: int) -> bytes:
    """Returns a crc32c as TFRecord writes it, 4 bytes."""
    return _CRC.pack((((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF)


def walk(data: memoryview) -> Iterator[bytes]:
    """Yields the records of a file.

    Raises:
      CorruptRecord: A checksum does not fit, or the file ends inside a record.
    """
    position = number = 0
    while position < len(data):
        begin = position + HEADER_BYTES
        if begin > len(data):
            raise CorruptRecord(number, position, "the file ends inside its header")
        (length,) = _LENGTH.unpack_from(data, position)
        if data[position:begin] != header(length):
            raise CorruptRecord(number, position, "the checksum of its length does not fit")
        end = begin + length
        if end + FOOTER_BYTES > len(data):
            raise CorruptRecord(number, position, f"the file ends inside it; it has {length} bytes")
        record = bytes(data[begin:end])
        if data[end : end + FOOTER_BYTES] != masked(extend_crc(0, record)):
            raise CorruptRecord(number, position, "its checksum does not fit")
        yield record
        position, number = end + FOOTER_BYTES, number + 1
