"""Tests of finding documents in a file, whole or damaged."""

from pathlib import Path

import bson
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import index, records
from pipeline.index import Index
from pipeline.source import stat

_FIELDS = records.Fields()


def _document(product_id: int, picture: bytes = b"picture", category_id: int | None = 3) -> bytes:
    content: dict[str, object] = {"_id": product_id, "imgs": [{"picture": picture}]}
    return bytes(bson.encode(content | ({} if category_id is None else {"category_id": category_id})))


def _index(path: Path, *, range_bytes: int = 1 << 20) -> Index:
    ranges = index.ranges([stat(str(path))], range_bytes=range_bytes)
    return index.join([(part, index.index_range(part, _FIELDS)) for part in ranges], _FIELDS)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _tiles(found: Index) -> list[tuple[int, int]]:
    documents = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    return sorted([*documents, *((refusal.start, refusal.end) for refusal in found.refusals)])


def _assert_tiling(found: Index, size: int) -> None:
    position = 0
    for start, end in _tiles(found):
        assert start == position
        position = end
    assert position == size


@pytest.mark.parametrize("range_bytes", [64, 100, 1000, 1 << 20])
def test_every_document_is_found_whatever_the_ranges(tmp_path: Path, range_bytes: int) -> None:
    documents = [_document(number, bytes(7 * number % 90)) for number in range(40)]
    found = _index(_write(tmp_path / "a.bson", b"".join(documents)), range_bytes=range_bytes)
    assert found.product_ids.tolist() == list(range(40))
    assert set(found.category_ids.tolist()) == {3}
    assert not found.refusals
    assert (found.ends - found.starts).tolist() == list(map(len, documents))


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    found = _index(_write(tmp_path / "a.bson", b""))
    assert len(found.starts) == 0
    assert not found.refusals


def test_ids_and_categories_of_any_layout_are_found(tmp_path: Path) -> None:
    contents: list[dict[str, object]] = [
        {"category_id": 3, "_id": 1, "imgs": []},
        {"_id": bson.Int64(2), "imgs": [{"picture": b"x"}], "category_id": 3},
        {"_id": 3, "imgs": [{"picture": b"x"}]},
        {"_id": 4, "name": "a", "imgs": [{"picture": b"x"}], "category_id": 3},
    ]
    found = _index(_write(tmp_path / "a.bson", b"".join(map(bson.encode, contents))))
    assert found.product_ids.tolist() == [1, 2, 3, 4]
    assert found.category_ids.tolist() == [3, 3, -1, 3]


@pytest.mark.parametrize("range_bytes", [500, 3000, 10_000])
def test_documents_inside_pictures_are_never_taken_for_documents(tmp_path: Path, range_bytes: int) -> None:
    chain = b"".join(_document(1_000_000 + number) for number in range(40))
    documents = [_document(number, b"\xff\xd8" + chain + b"\xff\xd9") for number in range(12)]
    found = _index(_write(tmp_path / "a.bson", b"".join(documents)), range_bytes=range_bytes)
    assert found.product_ids.tolist() == list(range(12))
    assert not found.refusals


@pytest.mark.parametrize("length", [0, -1, 4, 17 << 20, (1 << 31) - 1])
def test_a_forged_length_costs_only_its_own_document(tmp_path: Path, length: int) -> None:
    documents = [_document(number, b"p" * 50) for number in range(9)]
    documents[4] = length.to_bytes(4, "little", signed=True) + documents[4][4:]
    found = _index(_write(tmp_path / "a.bson", b"".join(documents)), range_bytes=200)
    assert found.product_ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    [refusal] = found.refusals
    assert refusal.end - refusal.start == len(documents[4])
    assert str(length) in refusal.reason


def test_a_broken_body_costs_only_its_own_document(tmp_path: Path) -> None:
    documents = [_document(number, b"p" * 50) for number in range(9)]
    documents[4] = documents[4][:4] + b"\xee" * (len(documents[4]) - 5) + b"\0"
    found = _index(_write(tmp_path / "a.bson", b"".join(documents)), range_bytes=200)
    assert found.product_ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(found.refusals) == 1


def test_a_cut_at_the_end_keeps_what_comes_before_it(tmp_path: Path) -> None:
    documents = [_document(number) for number in range(5)]
    content = b"".join(documents)[:-10]
    found = _index(_write(tmp_path / "a.bson", content))
    assert found.product_ids.tolist() == [0, 1, 2, 3]
    [refusal] = found.refusals
    assert (refusal.start, refusal.end) == (4 * len(documents[0]), len(content))
    assert "cut" in refusal.reason


def test_a_document_without_id_is_refused_alone(tmp_path: Path) -> None:
    content = _document(0) + bson.encode({"name": "x"}) + _document(2)
    found = _index(_write(tmp_path / "a.bson", content))
    assert found.product_ids.tolist() == [0, 2]
    assert "_id is missing" in found.refusals[0].reason


_DAMAGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=40)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(damages=_DAMAGES, range_bytes=st.integers(64, 4000), sizes=st.lists(st.integers(0, 200), min_size=1))
def test_every_byte_is_in_one_document_or_one_refusal(
    tmp_path_factory: pytest.TempPathFactory, damages: list[tuple[str, int, bytes]], range_bytes: int, sizes: list[int]
) -> None:
    content = bytearray(b"".join(_document(number, b"\1" * size) for number, size in enumerate(sizes)))
    for kind, place, data in damages:
        at = place % (len(content) + 1)
        if kind == "cut":
            del content[at : at + len(data)]
        elif kind == "insert":
            content[at:at] = data
        else:
            content[at : at + len(data)] = data[: len(content) - at]
    path = _write(tmp_path_factory.mktemp("damage") / "a.bson", bytes(content))
    _assert_tiling(_index(path, range_bytes=range_bytes), len(content))


def test_a_saved_index_is_read_back_the_same(tmp_path: Path) -> None:
    found = _index(_write(tmp_path / "a.bson", _document(1) + b"rubbish" + _document(2)))
    found.save(str(tmp_path / "index.npz"))
    loaded = Index.load(str(tmp_path / "index.npz"))
    assert loaded.refusals == found.refusals
    assert (loaded.first, loaded.last) == (found.first, found.last)
    np.testing.assert_array_equal(loaded.starts, found.starts)
