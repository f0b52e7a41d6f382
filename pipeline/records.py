"""One product, from its BSON document to the bytes of a TFRecord.

The record is a serialized `tf.train.Example` (the protocol-buffer wire format,
https://protobuf.dev/programming-guides/encoding/), written by hand, since what
is the same for all products of a category is encoded only once.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import bson

from pipeline import schema, tfrecord
from pipeline.taxonomy import Taxonomy

_INT32_ELEMENT, _ARRAY_ELEMENT, _DOCUMENT_ELEMENT, _BINARY_ELEMENT = b"\x10", b"\x04", b"\x03", b"\x05"
_MAX_IMAGES = 64  # Of the common layout; products with more take the general way.
_INT64_RANGE = range(-(1 << 63), 1 << 63)

Buffer = bytes | memoryview


class RefusedDocument(Exception):
    """A whole document that makes no product; the message says why."""


class Product(NamedTuple):
    """What a document says.

    Attributes:
      product_id: Its identifier, in the range of int64.
      category_id: Its category, or `schema.NO_CATEGORY`.
      pictures: Encoded images, in the document's order.
    """

    product_id: int
    category_id: int
    pictures: Sequence[Buffer]


@dataclass(frozen=True)
class Fields:
    """Names of a document's fields.

    Attributes:
      product_id: The identifier, a whole number.
      images: The array of images.
      picture: Inside each image, the encoded bytes.
      category_id: The category, a whole number; absent or null in a test set.
    """

    product_id: str = "_id"
    images: str = "imgs"
    picture: str = "picture"
    category_id: str = "category_id"

    @cached_property
    def id_prefix(self) -> bytes:
        """Bytes between a document's length and the value of an int32 identifier."""
        return _element(_INT32_ELEMENT, self.product_id)

    @cached_property
    def images_prefix(self) -> bytes:
        """Bytes between an int32 identifier and the length of the array of images."""
        return _element(_ARRAY_ELEMENT, self.images)

    @cached_property
    def category_prefix(self) -> bytes:
        """Bytes between the array of images and the value of an int32 category."""
        return _element(_INT32_ELEMENT, self.category_id)

    @cached_property
    def picture_prefix(self) -> bytes:
        """Bytes between the length of an image's document and the length of its picture."""
        return _element(_BINARY_ELEMENT, self.picture)

    @cached_property
    def head_bytes(self) -> int:
        """Offset of the first image in the common layout."""
        return 4 + len(self.id_prefix) + 4 + len(self.images_prefix) + 4

    @cached_property
    def tail_bytes(self) -> int:
        """Bytes after the array of images in the common layout."""
        return len(self.category_prefix) + 5


def _element(kind: bytes, name: str) -> bytes:
    return kind + name.encode() + b"\0"


def keys_of(document: bytes, fields: Fields) -> tuple[int, int]:
    """Returns the product id and the category id of a document of any layout.

    Raises:
      bson.errors.InvalidBSON: The document is broken.
      RefusedDocument: An identifier is missing or is no whole number.
    """
    return _keys(_decode(document), fields)


def parse(document: bytes, fields: Fields) -> Product:
    """Parses a document of any layout: other field orders and types, more fields.

    Raises:
      bson.errors.InvalidBSON: The document is broken.
      RefusedDocument: A field has a type that cannot be used.
    """
    content = _decode(document)
    product_id, category_id = _keys(content, fields)
    images = content.get(fields.images)
    if not isinstance(images, list | None):
        raise RefusedDocument(f"{fields.images} is of type {type(images).__name__}; expected an array")
    return Product(product_id, category_id, [_picture(image, fields) for image in images or ()])


def _decode(document: bytes) -> Mapping[str, Any]:
    try:
        return bson.decode(document)
    except RecursionError:
        raise RefusedDocument("documents are nested too deep to parse") from None


def _keys(content: Mapping[str, Any], fields: Fields) -> tuple[int, int]:
    if content.get(fields.product_id) is None:
        raise RefusedDocument(f"{fields.product_id} is missing; found {', '.join(content) or 'no fields'}")
    product_id = _whole_number(fields.product_id, content[fields.product_id])
    category = content.get(fields.category_id)
    return product_id, schema.NO_CATEGORY if category is None else _whole_number(fields.category_id, category)


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A range looks at its numbers one by one for a subclass of int, such as bson.Int64.
    if not isinstance(value, int) or isinstance(value, bool) or int(value) not in _INT64_RANGE:
        raise RefusedDocument(f"{name} is {value!r}, of type {type(value).__name__}; expected a whole number")
    return int(value)


def _picture(image: Any, fields: Fields) -> bytes:
    picture = image.get(fields.picture) if isinstance(image, dict) else None
    if not isinstance(picture, bytes):
        raise RefusedDocument(f"an image holds no bytes under {fields.picture}")
    return picture


class CommonLayout:
    """Parses documents that have the fields in Cdiscount's order and types, about 10 times as fast.

    The layout: identifier (int32), array of images, each one binary picture,
    then the category (int32) or nothing. Every byte outside the pictures is
    checked; a document that differs anywhere is left to `parse`.
    """

    def __init__(self, fields: Fields) -> None:
        self._head = struct.Struct(f"<i{len(fields.id_prefix)}si{len(fields.images_prefix)}si").unpack_from
        self._tail = struct.Struct(f"<{len(fields.category_prefix) + 1}siB").unpack_from
        self._head_prefixes = (fields.id_prefix, fields.images_prefix)
        self._head_bytes = fields.head_bytes
        self._tail_bytes = fields.tail_bytes + 1  # The zero that ends the array is unpacked with it.
        self._category_prefix = b"\0" + fields.category_prefix
        self._picture_prefix = fields.picture_prefix
        self._image_overhead = 4 + len(fields.picture_prefix) + 4 + 1 + 1
        # The key of an image is its number in decimal, so its header has one more byte from 10 on.
        keys = [_element(_DOCUMENT_ELEMENT, str(index)) for index in range(_MAX_IMAGES)]
        self._images = [
            (key, self._image_header(len(key)).unpack_from, self._image_header(len(key)).size) for key in keys
        ]

    def _image_header(self, key_bytes: int) -> struct.Struct:
        return struct.Struct(f"<{key_bytes}si{len(self._picture_prefix)}siB")

    def parse(self, buffer: memoryview, start: int, end: int) -> Product | None:
        """Returns the product of the document at buffer[start:end], or None for another layout."""
        position = start + self._head_bytes
        if position + 2 > end:
            return None
        _, id_prefix, product_id, images_prefix, array_bytes = self._head(buffer, start)
        array_end = position - 4 + array_bytes  # Just after the zero that ends the array.
        if (id_prefix, images_prefix) != self._head_prefixes or not position < array_end < end:
            return None
        pictures = self._pictures(buffer, position, array_end - 1)
        if pictures is None:
            return None
        if array_end == end - 1:
            return None if buffer[end - 2] or buffer[end - 1] else Product(product_id, schema.NO_CATEGORY, pictures)
        if end - array_end + 1 != self._tail_bytes:
            return None
        prefix, category_id, zero = self._tail(buffer, array_end - 1)
        return None if prefix != self._category_prefix or zero else Product(product_id, category_id, pictures)

    def _pictures(self, buffer: memoryview, position: int, end: int) -> list[memoryview] | None:
        """Returns the pictures of an array whose elements are the bytes from `position` up to `end`."""
        pictures: list[memoryview] = []
        picture_prefix, overhead = self._picture_prefix, self._image_overhead
        for expected, unpack, header_bytes in self._images:
            if position == end:
                return pictures
            begin = position + header_bytes
            if begin > end:
                return None
            key, size, prefix, count, subtype = unpack(buffer, position)
            position = begin + count + 1
            if key != expected or prefix != picture_prefix or size != count + overhead or subtype or count < 0:
                return None
            if position > end or buffer[position - 1]:
                return None
            pictures.append(buffer[begin : position - 1])
        return pictures if position == end else None


class Encoder:
    """Turns products into framed records; knows the labels of every category."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._constant: dict[int, tuple[bytes, bytes]] = {}  # By category: before and after the images.

    def frame(self, product: Product) -> list[Buffer]:
        """Returns the bytes of a product's record: header, serialized example, footer.

        They come as buffers to be written one after another, in which the
        pictures are the product's own: to join them would cost more than all else.

        Raises:
          KeyError: The category is not in the tree.
        """
        product_id, category_id, pictures = product
        before, after = self._constant.get(category_id) or self._encode_category(category_id)
        headers = [b"\x0a" + _varint(len(picture)) for picture in pictures]
        size = sum(map(len, headers)) + sum(map(len, pictures))
        lead = before + _feature_header(_IMAGES_ENTRY, b"\x0a", size)
        trail = after + identifier(product_id)
        size += len(lead) + len(trail)
        outer = b"\x0a" + _varint(size)
        lead = outer + lead
        buffers: list[Buffer] = [tfrecord.header(len(outer) + size)]
        crc, extend = 0, tfrecord.extend_crc
        for header, picture in zip(headers, pictures, strict=True):
            lead += header
            crc = extend(extend(crc, lead), bytes(picture))  # It takes bytes; the copy stays in the cache.
            buffers += (lead, picture)
            lead = b""
        trail = lead + trail
        buffers.append(trail + tfrecord.masked(extend(crc, trail)))
        return buffers

    def _encode_category(self, category_id: int) -> tuple[bytes, bytes]:
        levels = range(1, self._taxonomy.num_levels + 1)
        if category_id == schema.NO_CATEGORY:
            labels = [schema.NO_CATEGORY for _ in levels]
        else:
            leaf = self._taxonomy.label_of[category_id]
            labels = [int(self._taxonomy.ancestors(level)[leaf]) for level in levels]
        entries = [_entry_key(schema.level_key(level)) for level in levels]
        after = b"".join(map(_int64_feature, entries, labels))
        encoded = _int64_feature(_entry_key(schema.CATEGORY_ID), category_id), after
        self._constant[category_id] = encoded
        return encoded


def identifier(product_id: int) -> bytes:
    """Returns the bytes with which the record of a product ends: its id as a feature."""
    return _int64_feature(_PRODUCT_ID_ENTRY, product_id)


def _encode_varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # A negative int64 is its two's complement.
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL = 1 << 15
_VARINTS = [_encode_varint(value) for value in range(_SMALL)]


def _varint(value: int) -> bytes:
    return _VARINTS[value] if 0 <= value < _SMALL else _encode_varint(value)


def _entry_key(key: str) -> bytes:
    """Returns the key of an entry of the map of features, with its tag and length."""
    return b"\x0a" + _varint(len(key)) + key.encode()


_IMAGES_ENTRY = _entry_key(schema.IMAGES)
_PRODUCT_ID_ENTRY = _entry_key(schema.PRODUCT_ID)


def _feature_header(entry_key: bytes, kind: bytes, size: int) -> bytes:
    """Returns a map entry up to the values, which have `size` bytes; `kind` is the tag of their list."""
    feature = kind + _varint(size)
    value = b"\x12" + _varint(len(feature) + size) + feature
    return b"\x0a" + _varint(len(entry_key) + len(value) + size) + entry_key + value


def _int64_feature(entry_key: bytes, value: int) -> bytes:
    encoded = _varint(value)
    values = b"\x0a" + _varint(len(encoded)) + encoded
    return _feature_header(entry_key, b"\x1a", len(values)) + values
