"""Tests of the bytes of records: what TensorFlow reads in them, and that they stay what they are."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline import example, schema, tfrecord
from pipeline.example import Chunk, Encoder
from pipeline.layout import Products
from pipeline.records import Product
from pipeline.taxonomy import Taxonomy

_TREE = Taxonomy((7, 1000010653), (("A", "B", "C"), ("A", "D", "E")))
_CATEGORIES = st.sampled_from([7, 1000010653, schema.NO_CATEGORY])
_PRODUCTS = st.lists(
    st.builds(
        Product, st.integers(-(1 << 63), (1 << 63) - 1), _CATEGORIES, st.lists(st.binary(max_size=300), max_size=4)
    ),
    min_size=1,
    max_size=6,
)


def _chunks(products: list[Product]) -> list[Chunk]:
    pictures = [picture for product in products for picture in product.pictures]
    ends = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    columns = (
        np.array([product.product_id for product in products], np.int64),
        np.array([product.category_id for product in products], np.int64),
        np.array([len(product.pictures) for product in products], np.int64),
    )
    data = memoryview(b"".join(pictures))
    return list(Encoder(_TREE).frame(data, Products(*columns, ends[:-1], ends[1:])))


def _framed(products: list[Product]) -> bytes:
    return b"".join(chunk.content for chunk in _chunks(products))


@given(_PRODUCTS)
def test_records_hold_their_products(products: list[Product]) -> None:
    found = list(tfrecord.walk(memoryview(_framed(products))))
    assert len(found) == len(products)
    endings = example.identifiers(np.array([product.product_id for product in products], np.int64))
    for record, product, ending in zip(found, products, endings, strict=True):
        features = tf.train.Example.FromString(record).features.feature
        assert set(features) == {"product_id", "category_id", "images", "level1", "level2", "level3"}
        assert list(features["product_id"].int64_list.value) == [product.product_id]
        assert list(features["category_id"].int64_list.value) == [product.category_id]
        assert list(features["images"].bytes_list.value) == product.pictures
        labels = {7: [0, 0, 0], 1000010653: [0, 1, 1]}.get(product.category_id, [-1, -1, -1])
        assert [features[f"level{level}"].int64_list.value[0] for level in (1, 2, 3)] == labels
        assert record.endswith(ending)


@given(_PRODUCTS, st.sampled_from([1, 200, 1 << 20]))
def test_chunks_tell_where_the_pictures_stand(products: list[Product], chunk_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "_CHUNK_BYTES", chunk_bytes)
        chunks = _chunks(products)
    pictures = iter([picture for product in products for picture in product.pictures])
    for chunk in chunks:
        for start in chunk.image_starts.tolist():
            picture = next(pictures)
            assert chunk.content[start : start + len(picture)] == picture
    assert next(pictures, None) is None


@pytest.mark.parametrize("size", [0, 100, 127, 128, 16_000, 16_383, 16_384, 40_000, 3 << 20])
def test_pictures_of_any_size_are_held(size: int) -> None:
    [record] = tfrecord.walk(memoryview(_framed([Product(1, 7, [b"x" * size, b"y"])])))
    images = tf.train.Example.FromString(record).features.feature["images"].bytes_list.value
    assert list(images) == [b"x" * size, b"y"]


def test_the_bytes_do_not_depend_on_how_many_are_framed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    products = [Product(number, 7, [b"p" * number] * (number % 4)) for number in range(50)]
    expected = b"".join(_framed([product]) for product in products)
    assert _framed(products) == expected
    monkeypatch.setattr(example, "_PRODUCTS_AT_ONCE", 7)
    monkeypatch.setattr(example, "_CHUNK_BYTES", 300)
    assert _framed(products) == expected


def test_the_frame_is_that_of_tensorflow(tmp_path: Path) -> None:
    framed = _framed([Product(5, 7, [b"first", b"second"])])
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(framed[tfrecord.HEADER_BYTES : -tfrecord.FOOTER_BYTES])
    assert framed == (tmp_path / "theirs").read_bytes()


def test_the_bytes_of_a_record_stay_what_they_are() -> None:
    golden = (
        "71000000000000009c97e7730a6f0a140a0b63617465676f72795f696412051a030a01070a0f0a06696d6167657312050a03"
        "0a01780a0f0a066c6576656c3112051a030a01000a0f0a066c6576656c3212051a030a01000a0f0a066c6576656c3312051a"
        "030a01000a130a0a70726f647563745f696412051a030a0105af709c75"
    )
    assert _framed([Product(5, 7, [b"x"])]).hex() == golden
