"""What a BSON document says of a product, whatever its layout.

`layout.py` reads documents of the usual layout many at once, and leaves the
others to `parse`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import bson

from pipeline import schema

_INT32_ELEMENT, _ARRAY_ELEMENT, _DOCUMENT_ELEMENT, _BINARY_ELEMENT = b"\x10", b"\x04", b"\x03", b"\x05"
_INT64_RANGE = range(-(1 << 63), 1 << 63)


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
    pictures: Sequence[bytes]


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


def image_prefix(number: int) -> bytes:
    """Returns the bytes before the document of the image of some number in its array."""
    return _element(_DOCUMENT_ELEMENT, str(number))


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
