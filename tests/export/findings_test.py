"""Tests of where a run goes wrong."""

import numpy as np
import pytest

from export import findings
from export.outcomes import Outcomes

_LABELS = [0, 0, 0, 0, 1, 1, 2, 3, 3, 3]
_PREDICTED = [0, 1, 1, 2, 1, 0, 0, 3, 3, 3]
_CONFIDENCE = [0.9, 0.2, 0.8, 0.7, 0.6, 0.95, 0.1, 0.5, 0.5, 0.5]


@pytest.fixture
def outcomes() -> Outcomes:
    count = len(_LABELS)
    readable = np.ones(count, np.int32)
    readable[5] = 0
    return Outcomes(
        product_id=np.arange(100, 100 + count),
        label=np.array(_LABELS, np.int32),
        predicted=np.array(_PREDICTED, np.int32),
        confidence=np.array(_CONFIDENCE, np.float32),
        readable=readable,
        images=np.ones(count, np.int32),
    )


def test_pairs_come_by_frequency_with_the_surest_example(outcomes: Outcomes) -> None:
    first, *others = findings.confused_pairs(outcomes, 5)
    assert first == (0, 1, 2, 0.5, 2)
    assert {(pair.label, pair.predicted, pair.products) for pair in others} == {(0, 2, 1), (1, 0, 1), (2, 0, 1)}


def test_pairs_of_many_categories_do_not_run_over(outcomes: Outcomes) -> None:
    last = 2_000_000
    far = outcomes._replace(label=np.full(10, last - 1, np.int32), predicted=np.full(10, last - 2, np.int32))
    [pair] = findings.confused_pairs(far, last)
    assert (pair.label, pair.predicted, pair.products) == (last - 1, last - 2, 10)


def test_surely_bad_categories_come_before_those_of_one_product(outcomes: Outcomes) -> None:
    pairs = findings.confused_pairs(outcomes, 5)
    worst = findings.worst_categories(outcomes, pairs, 5)
    assert [(item.label, item.products, item.right, item.taken_for) for item in worst] == [
        (0, 4, 1, 1),
        (2, 1, 0, 0),
        (1, 2, 1, 0),
    ]


@pytest.mark.parametrize(("right", "total", "upper"), [(0, 10, 0.2775), (5, 10, 0.7634), (10, 10, 1.0), (0, 0, 1.0)])
def test_the_interval_is_wilsons(right: int, total: int, upper: float) -> None:
    assert findings.wilson_upper(np.array([right]), np.array([total]))[0] == pytest.approx(upper, abs=1e-4)


def test_errors_come_by_probability_and_need_a_picture(outcomes: Outcomes) -> None:
    assert findings.worst_errors(outcomes, 3).tolist() == [2, 3, 1]
