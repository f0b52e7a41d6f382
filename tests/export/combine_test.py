"""Tests of joining the scores of several members."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import combine
from export.scores import Part

_CATEGORIES = 9


def _part(labels: list[list[int]], probabilities: list[list[float]]) -> Part:
    count = len(labels)
    return Part(
        np.arange(count),
        np.full(count, -1),
        np.ones(count, np.int32),
        np.array(labels, np.uint8),
        np.array(probabilities, np.float16),
    )


@st.composite
def _parts(draw: st.DrawFn) -> list[Part]:
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    products, members = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    parts = []
    for _ in range(members):
        full = random.dirichlet(np.full(_CATEGORIES, 0.5), products).astype(np.float32)
        labels = np.argsort(-full, axis=1)[:, : draw(st.integers(1, _CATEGORIES))]
        parts.append(_part(labels.tolist(), np.take_along_axis(full, labels, axis=1).tolist()))
    return parts


def _dense(part: Part, method: str) -> np.ndarray:
    """Returns the value of every category, those that are left out included."""
    kept = part.probabilities.astype(np.float64)
    if method == combine.VOTE:
        values = np.zeros((len(kept), _CATEGORIES))
        np.put_along_axis(values, part.labels.astype(int), kept / 64, axis=1)
        values[np.arange(len(kept)), part.labels[:, 0]] += 1
        return values
    rest = combine.rest(part.probabilities.astype(np.float32), _CATEGORIES).astype(np.float64)
    values = np.tile(rest if method == combine.GEOMETRIC else rest * 0, (1, _CATEGORIES))
    np.put_along_axis(values, part.labels.astype(int), np.maximum(kept, rest * (method == combine.GEOMETRIC)), axis=1)
    return np.log(values) if method == combine.GEOMETRIC else values


@pytest.mark.parametrize("method", combine.METHODS)
def test_the_best_label_is_that_of_all_categories_side_by_side(method: str) -> None:
    @settings(deadline=None, max_examples=60)
    @given(_parts(), st.data())
    def check(parts: list[Part], data: st.DataObject) -> None:
        weights = data.draw(st.lists(st.floats(0.1, 1), min_size=len(parts), max_size=len(parts)))
        shares = [weight / sum(weights) for weight in weights]
        expected = sum(share * _dense(part, method) for share, part in zip(shares, parts, strict=True))
        found = combine.best_labels(parts, method=method, categories=_CATEGORIES, weights=shares)
        assert isinstance(expected, np.ndarray)
        chosen = expected[np.arange(len(found)), found]
        np.testing.assert_allclose(chosen, expected.max(axis=1), rtol=1e-5, atol=1e-5)

    check()


def test_of_equals_the_lowest_label_wins() -> None:
    parts = [_part([[7, 2]], [[0.5, 0.5]]), _part([[2, 7]], [[0.5, 0.5]])]
    for method in combine.METHODS:
        assert combine.best_labels(parts, method=method, categories=_CATEGORIES).tolist() == [2]


def test_two_votes_outweigh_one_that_is_sure() -> None:
    parts = [_part([[1, 3]], [[1.0, 0.0]]), *[_part([[5, 3]], [[0.4, 0.3]])] * 2]
    assert combine.best_labels(parts, method=combine.VOTE, categories=_CATEGORIES).tolist() == [5]
    assert combine.best_labels(parts, method=combine.MEAN, categories=_CATEGORIES).tolist() == [1]


def test_of_equal_votes_the_mean_probability_decides() -> None:
    parts = [_part([[1, 3]], [[0.5, 0.4]]), _part([[6, 3]], [[0.75, 0.1]])]
    assert combine.best_labels(parts, method=combine.VOTE, categories=_CATEGORIES).tolist() == [6]


def test_answers_do_not_depend_on_how_many_rows_are_joined_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = np.argsort(random.random((500, _CATEGORIES)), axis=1)[:, :4]
    parts = [_part(labels.tolist(), random.random((500, 4)).tolist()) for _ in range(3)]
    whole = combine.best_labels(parts, method=combine.MEAN, categories=_CATEGORIES)
    monkeypatch.setattr(combine, "_ROWS", 7)
    np.testing.assert_array_equal(combine.best_labels(parts, method=combine.MEAN, categories=_CATEGORIES), whole)
