"""Tests of parsing documents and of the bytes of a record."""

import struct
from pathlib import Path

import bson
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline import records, schema
from pipeline.records import CommonLayout, Encoder, Fields, Product, RefusedDocument
from pipeline.taxonomy import Taxonomy

_FIELDS = Fields()
_TREE = Taxonomy((7, 1000010653), (("A", "B", "C"), ("A", "D", "E")))
_INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_PICTURES = st.lists(st.binary(max_size=300), max_size=12)


def _document(product_id: int, pictures: list[bytes], category_id: int | None = None) -> bytes:
    content: dict[str, object] = {"_id": product_id, "imgs": [{"picture": picture} for picture in pictures]}
    if category_id is not None:
        content["category_id"] = category_id
    return bytes(bson.encode(content))


def _fast(document: bytes) -> Product | None:
    framed = b"before" + document + b"after"
    found = CommonLayout(_FIELDS).parse(memoryview(framed), 6, 6 + len(document))
    return found and Product(found.product_id, found.category_id, [bytes(picture) for picture in found.pictures])


def _payload(product: Product) -> bytes:
    return b"".join(Encoder(_TREE).frame(product))[12:-4]


@given(_INT32, _PICTURES, st.none() | _INT32)
def test_the_fast_parser_reads_what_bson_reads(product_id: int, pictures: list[bytes], category: int | None) -> None:
    document = _document(product_id, pictures, category)
    expected = Product(product_id, schema.NO_CATEGORY if category is None else category, pictures)
    assert _fast(document) == expected
    assert records.parse(document, _FIELDS) == expected
    assert records.keys_of(document, _FIELDS) == expected[:2]


@given(_INT32, _PICTURES, st.none() | _INT32, st.data())
def test_the_fast_parser_never_reads_otherwise_than_bson(
    product_id: int, pictures: list[bytes], category: int | None, data: st.DataObject
) -> None:
    document = bytearray(_document(product_id, pictures, category))
    for _ in range(data.draw(st.integers(1, 3))):
        document[data.draw(st.integers(4, len(document) - 1))] = data.draw(st.integers(0, 255))
    found = _fast(bytes(document))
    if found is not None:
        assert records.parse(bytes(document), _FIELDS) == found


@given(st.sampled_from([7, 1000010653, schema.NO_CATEGORY]), _INT64, st.lists(st.binary(max_size=40_000), max_size=4))
def test_a_record_holds_the_product(category: int, product_id: int, pictures: list[bytes]) -> None:
    example = tf.train.Example.FromString(_payload(Product(product_id, category, pictures)))
    features = example.features.feature
    assert set(features) == {"product_id", "category_id", "images", "level1", "level2", "level3"}
    assert list(features["product_id"].int64_list.value) == [product_id]
    assert list(features["category_id"].int64_list.value) == [category]
    assert list(features["images"].bytes_list.value) == pictures
    labels = {7: [0, 0, 0], 1000010653: [0, 1, 1]}.get(category, [-1, -1, -1])
    assert [features[f"level{level}"].int64_list.value[0] for level in (1, 2, 3)] == labels


def test_the_frame_is_that_of_tensorflow(tmp_path: Path) -> None:
    product = Product(5, 7, [b"first", b"second"])
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(_payload(product))
    assert b"".join(Encoder(_TREE).frame(product)) == (tmp_path / "theirs").read_bytes()


def test_the_bytes_of_a_record_stay_what_they_are() -> None:
    golden = (
        "71000000000000009c97e7730a6f0a140a0b63617465676f72795f696412051a030a01070a0f0a06696d6167657312050a03"
        "0a01780a0f0a066c6576656c3112051a030a01000a0f0a066c6576656c3212051a030a01000a0f0a066c6576656c3312051a"
        "030a01000a130a0a70726f647563745f696412051a030a0105af709c75"
    )
    frame = b"".join(Encoder(_TREE).frame(Product(5, 7, [b"x"])))
    assert frame.hex() == golden


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


def test_other_names_of_fields_have_a_fast_layout_of_their_own() -> None:
    fields = Fields(product_id="sku", images="photos", picture="jpeg", category_id="shelf")
    document = bson.encode({"sku": 5, "photos": [{"jpeg": b"x"}], "shelf": 7})
    found = CommonLayout(fields).parse(memoryview(document), 0, len(document))
    assert found == Product(5, 7, [b"x"])
    assert _fast(document) is None
