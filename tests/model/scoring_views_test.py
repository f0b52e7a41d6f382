"""Tests of views, ways to join answers, and several classifiers at once."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import aggregation
from model.scoring import ProductScorer, Scores
from pipeline import schema, taxonomy
from pipeline.console import UserError
from pipeline.product_batches import ProductBatch

_CATEGORIES, _SIZE, _CAPACITY = 5, 4, 6
_TREE = taxonomy.flat(range(10, 10 + _CATEGORIES))
_PRIOR = np.array([0.1, 0.2, 0.4, 0.2, 0.1])


def _classifier(seed: int, size: int = _SIZE) -> keras.Model:
    """Returns a model whose logits follow from every pixel and its place."""
    pictures = keras.Input((size, size, 3), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255, dtype="float32")(pictures))
    dense = keras.layers.Dense(_CATEGORIES, dtype="float32")
    model = keras.Model(pictures, dense(flat), name=f"seed{seed}")
    dense.set_weights([np.random.default_rng(seed).normal(size=weight.shape) for weight in dense.get_weights()])
    return model


_ONE, _TWO, _SMALL = _classifier(1), _classifier(2), _classifier(3, size=2)


def _probabilities(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    logits = pictures.reshape(len(pictures), -1).astype(np.float64) / 255 @ model.layers[-1].get_weights()[0]
    powers = np.exp(logits + model.layers[-1].get_weights()[1])
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _joined(rows: np.ndarray, aggregate: str) -> np.ndarray:
    if aggregate == aggregation.MEAN:
        return np.asarray(rows.mean(axis=0))
    joined = rows.max(axis=0) if aggregate == aggregation.MAX else np.exp(np.log(rows).mean(axis=0))
    return np.asarray(joined / joined.sum())


@st.composite
def _batches(draw: st.DrawFn) -> ProductBatch:
    products = draw(st.integers(1, _CAPACITY))
    owners = draw(st.lists(st.sampled_from([*range(products), _CAPACITY]), min_size=_CAPACITY, max_size=_CAPACITY))
    pictures = np.random.default_rng(draw(st.integers(0, 999))).integers(0, 256, (_CAPACITY, _SIZE, _SIZE, 3), np.uint8)
    labels = np.full(_CAPACITY, schema.NO_CATEGORY, np.int32)
    return ProductBatch(pictures, np.array(owners, np.int32), np.arange(_CAPACITY), labels, np.int32(products))  # type: ignore[arg-type]


def _expected(batch: ProductBatch, model: keras.Model, views: tuple[str, ...], aggregate: str) -> np.ndarray:
    pictures = {aggregation.CENTER: batch.images, aggregation.FLIP: batch.images[:, :, ::-1]}
    looks = np.stack([_probabilities(model, pictures[view]) for view in views])
    rows = [looks[:, batch.owners == product].reshape(-1, _CATEGORIES) for product in range(int(batch.products))]
    return np.stack([_joined(own, aggregate) if len(own) else _PRIOR for own in rows])


def _assert_best(scores: Scores, expected: np.ndarray) -> None:
    best = -np.sort(-expected, axis=1)[:, :3]
    np.testing.assert_allclose(scores.top_probabilities, best, rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, scores.top_labels, axis=1), best, rtol=1e-4)


_WAYS = [(views, way) for views in (("center",), ("flip",), ("center", "flip")) for way in aggregation.AGGREGATES]
_OPTIONS: dict[str, Any] = {"prior": _PRIOR, "capacity": _CAPACITY, "top_k": 3}


@pytest.mark.parametrize(("views", "aggregate"), _WAYS)
def test_views_and_images_are_joined_as_numpy_joins_them(views: tuple[str, ...], aggregate: str) -> None:
    scorer = ProductScorer(_ONE, _TREE, views=views, aggregate=aggregate, **_OPTIONS)

    @settings(deadline=None, max_examples=10)
    @given(_batches())
    def check(batch: ProductBatch) -> None:
        scores = scorer.score(batch)
        _assert_best(scores, _expected(batch, _ONE, views, aggregate))
        assert scores.image_top_labels.shape == (_CAPACITY, 3)

    check()


@pytest.mark.parametrize("aggregate", aggregation.AGGREGATES)
def test_several_classifiers_are_averaged_and_each_answers_by_itself(aggregate: str) -> None:
    together = ProductScorer([_ONE, _TWO], _TREE, aggregate=aggregate, levels=False, **_OPTIONS)
    alone = [ProductScorer(model, _TREE, aggregate=aggregate, levels=False, **_OPTIONS) for model in (_ONE, _TWO)]
    over_runs = aggregation.GEOMETRIC if aggregate == aggregation.GEOMETRIC else aggregation.MEAN

    @settings(deadline=None, max_examples=10)
    @given(_batches())
    def check(batch: ProductBatch) -> None:
        scores = together.score(batch)
        each = np.stack([_expected(batch, model, ("center",), aggregate) for model in (_ONE, _TWO)])
        _assert_best(scores, np.stack([_joined(rows, over_runs) for rows in each.swapaxes(0, 1)]))
        for member, scorer in zip(scores.members, alone, strict=True):
            own = scorer.score(batch)
            np.testing.assert_array_equal(member.labels, own.top_labels)
            np.testing.assert_allclose(member.probabilities, own.top_probabilities, rtol=1e-5)

    check()


def test_a_smaller_classifier_sees_the_middle_of_the_pictures() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (_CAPACITY, _SIZE, _SIZE, 3), np.uint8)
    owners = np.arange(_CAPACITY, dtype=np.int32)
    batch = ProductBatch(pictures, owners, owners, owners, np.int32(_CAPACITY))  # type: ignore[arg-type]
    scores = ProductScorer(_SMALL, _TREE, image_size=_SIZE, **_OPTIONS).score(batch)
    _assert_best(scores, _probabilities(_SMALL, pictures[:, 1:3, 1:3]))


def test_without_levels_only_the_best_categories_are_answered() -> None:
    owners = np.arange(_CAPACITY, dtype=np.int32)
    pictures = np.zeros((_CAPACITY, _SIZE, _SIZE, 3), np.uint8)
    batch = ProductBatch(pictures, owners, owners, owners, np.int32(4))  # type: ignore[arg-type]
    scores = ProductScorer(_ONE, _TREE, levels=False, **_OPTIONS).score(batch)
    assert scores.image_labels.shape == (_CAPACITY, 0)
    assert scores.product_labels.shape == (4, 0)
    assert scores.top_labels.shape == (4, 3)


@pytest.mark.parametrize(
    ("views", "aggregate", "shown"),
    [
        ((), "mean", "--views is ''"),
        (("center", "centre"), "mean", "--views is 'center,centre'; expected one or more of center, flip"),
        (("flip", "flip"), "mean", "each once"),
        (("center",), "median", "--aggregate is 'median'; expected one of mean, geometric, max"),
    ],
)
def test_unknown_views_and_ways_are_refused(views: tuple[str, ...], aggregate: str, shown: str) -> None:
    with pytest.raises(UserError) as caught:
        ProductScorer(_ONE, _TREE, views=views, aggregate=aggregate, **_OPTIONS)
    assert shown in str(caught.value)
