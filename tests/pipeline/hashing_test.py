"""Tests of reproducible randomness."""

import numpy as np

from pipeline import hashing


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
