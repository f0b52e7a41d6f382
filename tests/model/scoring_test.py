"""Tests of the answers for whole products."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.scoring import ProductScorer
from pipeline import schema
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

_TREE = Taxonomy(
    (50, 30, 90, 10, 70, 20),
    (("A", "X", "a"), ("B", "X", "b"), ("A", "Y", "c"), ("A", "X", "d"), ("C", "Z", "e"), ("B", "W", "f")),
)
_CATEGORIES = _TREE.num_categories
_PRIOR = np.array([0.1, 0.3, 0.2, 0.15, 0.05, 0.2])
_CAPACITY = 8


def _classifier() -> keras.Model:
    """Returns a model whose logits are the pixels, so that a test chooses them."""
    pictures = keras.Input((_CATEGORIES,), dtype="uint8")
    return keras.Model(pictures, keras.layers.Rescaling(1 / 32, dtype="float32")(pictures))


_SCORER = ProductScorer(_classifier(), _TREE, prior=_PRIOR, capacity=_CAPACITY)


class _Expected(NamedTuple):
    probabilities: np.ndarray
    means: np.ndarray
    counts: list[int]


def _batch(pictures: np.ndarray, owners: list[int], products: int) -> ProductBatch:
    return ProductBatch(
        pictures,
        np.array(owners, np.int32),
        np.arange(_CAPACITY),
        np.full(_CAPACITY, schema.NO_CATEGORY, np.int32),
        np.int32(products),  # type: ignore[arg-type]
    )


def _reference(batch: ProductBatch) -> _Expected:
    powers = np.exp(batch.images.astype(np.float64) / 32)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    own = [probabilities[batch.owners == product] for product in range(int(batch.products))]
    means = np.array([rows.mean(axis=0) if len(rows) else _PRIOR for rows in own])
    return _Expected(probabilities, means, [len(rows) for rows in own])


def _by_level(probabilities: np.ndarray) -> list[np.ndarray]:
    """Returns the probability of each node at each level."""
    members = [np.eye(len(_TREE.nodes(level)))[_TREE.ancestors(level)] for level in (1, 2, 3)]
    return [probabilities @ matrix for matrix in members]


def _assert_most_probable(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Checks labels of every level; nodes of equal probability are equally right."""
    for level, nodes in enumerate(_by_level(probabilities)):
        chosen = np.take_along_axis(nodes, labels[:, level : level + 1], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, nodes.max(axis=1), rtol=1e-5)


@st.composite
def _batches(draw: st.DrawFn) -> ProductBatch:
    products = draw(st.integers(1, _CAPACITY))
    owner = st.sampled_from([*range(products), _CAPACITY])
    owners = draw(st.lists(owner, min_size=_CAPACITY, max_size=_CAPACITY))
    values = draw(st.binary(min_size=_CAPACITY * _CATEGORIES, max_size=_CAPACITY * _CATEGORIES))
    return _batch(np.frombuffer(values, np.uint8).reshape(_CAPACITY, _CATEGORIES), owners, products)


@settings(deadline=None, max_examples=50)
@given(_batches())
def test_scores_equal_those_of_numpy(batch: ProductBatch) -> None:
    expected = _reference(batch)
    scores = _SCORER.score(batch)
    assert scores.num_images.tolist() == expected.counts
    assert scores.image_labels.shape == (_CAPACITY, 3)
    assert scores.product_labels.shape == (len(expected.means), 3)
    _assert_most_probable(scores.image_labels, expected.probabilities)
    _assert_most_probable(scores.product_labels, expected.means)
    best = -np.sort(-expected.means, axis=1)[:, :5]
    np.testing.assert_allclose(scores.top_probabilities, best, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected.means, scores.top_labels, axis=1), best, rtol=1e-5)


def _pictures(*tops: int) -> np.ndarray:
    """Returns a picture for each label: one that is surely of that category."""
    return (np.eye(_CATEGORIES)[list(tops)] * 255).astype(np.uint8)


def test_padding_and_unreadable_images_have_no_say() -> None:
    owners = [0, _CAPACITY, 1, _CAPACITY, _CAPACITY, _CAPACITY, 1, _CAPACITY]
    clean, dirty = (_batch(_pictures(3, noise, 4, noise, noise, noise, 4, noise), owners, 2) for noise in (0, 5))
    clean_scores, dirty_scores = _SCORER.score(clean), _SCORER.score(dirty)
    assert clean_scores.num_images.tolist() == [1, 2]
    assert clean_scores.top_labels[:, 0].tolist() == [3, 4]
    for mine, other in zip(clean_scores[1:5], dirty_scores[1:5], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_product_without_an_image_gets_the_prior() -> None:
    scores = _SCORER.score(_batch(_pictures(*[4] * _CAPACITY), [0] + [_CAPACITY] * 7, 2))
    assert scores.num_images.tolist() == [1, 0]
    assert scores.top_labels[1].tolist() == np.argsort(-_PRIOR, kind="stable")[:5].tolist()
    np.testing.assert_allclose(scores.top_probabilities[1], -np.sort(-_PRIOR)[:5], rtol=1e-6)
    _assert_most_probable(scores.product_labels[1:], _PRIOR[np.newaxis])


def test_a_node_wins_by_the_sum_over_its_categories() -> None:
    shares = np.array([0.1, 0.3, 0.2, 0.15, 0.2, 0.05])  # A has .45 and B .35, and the best category is of B.
    picture = np.round(32 * (np.log(shares) + 4)).astype(np.uint8)
    scores = _SCORER.score(_batch(np.tile(picture, (_CAPACITY, 1)), [0] * _CAPACITY, 1))
    assert scores.top_labels[0, 0] == 1
    assert _TREE.nodes(1)[scores.product_labels[0, 0]] == ("A",)
    assert scores.product_labels[0, 2] == 1
    assert scores.image_labels[0].tolist() == scores.product_labels[0].tolist()


def test_answers_stand_in_the_order_of_the_products() -> None:
    owners = [5, 0, 3, 1, 4, 2, _CAPACITY, _CAPACITY]
    scores = _SCORER.score(_batch(_pictures(5, 0, 3, 1, 4, 2, 0, 0), owners, 6))
    assert scores.top_labels[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert scores.product_labels[:, 2].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("top_k", "shape"), [(1, (2, 1)), (5, (2, 5)), (6, (2, 6)), (7, (2, 6))])
def test_no_more_categories_are_named_than_there_are(top_k: int, shape: tuple[int, int]) -> None:
    scorer = ProductScorer(_classifier(), _TREE, prior=_PRIOR, capacity=_CAPACITY, top_k=top_k)
    scores = scorer.score(_batch(_pictures(*[2] * _CAPACITY), [0, 1] * 4, 2))
    assert scores.top_labels.shape == scores.top_probabilities.shape == shape
    assert scores.top_labels[:, 0].tolist() == [2, 2]


def test_a_product_may_have_more_images_than_a_batch_has_products() -> None:
    pictures = np.tile(_pictures(3, 3, 4, 3), (4, 1))
    scores = _SCORER.score(_batch(pictures, [0] * 15 + [_CAPACITY], 1))
    assert scores.num_images.tolist() == [15]
    assert scores.top_labels[0, :2].tolist() == [3, 4]
