"""The bytes of records: serialized examples, framed, thousands at once.

A record is a serialized `tf.train.Example` (the protocol-buffer wire format,
https://protobuf.dev/programming-guides/encoding/) in the frame of a TFRecord.
All that is not a picture is computed by NumPy, column by column; the pictures
are copied once, into chunks that stay in the processor's cache until they are
summed and written.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline import schema, tfrecord
from pipeline.layout import Products
from pipeline.taxonomy import Taxonomy

_PRODUCTS_AT_ONCE = 1 << 12  # Bounds the memory where products have a few bytes each.
_CHUNK_BYTES = 1 << 20


class _Octets(NamedTuple):
    """Strings of bytes of unequal length: those of `octets` at which `used` is true, both of shape (strings, width)."""

    octets: np.ndarray
    used: np.ndarray

    def sizes(self) -> np.ndarray:
        return self.used.sum(axis=1)

    def take(self, rows: np.ndarray) -> "_Octets":
        return _Octets(self.octets[rows], self.used[rows])


class Chunk(NamedTuple):
    """Records, one after another.

    Attributes:
      content: Their bytes.
      image_starts: Where each picture begins in them, int64 of shape (images,).
    """

    content: bytearray
    image_starts: np.ndarray


class Encoder:
    """Turns products into records; knows the labels of every category."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._category_ids = np.array([schema.NO_CATEGORY, *taxonomy.category_ids], np.int64)
        self._rows = np.argsort(self._category_ids, kind="stable")
        levels = range(1, taxonomy.num_levels + 1)
        labels = [np.append(schema.NO_CATEGORY, taxonomy.ancestors(level)) for level in levels]
        keys = [_entry_key(schema.level_key(level)) for level in levels]
        # The same for all products of a category.
        self._before = _joined(_int64_feature(_entry_key(schema.CATEGORY_ID), self._category_ids))
        nothing = _constant(b"", len(self._category_ids))  # A tree of no category has no level either.
        after = [part for pair in zip(keys, labels, strict=True) for part in _int64_feature(*pair)]
        self._after = _joined([nothing, *after])

    def frame(self, data: memoryview, products: Products) -> Iterator[Chunk]:
        """Yields the records of products, in chunks of about a megabyte.

        Args:
          data: The buffer that holds the pictures.
          products: Any number of them.

        Raises:
          KeyError: The category is not in the tree.
        """
        for first in range(0, len(products.product_id), _PRODUCTS_AT_ONCE):
            rows = np.arange(first, min(first + _PRODUCTS_AT_ONCE, len(products.product_id)))
            yield from self._frame(data, products.take(rows))

    def _frame(self, data: memoryview, products: Products) -> Iterator[Chunk]:
        leads, trails, sizes = self._around(products)
        headers = _strings(_delimited(b"\x0a", products.ends - products.starts))
        record_ends = np.cumsum(sizes)
        images = np.append(0, np.cumsum(products.num_images))
        image_starts = _image_starts(products, record_ends - sizes + _lengths(leads), _lengths(headers))
        pictures = zip(headers, products.starts.tolist(), products.ends.tolist(), strict=True)
        buffers: list[bytes | memoryview] = []
        first = begin = 0  # The first record of the chunk, and where it begins.
        rows = zip(leads, trails, products.num_images.tolist(), record_ends.tolist(), strict=True)
        for row, (lead, trail, count, end) in enumerate(rows, 1):
            buffers.append(lead)
            for header, start, stop in itertools.islice(pictures, count):
                buffers += (header, data[start:stop])
            buffers.append(trail)
            if end - begin >= _CHUNK_BYTES or row == len(leads):
                content = _with_checksums(buffers, record_ends[first:row] - begin)
                yield Chunk(content, image_starts[images[first] : images[row]] - begin)
                buffers, first, begin = [], row, end

    def _around(self, products: Products) -> tuple[list[bytes], list[bytes], np.ndarray]:
        """Returns what stands before and after the pictures of each record, and the size of the whole.

        The last four bytes are to become the checksum.
        """
        lengths = products.ends - products.starts
        payload = _sums(1 + _varints(lengths).sizes() + lengths, products.num_images)
        before, after = self._constants(products.category_id)
        lead = [before, *_feature_header(_IMAGES_ENTRY, b"\x0a", payload)]
        trail = [after, *_int64_feature(_PRODUCT_ID_ENTRY, products.product_id)]
        size = payload + _size([*lead, *trail])
        outer = _delimited(b"\x0a", size)
        record = size + _size(outer)
        header = tfrecord.headers(record)
        footer = _constant(bytes(tfrecord.FOOTER_BYTES), len(record))
        leads = _strings([_Octets(header, np.ones_like(header, np.bool_)), *outer, *lead])
        return leads, _strings([*trail, footer]), record + header.shape[1] + tfrecord.FOOTER_BYTES

    def _constants(self, category_ids: np.ndarray) -> tuple[_Octets, _Octets]:
        """Returns what is the same for all products of a category: before and after the images."""
        places = np.searchsorted(self._category_ids, category_ids, sorter=self._rows)
        rows = self._rows[np.minimum(places, len(self._rows) - 1)]
        unknown = category_ids[self._category_ids[rows] != category_ids]
        if len(unknown):
            raise KeyError(f"category {unknown[0]} is not in the tree")
        return self._before.take(rows), self._after.take(rows)


def _image_starts(products: Products, begins: np.ndarray, headers: np.ndarray) -> np.ndarray:
    """Returns where each picture begins, if those of each product begin there, and each has a header of some bytes."""
    sizes = headers + products.ends - products.starts
    before = np.append(0, np.cumsum(sizes))
    firsts = np.cumsum(products.num_images) - products.num_images
    return np.repeat(begins - before[firsts], products.num_images) + before[:-1] + headers


def _lengths(strings: list[bytes]) -> np.ndarray:
    return np.fromiter(map(len, strings), np.int64, len(strings))


def _with_checksums(buffers: list[bytes | memoryview], ends: np.ndarray) -> bytearray:
    """Returns records that end at the given places, with their checksums."""
    content = bytearray().join(buffers)
    octets = np.frombuffer(content, np.uint8)
    begin, crcs = 0, []
    for end in ends.tolist():
        crcs.append(tfrecord.extend_crc(0, octets[begin + tfrecord.HEADER_BYTES : end - tfrecord.FOOTER_BYTES]))
        begin = end
    places = ends[:, np.newaxis] + np.arange(-tfrecord.FOOTER_BYTES, 0)
    octets[places] = tfrecord.footers(np.array(crcs))
    return content


def identifiers(product_ids: np.ndarray) -> list[bytes]:
    """Returns the bytes with which the record of each product ends: its id as a feature."""
    return _strings(_int64_feature(_PRODUCT_ID_ENTRY, product_ids))


def _int64_feature(entry_key: bytes, values: np.ndarray) -> list[_Octets]:
    encoded = _varints(values)
    value = [*_delimited(b"\x0a", encoded.sizes()), encoded]
    return [*_feature_header(entry_key, b"\x1a", _size(value)), *value]


def _feature_header(entry_key: bytes, kind: bytes, size: np.ndarray) -> list[_Octets]:
    """Returns map entries up to the values, which have `size` bytes; `kind` is the tag of their list."""
    feature = _delimited(kind, size)
    value = _delimited(b"\x12", size + _size(feature))
    rest = [_constant(entry_key, len(size)), *value, *feature]
    return [*_delimited(b"\x0a", size + _size(rest)), *rest]


def _size(parts: list[_Octets]) -> np.ndarray:
    return np.sum([part.sizes() for part in parts], axis=0)


def _delimited(tag: bytes, size: np.ndarray) -> list[_Octets]:
    return [_constant(tag, len(size)), _varints(size)]


def _varints(values: np.ndarray) -> _Octets:
    """Encodes int64s, a negative one as its two's complement."""
    unsigned = values.astype(np.int64).view(np.uint64)
    width = max(1, -(-int(unsigned.max(initial=0)).bit_length() // 7))
    rest = unsigned[:, np.newaxis] >> (7 * np.arange(width, dtype=np.uint64))
    octets = (rest & np.uint64(0x7F)).astype(np.uint8)
    used = rest > 0
    used[:, 0] = True
    octets[:, :-1] |= used[:, 1:].astype(np.uint8) << 7
    return _Octets(octets, used)


def _constant(value: bytes, count: int) -> _Octets:
    octets = np.broadcast_to(np.frombuffer(value, np.uint8), (count, len(value)))
    return _Octets(octets, np.broadcast_to(np.True_, octets.shape))


def _joined(parts: list[_Octets]) -> _Octets:
    """Returns the parts of each row as one."""
    return _Octets(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))


def _strings(parts: list[_Octets]) -> list[bytes]:
    """Returns the parts of each row, joined."""
    octets, used = _joined(parts)
    joined = octets[used].tobytes()
    ends = np.cumsum(used.sum(axis=1)).tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the sum of each run of so many values."""
    totals = np.append(0, np.cumsum(values))
    ends = np.cumsum(counts)
    return totals[ends] - totals[ends - counts]


def _entry_key(key: str) -> bytes:
    """Returns the key of an entry of the map of features, with its tag and length."""
    return b"\x0a" + bytes([len(key)]) + key.encode()


_IMAGES_ENTRY = _entry_key(schema.IMAGES)
_PRODUCT_ID_ENTRY = _entry_key(schema.PRODUCT_ID)
