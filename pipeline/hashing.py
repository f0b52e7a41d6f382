"""Reproducible randomness: hashes that are the same on every machine and version.

The streams of numpy's generators may change between versions; these may not,
since the order of records on disk follows from them.
"""

import numpy as np


def mix(values: np.ndarray, seed: int) -> np.ndarray:
    """Returns a well-mixed uint64 for each value, another one for each seed.

    The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014), applied to the values moved
    by the mixed seed.

    Args:
      values: Integers of any shape; negative ones count as two's complement.
      seed: Any integer.
    """
    offset = _finalize(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return _finalize(values.astype(np.int64).view(np.uint64) + offset)


def _finalize(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform(values: np.ndarray, seed: int) -> np.ndarray:
    """Returns a float64 in [0, 1) for each value, as reproducible as `mix`."""
    return (mix(values, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
