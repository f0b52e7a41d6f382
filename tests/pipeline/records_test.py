"""Tests of what documents say, whatever their layout."""

import struct

import bson
import pytest

from pipeline import records, schema
from pipeline.records import Fields, Product, RefusedDocument

_FIELDS = Fields()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"category_id": 7, "imgs": [{"picture": b"x"}], "_id": 5}, Product(5, 7, [b"x"])),
        ({"_id": bson.Int64(5), "imgs": [{"picture": b"x"}], "category_id": bson.Int64(7)}, Product(5, 7, [b"x"])),
        ({"_id": 5.0, "imgs": [], "category_id": 7.0}, Product(5, 7, [])),
        ({"_id": 5, "category_id": 7}, Product(5, 7, [])),
        ({"_id": 5, "imgs": None, "category_id": None}, Product(5, schema.NO_CATEGORY, [])),
        ({"_id": 5, "name": "é", "imgs": [{"c": 1, "picture": b"x", "d": {}}], "z": [1]}, Product(5, -1, [b"x"])),
        ({"_id": 1 << 40, "imgs": [{"picture": b""}]}, Product(1 << 40, -1, [b""])),
    ],
)
def test_other_layouts_are_read(content: dict[str, object], expected: Product) -> None:
    assert records.parse(bson.encode(content), _FIELDS) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"imgs": []}, "_id is missing; found imgs"),
        ({}, "found no fields"),
        ({"_id": "5"}, "_id is '5', of type str"),
        ({"_id": True}, "of type bool"),
        ({"_id": 5.5}, "of type float"),
        ({"_id": bson.ObjectId(b"x" * 12)}, "of type ObjectId"),
        ({"_id": 5, "category_id": "7"}, "category_id is '7'"),
        ({"_id": 5, "imgs": {"picture": b"x"}}, "imgs is of type dict"),
        ({"_id": 5, "imgs": [b"x"]}, "no bytes under picture"),
        ({"_id": 5, "imgs": [{"image": b"x"}]}, "no bytes under picture"),
        ({"_id": 5, "imgs": [{"picture": "x"}]}, "no bytes under picture"),
    ],
)
def test_a_document_that_makes_no_product_is_refused_with_the_reason(content: dict[str, object], message: str) -> None:
    with pytest.raises(RefusedDocument, match=message):
        records.parse(bson.encode(content), _FIELDS)


def test_deep_nesting_is_refused() -> None:
    inner = b"\x05\0\0\0\0"
    for _ in range(1000):
        content = b"\x03a\0" + inner + b"\0"
        inner = struct.pack("<i", len(content) + 4) + content
    document = b"\x10_id\0" + struct.pack("<i", 5) + b"\x03a\0" + inner + b"\0"
    document = struct.pack("<i", len(document) + 4) + document
    with pytest.raises((RefusedDocument, bson.errors.InvalidBSON)):
        records.parse(document, _FIELDS)
