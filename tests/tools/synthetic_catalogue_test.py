"""Tests of the made-up catalogue."""

import csv
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import numpy as np
import pytest
import simplejpeg

from pipeline import taxonomy
from pipeline.console import UserError
from pipeline.taxonomy import Taxonomy
from tools import synthetic_catalogue, synthetic_tree
from tools.synthetic_catalogue import CATEGORIES, SOLUTION, TEST, TRAIN, CatalogueConfig

_NAMES = (TRAIN, TEST, CATEGORIES, SOLUTION)


def _config(folder: Path, **options: Any) -> CatalogueConfig:
    usual: dict[str, Any] = {"products": 40, "test_products": 20, "tree": synthetic_tree.make(6, seed=0)}
    return CatalogueConfig(output=str(folder), **usual | options)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(bson.decode_all(path.read_bytes()))


@pytest.fixture(scope="module")
def train(catalogue: Path) -> list[dict[str, Any]]:
    return _documents(catalogue / TRAIN)


@pytest.fixture(scope="module")
def test(catalogue: Path) -> list[dict[str, Any]]:
    return _documents(catalogue / TEST)


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        synthetic_catalogue.write(_config(folder, products=300, test_products=2, workers=workers))
    assert _content(tmp_path / "1") == _content(tmp_path / "2")


def test_the_seed_decides_and_earlier_files_are_replaced_only_if_asked(tmp_path: Path) -> None:
    config = _config(tmp_path)
    sizes = synthetic_catalogue.write(config)
    assert sizes == {str(tmp_path / name): (tmp_path / name).stat().st_size for name in _NAMES}
    first = _content(tmp_path)
    assert set(first) == set(_NAMES)
    with pytest.raises(UserError, match="--overwrite"):
        synthetic_catalogue.write(replace(config, seed=1))
    assert _content(tmp_path) == first
    synthetic_catalogue.write(replace(config, seed=1, overwrite=True))
    second = _content(tmp_path)
    assert second[TRAIN] != first[TRAIN]
    assert second[CATEGORIES] == first[CATEGORIES]


@pytest.mark.parametrize("name", _NAMES)
def test_any_file_of_an_earlier_catalogue_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=name):
        synthetic_catalogue.write(_config(tmp_path))
    assert _content(tmp_path) == {name: b""}


def test_documents_have_the_fields_of_cdiscounts_in_their_order(catalogue: Path) -> None:
    for name, last in ((TRAIN, ["category_id"]), (TEST, [])):
        raw = (catalogue / name).read_bytes()
        for document in bson.decode_iter(raw):
            assert list(document) == ["_id", "imgs", *last]
            assert type(document["_id"]) is int
            assert all(list(image) == ["picture"] for image in document["imgs"])
            assert all(type(image["picture"]) is bytes for image in document["imgs"])
        assert raw[4:9] == b"\x10_id\x00"  # int32, as are the categories.
        assert raw.count(b"\x10category_id\x00") == (300 if last else 0)


def test_a_document_equals_that_of_a_bson_library() -> None:
    pictures = [b"one", b"", b"three"]
    expected = {"_id": 7, "imgs": [{"picture": picture} for picture in pictures], "category_id": 1000010653}
    assert synthetic_catalogue.document(7, pictures, 1000010653) == bson.encode(expected)
    del expected["category_id"]
    assert synthetic_catalogue.document(7, pictures, None) == bson.encode(expected)


def test_ids_rise_and_those_of_test_are_not_in_train(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
    ids = [[document["_id"] for document in documents] for documents in (train, test)]
    assert [len(numbers) for numbers in ids] == [300, 80]
    for numbers in ids:
        assert all(first < second for first, second in itertools.pairwise(numbers))
    assert not set(ids[0]) & set(ids[1])
    assert ids[0][0] < ids[1][len(ids[1]) // 2] < ids[0][-1]


def test_the_solution_holds_a_category_for_every_test_product_in_order(
    catalogue: Path, test: list[dict[str, Any]]
) -> None:
    with open(catalogue / SOLUTION, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["_id"]) for row in rows] == [document["_id"] for document in test]
    tree = taxonomy.from_csv(str(catalogue / CATEGORIES))
    assert {int(row["category_id"]) for row in rows} <= set(tree.category_ids)


def test_test_products_are_of_the_category_that_the_solution_names(tmp_path: Path) -> None:
    # In a tree of one category per backdrop, the corner of a picture tells the category.
    tree = Taxonomy((5, 3), (("SHOES", "X", "a"), ("WINE", "X", "b")))
    synthetic_catalogue.write(_config(tmp_path, products=30, test_products=30, tree=tree))
    corners: dict[int, list[np.ndarray]] = {5: [], 3: []}
    answers = dict(line.split(",") for line in (tmp_path / SOLUTION).read_text().splitlines()[1:])
    for document in _documents(tmp_path / TRAIN) + _documents(tmp_path / TEST):
        category = document.get("category_id") or int(answers[str(document["_id"])])
        colour = simplejpeg.decode_jpeg(document["imgs"][0]["picture"])[:10, :10].mean(axis=(0, 1))
        corners[category].append(colour / colour.sum())
    first, second = (np.median(colours, axis=0) for colours in corners.values())
    right = [
        np.linalg.norm(colour - own) < np.linalg.norm(colour - other)
        for colours, own, other in zip(corners.values(), (first, second), (second, first), strict=True)
        for colour in colours
    ]
    assert np.mean(right) > 0.8


def test_every_category_is_there_where_products_suffice(tmp_path: Path) -> None:
    for count in (12, 13, 50):
        config = _config(tmp_path, products=count, test_products=count, tree=synthetic_tree.make(12, seed=0))
        for test in (False, True):
            block = synthetic_catalogue._Block(test, 0, count)
            assert set(synthetic_catalogue.labels(config, block).tolist()) == set(range(12))


def test_images_per_product_and_duplicates_are_as_in_cdiscounts(tmp_path: Path) -> None:
    synthetic_catalogue.write(_config(tmp_path, products=1500, test_products=300, workers=2))
    documents = [[image["picture"] for image in item["imgs"]] for item in _documents(tmp_path / TRAIN)]
    shares = Counter(len(pictures) for pictures in documents)
    for count, expected in ((1, 0.618), (2, 0.160), (3, 0.077), (4, 0.146)):
        assert shares[count] / 1500 == pytest.approx(expected, abs=0.04)
    images = [picture for pictures in documents for picture in pictures]
    assert len(set(images)) / len(images) == pytest.approx(0.63, abs=0.07)
    assert 4500 < np.mean([len(picture) for picture in images]) < 6500
    known = set(images)
    test = _documents(tmp_path / TEST)
    repeated = [any(image["picture"] in known for image in item["imgs"]) for item in test]
    assert np.mean(repeated) == pytest.approx(0.42, abs=0.08)


def test_a_given_tree_is_used(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_text("category_id,category_level1,category_level2\n8,A,a\n5,B,b\n9,B,c\n", encoding="utf-8")
    tree = synthetic_catalogue.categories_of(str(path), None, seed=0)
    assert tree == taxonomy.from_csv(str(path))
    synthetic_catalogue.write(_config(tmp_path / "out", tree=tree))
    assert taxonomy.from_csv(str(tmp_path / "out" / CATEGORIES)) == tree
    assert {item["category_id"] for item in _documents(tmp_path / "out" / TRAIN)} == {8, 5, 9}
    assert set(synthetic_catalogue.categories_of(str(path), 2, seed=0).category_ids) < {8, 5, 9}


@pytest.mark.parametrize(("given", "number"), [(True, 4), (True, 0), (False, 0), (True, -1), (False, -1)])
def test_a_number_of_categories_that_the_tree_cannot_have_is_refused(given: bool, number: int, tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_text("category_id,category_level1\n8,A\n5,B\n9,C\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"--num_categories is {number}; expected 1"):
        synthetic_catalogue.categories_of(str(path) if given else None, number, seed=0)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"products": -1}, "--products is -1"),
        ({"test_products": -1}, "--test_products is -1"),
        ({"workers": 0}, "--workers is 0"),
        ({"products": 1 << 28}, "Too many products"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, int], shown: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=shown):
        _config(tmp_path, **options)


@pytest.mark.parametrize(("products", "test_products"), [(0, 3), (3, 0), (0, 0)])
def test_a_file_may_be_empty(products: int, test_products: int, tmp_path: Path) -> None:
    synthetic_catalogue.write(_config(tmp_path, products=products, test_products=test_products))
    assert len(_documents(tmp_path / TRAIN)) == products
    assert len(_documents(tmp_path / TEST)) == test_products
    assert len((tmp_path / SOLUTION).read_text().splitlines()) == 1 + test_products
