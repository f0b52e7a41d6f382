"""TFRecord framing: the length and the checksums around each record.

The format is that of https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import functools
import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_CRC_MASK_DELTA = 0xA282EAD8
_LENGTH_BYTES = 8
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


def headers(lengths: np.ndarray) -> np.ndarray:
    """Returns what stands before records of some lengths.

    The checksum of a length is that of zero, with a change of its own for each
    byte that is not zero, since a crc is linear: so it takes a table for each
    byte, and no call for each record.

    Args:
      lengths: int64 of shape (records,).

    Returns:
      uint8 of shape (records, HEADER_BYTES).
    """
    octets = lengths.astype("<u8")[:, np.newaxis].view(np.uint8)
    crcs = np.bitwise_xor.reduce(_changes()[np.arange(_LENGTH_BYTES), octets], axis=1) ^ np.uint32(
        extend_crc(0, bytes(_LENGTH_BYTES))
    )
    return np.concatenate([octets, footers(crcs)], axis=1)


@functools.cache
def _changes() -> np.ndarray:
    """Returns by what each value of each byte of a length changes the crc: uint32 of shape (8, 256)."""
    zero = bytes(_LENGTH_BYTES)
    changed = [
        [extend_crc(0, zero[:place] + bytes([value]) + zero[place + 1 :]) for value in range(256)]
        for place in range(_LENGTH_BYTES)
    ]
    return np.array(changed, np.uint32) ^ np.uint32(extend_crc(0, zero))


def footers(crcs: np.ndarray) -> np.ndarray:
    """Returns crc32cs as TFRecord writes them: uint8 of shape (records, FOOTER_BYTES)."""
    crcs = crcs.astype(np.uint32)
    rotated = (crcs >> np.uint32(15)) | (crcs << np.uint32(17))
    return (rotated + np.uint32(_CRC_MASK_DELTA)).astype("<u4")[:, np.newaxis].view(np.uint8)


def _masked(data: bytes) -> bytes:
    """Returns the checksum of bytes; for one, this is faster than `footers`."""
    crc = extend_crc(0, data)
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
        if data[begin - FOOTER_BYTES : begin] != _masked(bytes(data[position : begin - FOOTER_BYTES])):
            raise CorruptRecord(number, position, "the checksum of its length does not fit")
        end = begin + length
        if end + FOOTER_BYTES > len(data):
            raise CorruptRecord(number, position, f"the file ends inside it; it has {length} bytes")
        record = bytes(data[begin:end])
        if data[end : end + FOOTER_BYTES] != _masked(record):
            raise CorruptRecord(number, position, "its checksum does not fit")
        yield record
        position, number = end + FOOTER_BYTES, number + 1
