"""Tests of reading many documents at once: always what reading each by itself says."""

import itertools

import bson
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import layout, records, schema
from pipeline.layout import Products
from pipeline.records import Fields, Product, RefusedDocument

_FIELDS = Fields()
_INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
_PICTURES = st.lists(st.binary(max_size=300), max_size=12)
_PRODUCTS = st.lists(st.tuples(_INT32, _PICTURES, st.none() | _INT32), max_size=8)


def _document(product_id: int, pictures: list[bytes], category_id: int | None = None) -> bytes:
    content: dict[str, object] = {"_id": product_id, "imgs": [{"picture": picture} for picture in pictures]}
    return bytes(bson.encode(content if category_id is None else content | {"category_id": category_id}))


def _placed(documents: list[bytes]) -> tuple[memoryview, np.ndarray, np.ndarray]:
    """Returns a buffer of documents, with other bytes around each, and where they are in it."""
    ends = np.cumsum([len(document) + 8 for document in documents], dtype=np.int64) - 4
    starts = ends - np.array(list(map(len, documents)), np.int64)
    return memoryview(b"".join(b"\0\0\0\0" + document + b"\xff" * 4 for document in documents)), starts, ends


def _rows(data: memoryview, products: Products) -> list[Product]:
    pictures = [bytes(data[start:end]) for start, end in zip(products.starts, products.ends, strict=True)]
    last = np.cumsum(products.num_images).tolist()
    return [
        Product(product_id, category_id, pictures[begin:end])
        for product_id, category_id, begin, end in zip(
            products.product_id.tolist(), products.category_id.tolist(), [0, *last], last, strict=False
        )
    ]


def _all_common(documents: list[bytes], fields: Fields = _FIELDS) -> list[bool]:
    data, starts, ends = _placed(documents)
    found: list[bool] = layout.find(np.frombuffer(data, np.uint8), starts, ends, fields)[2].tolist()
    return found


@given(_PRODUCTS)
def test_documents_of_the_common_layout_are_read_as_bson_reads_them(
    drawn: list[tuple[int, list[bytes], int | None]],
) -> None:
    documents = [_document(*product) for product in drawn]
    expected = [
        Product(product_id, schema.NO_CATEGORY if category is None else category, pictures)
        for product_id, pictures, category in drawn
    ]
    data, starts, ends = _placed(documents)
    products, refused = layout.read(data, starts, ends, _FIELDS)
    assert _rows(data, products) == expected
    assert not refused
    assert _all_common(documents) == [True] * len(documents)
    assert [records.parse(document, _FIELDS) for document in documents] == expected
    assert [records.keys_of(document, _FIELDS) for document in documents] == [product[:2] for product in expected]


@given(_PRODUCTS, st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=12))
def test_damaged_documents_are_never_read_otherwise_than_bson_reads_them(
    drawn: list[tuple[int, list[bytes], int | None]], damages: list[tuple[int, int]]
) -> None:
    documents = [bytearray(_document(*product)) for product in drawn]
    for document, (place, value) in zip(itertools.cycle(documents), damages, strict=False):
        document[4 + place % (len(document) - 4)] = value
    data, starts, ends = _placed([bytes(document) for document in documents])
    products, refused = layout.read(data, starts, ends, _FIELDS)
    for row, (document, found) in enumerate(zip(documents, _rows(data, products), strict=True)):
        if row in refused:
            with pytest.raises((RefusedDocument, bson.errors.InvalidBSON)):
                records.parse(bytes(document), _FIELDS)
        else:
            product_id, category_id, pictures = records.parse(bytes(document), _FIELDS)
            assert Product(product_id, category_id, list(map(bytes, pictures))) == found  # Of any subtype.


def test_other_layouts_stand_in_their_rows() -> None:
    contents: list[dict[str, object]] = [
        {"_id": 1, "imgs": [{"picture": b"one"}, {"picture": b"two"}], "category_id": 3},
        {"category_id": 4, "imgs": [{"picture": b""}, {"c": 0, "picture": b"x"}, {"picture": b"x"}], "_id": 2},
        {"_id": 3, "imgs": [{"picture": str(number).encode()} for number in range(70)], "category_id": 5},
        {"_id": 4, "imgs": "none"},
        {"_id": 5, "imgs": []},
    ]
    documents = [bytes(bson.encode(content)) for content in contents]
    data, starts, ends = _placed(documents)
    products, refused = layout.read(data, starts, ends, _FIELDS)
    assert list(refused) == [3]
    assert _all_common(documents) == [True, False, False, False, True]
    rows = _rows(data, products)
    for row in (0, 1, 2, 4):
        assert rows[row] == records.parse(documents[row], _FIELDS)
    assert _rows(data, products.take(np.array([4, 2, 0]))) == [rows[4], rows[2], rows[0]]


def test_more_documents_than_are_read_at_once_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_DOCUMENTS_AT_ONCE", 3)
    documents = [_document(number, [b"p" * number] * (number % 3)) for number in range(10)]
    documents[7] = documents[7][:4] + b"\xee" * (len(documents[7]) - 4)
    data, starts, ends = _placed(documents)
    products, refused = layout.read(data, starts, ends, _FIELDS)
    assert list(refused) == [7]
    assert [row for row in _rows(data, products) if row.product_id in range(7)] == [
        records.parse(document, _FIELDS) for document in documents[:7]
    ]


def test_other_names_of_fields_have_a_common_layout_of_their_own() -> None:
    fields = Fields(product_id="sku", images="photos", picture="jpeg", category_id="shelf")
    document = bytes(bson.encode({"sku": 5, "photos": [{"jpeg": b"x"}], "shelf": 7}))
    assert _all_common([document], fields) == [True]
    assert _all_common([document]) == [False]
