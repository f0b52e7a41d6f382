"""Tests of who goes into which split."""

from typing import Any

import numpy as np
import pytest

from pipeline import schema, splits
from pipeline.shard_config import ShardConfig

_TRAIN, _VALIDATION, _TEST = range(3)


def _codes(ids: np.ndarray, categories: np.ndarray, **options: Any) -> np.ndarray:
    clusters = options.pop("clusters", None)
    config = ShardConfig(inputs=("a.bson",), output="shards", **options)
    return splits.codes(ids, categories, config, clusters=clusters)


def _catalogue(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    categories = np.repeat(np.arange(60), generator.integers(1, 60, 60))
    return generator.permutation(10 * len(categories))[: len(categories)], categories


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.5, 0.9])
def test_every_category_keeps_a_train_product_and_the_total_is_right(fraction: float) -> None:
    ids, categories = _catalogue()
    codes = _codes(ids, categories, validation_fraction=fraction, seed=1)
    for category in np.unique(categories):
        mine = codes[categories == category]
        assert (mine == _TRAIN).any()
        wanted = len(mine) * fraction
        assert np.floor(min(wanted, len(mine) - 1)) <= (mine == _VALIDATION).sum() <= np.ceil(wanted)
    if fraction <= 0.5:
        assert (codes == _VALIDATION).mean() == pytest.approx(fraction, abs=0.02)


def test_the_split_does_not_depend_on_the_order_of_documents() -> None:
    ids, categories = _catalogue()
    codes = _codes(ids, categories, validation_fraction=0.2, seed=1)
    order = np.random.default_rng(5).permutation(len(ids))
    np.testing.assert_array_equal(_codes(ids[order], categories[order], validation_fraction=0.2, seed=1), codes[order])


def test_another_seed_gives_another_split() -> None:
    ids, categories = _catalogue()
    first, second = (_codes(ids, categories, validation_fraction=0.2, seed=seed) for seed in (1, 2))
    assert (first != second).any()


def test_products_without_a_category_are_the_test_split() -> None:
    ids, categories = np.arange(4), np.array([5, schema.NO_CATEGORY, 5, schema.NO_CATEGORY])
    codes = _codes(ids, categories)
    assert (codes == _TEST).tolist() == [False, True, False, True]


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_even_in_every_category(folds: int) -> None:
    ids, categories = _catalogue()
    codes = _codes(ids, categories, folds=folds)
    for category in np.unique(categories):
        counts = np.bincount(codes[categories == category], minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert len(np.bincount(codes)) == folds
    assert np.bincount(codes).max() < 1.2 * np.bincount(codes).min()


def test_folds_keep_clusters_together_and_test_apart() -> None:
    ids, categories = _catalogue()
    categories[::7] = schema.NO_CATEGORY
    clusters = np.arange(len(ids)) // 3
    codes = _codes(ids, categories, folds=4, clusters=clusters)
    labelled = categories != schema.NO_CATEGORY
    assert (codes[~labelled] == 4).all()
    for cluster in np.unique(clusters):
        assert len(np.unique(codes[labelled & (clusters == cluster)])) <= 1
