"""Tests of the loss."""

import keras
import numpy as np
import pytest

from model.losses import SmoothedCrossEntropy

_CATEGORIES = 7


def _batch(seed: int, size: int = 5, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = (scale * random.normal(size=(size, _CATEGORIES))).astype(np.float32)
    return random.integers(0, _CATEGORIES, size), logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_loss_of_keras_on_one_hot_labels(smoothing: float, seed: int) -> None:
    labels, logits = _batch(seed)
    reference = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = reference(np.eye(_CATEGORIES, dtype=np.float32)[labels], logits)
    assert float(SmoothedCrossEntropy(smoothing)(labels, logits)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_without_smoothing_it_equals_the_sparse_loss_of_keras(shape: tuple[int, ...], dtype: str) -> None:
    labels, logits = _batch(3)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    found = SmoothedCrossEntropy()(labels.astype(dtype).reshape(shape), logits)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_an_image_of_weight_0_does_not_count() -> None:
    labels, logits = _batch(4)
    weights = np.array([1, 0, 1, 0, 0], np.float32)
    each = np.asarray(SmoothedCrossEntropy(0.1).call(labels, logits))
    found = SmoothedCrossEntropy(0.1)(labels, logits, sample_weight=weights)
    assert each.shape == (5,)
    assert float(found) == pytest.approx(float((each * weights).sum() / 5), rel=1e-5)


def test_large_logits_stay_finite() -> None:
    labels, logits = _batch(5, scale=1e4)
    assert np.isfinite(float(SmoothedCrossEntropy(0.1)(labels, logits)))


def test_low_precision_logits_are_summed_in_float32() -> None:
    labels, logits = _batch(6)
    low = keras.ops.cast(logits, "bfloat16")
    expected = SmoothedCrossEntropy(0.1).call(labels, keras.ops.cast(low, "float32"))
    np.testing.assert_array_equal(SmoothedCrossEntropy(0.1).call(labels, low), expected)
