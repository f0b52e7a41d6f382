"""Where a run goes wrong: by category, by pair, by product."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from export.outcomes import Outcomes

_NORMAL_95 = 1.96


class Pair(NamedTuple):
    """A category that is taken for another.

    Attributes:
      label: The true category.
      predicted: What it is taken for.
      products: How many products of it are.
      share: Their share of the true category's products.
      example: Row of the one with the highest probability.
    """

    label: int
    predicted: int
    products: int
    share: float
    example: int


class CategoryOutcome(NamedTuple):
    """How a category fares.

    Attributes:
      label: The category.
      products: Validation products of it.
      right: How many are right.
      bound: Upper end of the 95 % interval of its accuracy, see `wilson_upper`.
      taken_for: The category that it is most often taken for.
    """

    label: int
    products: int
    right: int
    bound: float
    taken_for: int


def confused_pairs(outcomes: Outcomes, num_categories: int) -> list[Pair]:
    """Returns every pair that occurs, the most frequent first; costs 50 bytes of memory an error."""
    wrong = np.flatnonzero(~outcomes.right)
    wrong = wrong[np.argsort(-outcomes.confidence[wrong], kind="stable")]
    keys = outcomes.label[wrong].astype(np.int64) * num_categories + outcomes.predicted[wrong]
    pairs, first, counts = np.unique(keys, return_index=True, return_counts=True)
    totals = np.bincount(outcomes.label, minlength=num_categories)
    found = []
    for place in np.argsort(-counts, kind="stable").tolist():
        label, predicted = divmod(int(pairs[place]), num_categories)
        count = int(counts[place])
        found.append(Pair(label, predicted, count, count / int(totals[label]), int(wrong[first[place]])))
    return found


def worst_categories(outcomes: Outcomes, pairs: Sequence[Pair], num_categories: int) -> list[CategoryOutcome]:
    """Returns the categories with an error, surely bad ones first.

    A category of one product, wrong, may be a good one. So they are ordered by
    the upper end of the interval in which their accuracy lies.
    """
    products = np.bincount(outcomes.label, minlength=num_categories)
    right = np.bincount(outcomes.label, outcomes.right, minlength=num_categories).astype(np.int64)
    bound = wilson_upper(right, products)
    taken_for: dict[int, int] = {}
    for pair in pairs:
        taken_for.setdefault(pair.label, pair.predicted)
    order = [label for label in np.lexsort((right - products, bound)).tolist() if label in taken_for]
    return [
        CategoryOutcome(label, int(products[label]), int(right[label]), float(bound[label]), taken_for[label])
        for label in order
    ]


def wilson_upper(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Returns the upper end of the 95 % interval of a share (Wilson, 1927); 1 where the total is 0."""
    count = np.maximum(total, 1)
    share, square = right / count, _NORMAL_95**2 / count
    spread = _NORMAL_95 * np.sqrt(share * (1 - share) / count + square / (4 * count))
    return np.asarray(np.where(total > 0, (share + square / 2 + spread) / (1 + square), 1.0))


def worst_errors(outcomes: Outcomes, count: int) -> np.ndarray:
    """Returns the rows of the wrong answers that the run was surest of, among products with a readable image."""
    wrong = np.flatnonzero(~outcomes.right & (outcomes.readable > 0))
    return wrong[np.argsort(-outcomes.confidence[wrong], kind="stable")][:count]
