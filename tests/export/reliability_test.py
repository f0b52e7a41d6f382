"""Tests of calibration error and of the choice of a threshold, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import reliability
from export.reliability import Selection

# Few distinct probabilities, so that equal ones occur.
_ANSWERS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.99, 1.0]), st.booleans()), min_size=1)


def _columns(answers: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = zip(*answers, strict=True)
    return np.array(confidence, np.float32), np.array(right)


def test_the_error_is_the_weighted_distance_of_accuracy_and_probability() -> None:
    confidence = np.array([0.05, 0.5, 0.5, 0.95, 0.95])
    right = np.array([False, True, False, True, False])
    found = reliability.bins(confidence, right, count=10)
    assert [(item.products, item.accuracy) for item in found if item.products] == [(1, 0), (2, 0.5), (2, 0.5)]
    assert found[4].products == 2  # The upper end belongs to a range.
    error = reliability.expected_calibration_error(found)
    assert error == pytest.approx(1 / 5 * 0.05 + 2 / 5 * 0 + 2 / 5 * 0.45)


def test_answers_that_are_right_as_often_as_they_claim_have_no_error() -> None:
    found = reliability.bins(np.full(10, 0.7), np.arange(10) < 7)
    assert reliability.expected_calibration_error(found) == pytest.approx(0, abs=1e-9)


@given(_ANSWERS, st.integers(0, 20))
def test_ranges_of_two_parts_together_are_those_of_the_whole(answers: list[tuple[float, bool]], cut: int) -> None:
    confidence, right = _columns(answers)
    whole = reliability.bins(confidence, right)
    parts = [reliability.bins(confidence[part], right[part]) for part in (slice(cut), slice(cut, None))]
    together = reliability.merged(reliability.merged([], parts[0]), parts[1])
    np.testing.assert_allclose(together, whole, atol=1e-9)
    assert sum(item.products for item in whole) == len(answers)


@given(_ANSWERS, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.995, 1.0]))
def test_a_threshold_answers_what_is_at_least_as_probable(answers: list[tuple[float, bool]], threshold: float) -> None:
    confidence, right = _columns(answers)
    choice = Selection(confidence, right).at(threshold)
    kept = confidence.astype(np.float64) >= threshold
    assert choice.products == kept.sum()
    assert choice.coverage == pytest.approx(kept.mean())
    assert choice.accuracy == (pytest.approx(right[kept].mean()) if kept.any() else None)


@given(_ANSWERS, st.sampled_from([0.01, 0.5, 0.9, 1.0]))
def test_a_wanted_accuracy_is_reached_at_the_widest_coverage(answers: list[tuple[float, bool]], wanted: float) -> None:
    confidence, right = _columns(answers)
    choice = Selection(confidence, right).reaching(wanted)
    good = [kept for value in np.unique(confidence) if right[kept := confidence >= value].mean() >= wanted]
    assert (choice.products if choice else 0) == max((int(kept.sum()) for kept in good), default=0)


@given(_ANSWERS)
def test_the_curve_ends_with_all_answers(answers: list[tuple[float, bool]]) -> None:
    confidence, right = _columns(answers)
    curve = Selection(confidence, right).curve(20)
    assert [point.coverage for point in curve] == sorted({point.coverage for point in curve})
    assert curve[-1].coverage == 1
    assert curve[-1].accuracy == pytest.approx(right.mean())
