"""Products of many documents at once, as columns: ids, categories, and where their pictures stand.

Nearly all documents of a dump have Cdiscount's layout: identifier (int32),
array of images, each one binary picture, then the category (int32) or nothing.
Their fields are compared and read by NumPy, thousands of documents in a call.
Every byte outside the pictures is checked; a document that differs anywhere is
left to `records.parse`, which costs 20 times as much.
"""

from typing import NamedTuple

import bson
import numpy as np

from pipeline import records, schema
from pipeline.records import Fields

_MAX_IMAGES = 64  # Of the common layout; products with more take the general way.
_DOCUMENTS_AT_ONCE = 1 << 13  # Bounds the memory where documents have a few bytes each.


class Products(NamedTuple):
    """Products whose documents stand in one buffer.

    Attributes:
      product_id: int64 of shape (products,).
      category_id: int64 of shape (products,), or `schema.NO_CATEGORY`.
      num_images: int64 of shape (products,).
      starts: Offset in the buffer of the first byte of each picture, product
        after product: int64 of shape (sum of num_images,).
      ends: Offset after its last byte, of the same shape.
    """

    product_id: np.ndarray
    category_id: np.ndarray
    num_images: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def take(self, rows: np.ndarray) -> "Products":
        """Returns the products of some rows, in their order."""
        pictures = self.pictures(rows)
        return Products(
            self.product_id[rows],
            self.category_id[rows],
            self.num_images[rows],
            self.starts[pictures],
            self.ends[pictures],
        )

    def pictures(self, rows: np.ndarray) -> np.ndarray:
        """Returns the positions in `starts` of the pictures of some rows, in their order."""
        counts = self.num_images[rows]
        firsts = (np.cumsum(self.num_images) - self.num_images)[rows]
        return np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)


def read(data: memoryview, starts: np.ndarray, ends: np.ndarray, fields: Fields) -> tuple[Products, dict[int, str]]:
    """Reads what documents say, whatever their layout.

    Args:
      data: A buffer with the documents.
      starts: Offset of the first byte of each: int64 of shape (documents,).
      ends: Offset after its last byte: int64 of shape (documents,).
      fields: Names of their fields.

    Returns:
      The products of the documents, row by row. And by row the reason why a
      document makes none; that row of the products means nothing.
    """
    parts, refused = [], {}
    for first in range(0, max(1, len(starts)), _DOCUMENTS_AT_ONCE):
        rows = slice(first, first + _DOCUMENTS_AT_ONCE)
        part, reasons = _read(data, starts[rows], ends[rows], fields)
        parts.append(part)
        refused.update({first + row: reason for row, reason in reasons.items()})
    return Products(*map(np.concatenate, zip(*parts, strict=True))), refused


def keys(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, fields: Fields
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids, categories, and which documents seem to have the common layout, where alone these are right.

    In the common layout the identifier is at the head of a document and the
    category at its tail, so the images between them are not touched.

    Args:
      data: The bytes: uint8.
      starts: As for `read`, like the others.
      ends: As for `read`.
      fields: As for `read`.
    """
    gathered = [
        _keys(data, starts[first : first + _DOCUMENTS_AT_ONCE], ends[first : first + _DOCUMENTS_AT_ONCE], fields)
        for first in range(0, max(1, len(starts)), _DOCUMENTS_AT_ONCE)
    ]
    product_ids, category_ids, common = map(np.concatenate, zip(*gathered, strict=True))
    return product_ids, category_ids, common


def _keys(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, fields: Fields
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    head = _gather(data, starts, fields.head_bytes)
    tail = _gather(data, ends - fields.tail_bytes, fields.tail_bytes)
    id_at = 4 + len(fields.id_prefix)
    product_ids = _int32(head, id_at)
    array_bytes = _int32(head, fields.head_bytes - 4)
    common = _equals(head, 4, fields.id_prefix) & _equals(head, id_at + 4, fields.images_prefix)
    left = ends - starts - (fields.head_bytes - 4) - array_bytes  # After the array of images.
    common &= (ends - starts > fields.head_bytes) & (array_bytes >= 5)
    labelled = (left == fields.tail_bytes) & _equals(tail, 0, fields.category_prefix)
    category_ids = np.where(labelled, _int32(tail, fields.tail_bytes - 5), schema.NO_CATEGORY)
    return product_ids, category_ids, common & (labelled | (left == 1))


def _read(data: memoryview, starts: np.ndarray, ends: np.ndarray, fields: Fields) -> tuple[Products, dict[int, str]]:
    product_ids, category_ids, common, pictures = find(np.frombuffer(data, np.uint8), starts, ends, fields)
    found, refused = [pictures], {}
    for row in np.flatnonzero(~common).tolist():
        start, end = int(starts[row]), int(ends[row])
        document = bytes(data[start:end])
        try:
            product = records.parse(document, fields)
        except (records.RefusedDocument, bson.errors.InvalidBSON) as error:
            refused[row] = str(error)
            continue
        product_ids[row], category_ids[row], _ = product
        found.append(_places(document, product, row, start))
    owners, begins, stops = np.concatenate(found, axis=1)
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=len(starts))
    return Products(product_ids, category_ids, counts, begins[order], stops[order]), refused


def _places(document: bytes, product: records.Product, row: int, start: int) -> np.ndarray:
    """Returns where the pictures of a parsed document stand, in the form of `find`: BSON holds them as they are."""
    found, position = [], 0
    for picture in product.pictures:
        position = document.index(picture, position) + len(picture)
        found.append((row, start + position - len(picture), start + position))
    return np.array(found, np.int64).reshape(-1, 3).T


def find(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, fields: Fields
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads the documents of the common layout.

    Returns:
      As `keys` does: ids, categories and which documents have the common
      layout, here for certain. And of each of their pictures the row, the
      offset of its first byte and that after its last: int64 of shape
      (3, pictures), sorted by number within a product.
    """
    product_ids, category_ids, common = keys(data, starts, ends, fields)
    position = starts + fields.head_bytes
    last = position - 5 + _int32(_gather(data, position - 4, 4), 0)  # The zero that ends the array.
    rows = np.flatnonzero(common)
    found = [np.empty((3, 0), np.int64)]
    for number in range(_MAX_IMAGES):
        rows = rows[position[rows] < last[rows]]
        if not len(rows):
            break
        begins, stops, sound = _picture(data, position[rows], last[rows], number, fields)
        common[rows[~sound]] = False
        rows = rows[sound]
        position[rows] = stops[sound] + 1
        found.append(np.stack([rows, begins[sound], stops[sound]]))
    zeros = (data.take(last, mode="clip") == 0) & (data.take(ends - 1, mode="clip") == 0)
    common &= (position == last) & zeros
    pictures = np.concatenate(found, axis=1)
    return product_ids, category_ids, common, pictures[:, common[pictures[0]]]


def _picture(
    data: np.ndarray, position: np.ndarray, last: np.ndarray, number: int, fields: Fields
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns both ends of the pictures of images that should begin at some places, and which ones do."""
    key, prefix = records.image_prefix(number), fields.picture_prefix
    size_at, prefix_at = len(key), len(key) + 4
    count_at = prefix_at + len(prefix)
    header = _gather(data, position, count_at + 5)
    count = _int32(header, count_at)
    begins = position + count_at + 5
    stops = begins + count
    sound = _equals(header, 0, key) & _equals(header, prefix_at, prefix) & (header[:, -1] == 0) & (count >= 0)
    sound &= (_int32(header, size_at) == count + len(prefix) + 10) & (stops < last)
    return begins, stops, sound & (data.take(stops, mode="clip") == 0)


def _gather(data: np.ndarray, starts: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` bytes from each start: uint8 of shape (starts, count); any bytes where that is past the data."""
    if len(data) < count:
        data = np.resize(data, count)
    runs = np.lib.stride_tricks.sliding_window_view(data, count)
    gathered: np.ndarray = runs[np.clip(starts, 0, len(runs) - 1)]  # `take` would copy the runs.
    return gathered


def _equals(gathered: np.ndarray, column: int, expected: bytes) -> np.ndarray:
    found = gathered[:, column : column + len(expected)]
    return (found == np.frombuffer(expected, np.uint8)).all(axis=1)


def _int32(gathered: np.ndarray, column: int) -> np.ndarray:
    return np.ascontiguousarray(gathered[:, column : column + 4]).view("<i4")[:, 0].astype(np.int64)
