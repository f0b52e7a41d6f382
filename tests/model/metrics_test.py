"""Tests of the accuracy of products and images."""

import numpy as np
import pytest

from model import metrics
from model.metrics import Accuracy
from model.scoring import Scores
from pipeline import schema
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

_TREE = Taxonomy((1, 2, 3), (("A", "x"), ("A", "y"), ("B", "z")))
_SEEN = np.array([10, 40])
_CAPACITY = 6
_TRAIN_PRODUCTS = np.array([9, 10, 5000])


def _batch(product_ids: list[int], labels: list[int], owners: list[int]) -> ProductBatch:
    padding = _CAPACITY - len(product_ids)
    return ProductBatch(
        np.zeros((len(owners), 1, 1, 3), np.uint8),
        np.array(owners, np.int32),
        np.array(product_ids + [0] * padding),
        np.array(labels + [schema.NO_CATEGORY] * padding, np.int32),
        np.int32(len(product_ids)),  # type: ignore[arg-type]
    )


def _nodes(leaves: list[int]) -> np.ndarray:
    """Returns the labels of both levels."""
    return np.stack([_TREE.ancestors(1)[leaves], np.array(leaves)], axis=-1)


def _example() -> Accuracy:
    """Returns the sums of four products: 10 with 3 images, 20 with 1, 30 with none readable, 40 with 1.

    Truth is x, y, z, z and the answers are x, x, x, z.
    """
    accuracy = Accuracy(_TREE, _SEEN, _TRAIN_PRODUCTS)
    accuracy.add(
        _batch([10, 20, 30], [0, 1, 2], [0, 0, 0, 1, _CAPACITY, _CAPACITY]),
        Scores(
            image_labels=_nodes([0, 1, 2, 0, 2, 2]),
            product_labels=_nodes([0, 0, 0]),
            top_labels=np.array([[0, 1], [0, 1], [0, 1]]),
            top_probabilities=np.full((3, 2), 0.4),
            num_images=np.array([3, 1, 0]),
            image_top_labels=np.array([[0, 1], [1, 2], [2, 1], [0, 1], [2, 0], [2, 0]]),
        ),
    )
    accuracy.add(
        _batch([40], [2], [0] + [_CAPACITY] * 5),
        Scores(
            image_labels=_nodes([2, 0, 0, 0, 0, 0]),
            product_labels=_nodes([2]),
            top_labels=np.array([[2, 1]]),
            top_probabilities=np.full((1, 2), 0.4),
            num_images=np.array([1]),
            image_top_labels=np.array([[2, 1]] + [[0, 1]] * 5),
        ),
    )
    return accuracy


def test_every_product_counts_once_and_every_readable_image_once() -> None:
    assert _example().report()[metrics.ALL] == {
        "products": 4,
        "images": 5,
        "product_accuracy": [3 / 4, 2 / 4],
        "image_accuracy": [4 / 5, 2 / 5],
        "product_top5": 3 / 4,
        "image_top5": 3 / 5,
    }


def test_products_that_share_an_image_with_train_are_left_out_of_never_seen() -> None:
    assert _example().report()[metrics.NEVER_SEEN] == {
        "products": 2,
        "images": 1,
        "product_accuracy": [1 / 2, 0],
        "image_accuracy": [1, 0],
        "product_top5": 1 / 2,
        "image_top5": 1,
    }


def test_products_of_which_no_image_could_be_read_are_named() -> None:
    report = _example().report()
    assert (report["unreadable"], report["unreadable_products"]) == (1, [30])


def test_bands_hold_the_products_by_how_many_train_has_of_their_category() -> None:
    bands = _example().report()[metrics.BANDS]
    assert list(bands) == ["0-9", "10-49", "2347+"]
    assert [band["products"] for band in bands.values()] == [1, 1, 2]
    assert [band["product_accuracy"] for band in bands.values()] == [[1, 1], [1, 0], [1 / 2, 1 / 2]]
    assert [band["categories"] for band in bands.values()] == [1, 1, 1]
    assert sum(band["images"] for band in bands.values()) == 5


@pytest.mark.parametrize(
    ("products", "name"),
    [(0, "0-9"), (9, "0-9"), (10, "10-49"), (49, "10-49"), (50, "50-361"), (362, "362-2346"), (80348, "2347+")],
)
def test_a_band_ends_before_the_next_begins(products: int, name: str) -> None:
    assert metrics.band_names()[int(metrics.band_of(np.array([products]))[0])] == name


def test_parts_add_up_to_the_whole() -> None:
    whole, half = _example(), _example()
    half.set_counts([_example().counts(), Accuracy(_TREE, _SEEN, _TRAIN_PRODUCTS).counts()])
    assert half.report() == whole.report()
    half.set_counts([whole.counts(), whole.counts()])
    assert half.report()[metrics.ALL]["products"] == 8
    assert half.report()[metrics.ALL]["product_accuracy"] == whole.report()[metrics.ALL]["product_accuracy"]


@pytest.mark.parametrize(("place", "found"), [(0, 1), (4, 1), (5, 0), (6, 0)])
def test_top_5_ends_after_the_fifth(place: int, found: int) -> None:
    tree = Taxonomy(tuple(range(8)), tuple((str(number),) for number in range(8)))
    accuracy = Accuracy(tree, np.array([], np.int64), np.ones(8))
    ranked = [label for label in range(8) if label != 7]
    ranked.insert(place, 7)
    of_images = np.array([ranked] * 6)
    scores = Scores(np.zeros((6, 1)), np.array([[0]]), np.array([ranked]), np.ones((1, 8)), np.array([1]), of_images)
    accuracy.add(_batch([10], [7], [0] + [_CAPACITY] * 5), scores)
    report = accuracy.report()[metrics.ALL]
    assert report["product_top5"] == report["image_top5"] == found


def test_the_table_keeps_its_columns_where_no_product_is_never_seen() -> None:
    nothing = Accuracy(_TREE, _SEEN, _TRAIN_PRODUCTS).report()
    report = _example().report() | {metrics.NEVER_SEEN: nothing[metrics.ALL]}
    lines = metrics.table(report).splitlines()
    assert lines[3].split() == ["product,", "images", "never", "seen", "0"]
    assert len({len(line) for line in lines}) == 1


def test_a_report_without_products_has_no_shares() -> None:
    report = Accuracy(_TREE, _SEEN, _TRAIN_PRODUCTS).report()
    assert report[metrics.ALL] == {
        "products": 0,
        "images": 0,
        "product_accuracy": [],
        "image_accuracy": [],
        "product_top5": None,
        "image_top5": None,
    }
    assert metrics.table(report)


def test_the_table_shows_both_groups_by_product_and_by_image() -> None:
    lines = metrics.table(_example().report()).splitlines()
    assert [line.split() for line in lines] == [
        ["accuracy", "level", "1", "level", "2", "top", "5", "of"],
        ["product,", "all", "0.7500", "0.5000", "0.7500", "4"],
        ["image,", "all", "0.8000", "0.4000", "0.6000", "5"],
        ["product,", "images", "never", "seen", "0.5000", "0.0000", "0.5000", "2"],
        ["image,", "images", "never", "seen", "1.0000", "0.0000", "1.0000", "1"],
        ["product,", "0-9", "in", "train", "1.0000", "1.0000", "1.0000", "1"],
        ["product,", "10-49", "in", "train", "1.0000", "0.0000", "1.0000", "1"],
        ["product,", "2347+", "in", "train", "0.5000", "0.5000", "0.5000", "2"],
    ]
    assert len({len(line) for line in lines}) == 1
