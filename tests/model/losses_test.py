"""Tests of the loss."""

import keras
import numpy as np
import pytest

from model import losses
from model.losses import LossConfig, SmoothedCrossEntropy
from pipeline.console import UserError

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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_picture_has_the_loss_of_both_labels_by_their_shares(smoothing: float) -> None:
    labels, logits = _batch(7)
    others, share = np.roll(labels, 1), np.array([0.0, 0.1, 0.25, 0.4, 0.5], np.float32)
    mixed = np.stack([labels, others, share], axis=-1).astype(np.float32)
    one_hot = np.eye(_CATEGORIES, dtype=np.float32)
    soft = (1 - share)[:, None] * one_hot[labels] + share[:, None] * one_hot[others]
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(soft, logits)
    assert float(SmoothedCrossEntropy(smoothing)(mixed, logits)) == pytest.approx(float(expected), rel=1e-5)


def _prior() -> np.ndarray:
    return np.arange(1, _CATEGORIES + 1) / np.arange(1, _CATEGORIES + 1).sum()


def test_class_weights_lift_the_rare_and_keep_the_mean() -> None:
    loss = losses.build(LossConfig(class_weights=1.0), _prior())
    labels, logits = _batch(8)
    plain = np.asarray(SmoothedCrossEntropy().call(labels, logits))
    weights = np.asarray(loss.call(labels, logits)) / plain
    np.testing.assert_allclose(weights * _prior()[labels], 1 / _CATEGORIES, rtol=1e-4)


def test_logit_adjustment_adds_the_log_of_the_frequency() -> None:
    labels, logits = _batch(9)
    found = losses.build(LossConfig(logit_adjustment=0.5), _prior()).call(labels, logits)
    expected = SmoothedCrossEntropy().call(labels, (logits + 0.5 * np.log(_prior())).astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_options_against_imbalance_the_loss_is_the_plain_one() -> None:
    labels, logits = _batch(10)
    found = losses.build(LossConfig(), _prior()).call(labels, logits)
    np.testing.assert_array_equal(found, SmoothedCrossEntropy().call(labels, logits))


def test_accuracy_goes_by_the_greater_label_of_a_mixed_picture() -> None:
    labels, logits = np.array([0, 1, 2]), np.eye(3, dtype=np.float32)[[0, 1, 0]]
    mixed = np.stack([labels, [0, 0, 0], [0.3, 0.3, 0.3]], axis=-1)
    for each in (labels, labels[:, None], mixed):
        np.testing.assert_array_equal(losses.accuracy(keras.ops.convert_to_tensor(each), logits), [1, 1, 0])


@pytest.mark.parametrize("name", ["label_smoothing", "class_weights", "logit_adjustment"])
def test_a_negative_option_is_refused_by_its_flag(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        LossConfig(**{name: -0.1})
