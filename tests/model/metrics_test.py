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
    accuracy = Accuracy(_TREE, _SEEN)
    accuracy.add(
        _batch([10, 20, 30], [0, 1, 2], [0, 0, 0, 1, _CAPACITY, _CAPACITY]),
        Scores(
            image_labels=_nodes([0, 1, 2, 0, 2, 2]),
            product_labels=_nodes([0, 0, 0]),
            top_labels=np.array([[0, 1], [0, 1], [0, 1]]),
            top_probabilities=np.full((3, 2), 0.4),
            num_images=np.array([3, 1, 0]),
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
    }


def test_products_that_share_an_image_with_train_are_left_out_of_never_seen() -> None:
    assert _example().report()[metrics.NEVER_SEEN] == {
        "products": 2,
        "images": 1,
        "product_accuracy": [1 / 2, 0],
        "image_accuracy": [1, 0],
        "product_top5": 1 / 2,
    }


def test_products_of_which_no_image_could_be_read_are_named() -> None:
    assert _example().report()["unreadable_products"] == [30]


@pytest.mark.parametrize(("place", "found"), [(0, 1), (4, 1), (5, 0), (6, 0)])
def test_top_5_ends_after_the_fifth(place: int, found: int) -> None:
    tree = Taxonomy(tuple(range(8)), tuple((str(number),) for number in range(8)))
    accuracy = Accuracy(tree, np.array([], np.int64))
    ranked = [label for label in range(8) if label != 7]
    ranked.insert(place, 7)
    scores = Scores(np.array([[0]] * 6), np.array([[0]]), np.array([ranked]), np.ones((1, 8)), np.array([1]))
    accuracy.add(_batch([10], [7], [0] + [_CAPACITY] * 5), scores)
    assert accuracy.report()[metrics.ALL]["product_top5"] == found


def test_the_table_keeps_its_columns_where_no_product_is_never_seen() -> None:
    report = _example().report() | {metrics.NEVER_SEEN: metrics.Tally().report()}
    lines = metrics.table(report).splitlines()
    assert lines[3].split() == ["product,", "images", "never", "seen", "0"]
    assert len({len(line) for line in lines}) == 1


def test_a_report_without_products_has_no_shares() -> None:
    report = Accuracy(_TREE, _SEEN).report()
    assert report[metrics.ALL] == {
        "products": 0,
        "images": 0,
        "product_accuracy": [],
        "image_accuracy": [],
        "product_top5": None,
    }
    assert metrics.table(report)


def test_the_table_shows_both_groups_by_product_and_by_image() -> None:
    lines = metrics.table(_example().report()).splitlines()
    assert [line.split() for line in lines] == [
        ["accuracy", "level", "1", "level", "2", "top", "5", "of"],
        ["product,", "all", "0.7500", "0.5000", "0.7500", "4"],
        ["image,", "all", "0.8000", "0.4000", "5"],
        ["product,", "images", "never", "seen", "0.5000", "0.0000", "0.5000", "2"],
        ["image,", "images", "never", "seen", "1.0000", "0.0000", "1"],
    ]
    assert len({len(line) for line in lines}) == 1
