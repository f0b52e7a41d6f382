"""Tests of who goes into which split."""

import numpy as np
import pytest

from pipeline import hashing, plan, schema

_TRAIN, _VALIDATION, _TEST = range(3)


def _catalogue(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    categories = np.repeat(np.arange(60), generator.integers(1, 60, 60))
    return generator.permutation(10 * len(categories))[: len(categories)], categories


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.5, 0.9])
def test_every_category_keeps_a_train_product_and_the_total_is_right(fraction: float) -> None:
    ids, categories = _catalogue()
    codes = plan.split_codes(ids, categories, fraction, seed=1)
    for category in np.unique(categories):
        mine = codes[categories == category]
        assert (mine == _TRAIN).any()
        wanted = len(mine) * fraction
        assert np.floor(min(wanted, len(mine) - 1)) <= (mine == _VALIDATION).sum() <= np.ceil(wanted)
    if fraction <= 0.5:
        assert (codes == _VALIDATION).mean() == pytest.approx(fraction, abs=0.02)


def test_the_split_does_not_depend_on_the_order_of_documents() -> None:
    ids, categories = _catalogue()
    codes = plan.split_codes(ids, categories, 0.2, seed=1)
    order = np.random.default_rng(5).permutation(len(ids))
    np.testing.assert_array_equal(plan.split_codes(ids[order], categories[order], 0.2, seed=1), codes[order])


def test_another_seed_gives_another_split() -> None:
    ids, categories = _catalogue()
    first, second = (plan.split_codes(ids, categories, 0.2, seed=seed) for seed in (1, 2))
    assert (first != second).any()


def test_products_without_a_category_are_the_test_split() -> None:
    ids, categories = np.arange(4), np.array([5, schema.NO_CATEGORY, 5, schema.NO_CATEGORY])
    codes = plan.split_codes(ids, categories, 0.1, seed=0)
    assert (codes == _TEST).tolist() == [False, True, False, True]


def test_hashes_stay_what_they_are() -> None:
    # The first outputs of SplitMix64 seeded with 0, see https://prng.di.unimi.it/splitmix64.c
    golden = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    step = 0x9E3779B97F4A7C15
    states = np.array([number * step % (1 << 64) for number in range(3)], np.uint64)
    assert [int(value) for value in hashing._finalize(states)] == golden


def test_uniform_hashes_are_uniform() -> None:
    draws = hashing.uniform(np.arange(100_000), seed=3)
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
