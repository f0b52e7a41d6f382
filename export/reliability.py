"""Do probabilities mean what they say, and what does it buy to answer only where they are high?"""

from typing import NamedTuple

import numpy as np

BINS = 15
_THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_TARGETS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


class Bin(NamedTuple):
    """Products whose answer has a probability in a range, its upper end included.

    Attributes:
      low: Lower end of the range.
      high: Upper end.
      products: Their number.
      confidence: Mean probability of their answers, 0 where there is none.
      accuracy: Share of the right ones, 0 where there is none.
    """

    low: float
    high: float
    products: int
    confidence: float
    accuracy: float


class Choice(NamedTuple):
    """What comes of answering only from a probability up.

    Attributes:
      threshold: The least probability that is answered.
      products: Products that are answered.
      coverage: Their share of all.
      accuracy: Share of the right ones among them; None where there is none.
    """

    threshold: float
    products: int
    coverage: float
    accuracy: float | None


def bins(confidence: np.ndarray, right: np.ndarray, *, count: int = BINS) -> list[Bin]:
    """Groups answers into ranges of equal width, the rows of a reliability diagram.

    Args:
      confidence: Probability of each answer, in [0, 1].
      right: Whether it is right.
      count: Number of ranges.
    """
    number = np.clip(np.ceil(np.asarray(confidence, np.float64) * count).astype(int) - 1, 0, count - 1)
    products = np.bincount(number, minlength=count)
    divisor = np.maximum(products, 1)
    confidences = np.bincount(number, confidence, minlength=count) / divisor
    accuracies = np.bincount(number, right, minlength=count) / divisor
    columns = (products.tolist(), confidences.tolist(), accuracies.tolist())
    return [Bin(place / count, (place + 1) / count, *row) for place, row in enumerate(zip(*columns, strict=True))]


def merged(some: list[Bin], others: list[Bin]) -> list[Bin]:
    """Returns the ranges of two groups of answers together; either may be empty."""
    if not some or not others:
        return some or others
    return [_together(one, other) for one, other in zip(some, others, strict=True)]


def _together(one: Bin, other: Bin) -> Bin:
    products = one.products + other.products
    confidence, accuracy = (
        (one.products * ours + other.products * theirs) / max(1, products)
        for ours, theirs in ((one.confidence, other.confidence), (one.accuracy, other.accuracy))
    )
    return Bin(one.low, one.high, products, confidence, accuracy)


def expected_calibration_error(found: list[Bin]) -> float:
    """Returns the mean distance between accuracy and probability over ranges, weighted by their products.

    Defined by Naeini et al. (2015, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning"); with 15 ranges as in Guo et al. (2017, arXiv:1706.04599).
    """
    total = sum(item.products for item in found)
    return sum(item.products * abs(item.accuracy - item.confidence) for item in found) / max(1, total)


class Selection:
    """Answers in the order of falling probability, as selective classification takes them.

    The curve of accuracy over coverage is that of Geifman and El-Yaniv (2017,
    arXiv:1705.08500), where risk is 1 - accuracy.

    Args:
      confidence: Probability of each answer, in [0, 1].
      right: Whether it is right.
    """

    def __init__(self, confidence: np.ndarray, right: np.ndarray) -> None:
        order = np.argsort(-confidence, kind="stable")
        self._total = len(order)
        falling = np.asarray(confidence, np.float64)[order]
        ends = np.flatnonzero(np.append(falling[1:] < falling[:-1], True)[: self._total])  # Equal ones go together.
        self._threshold = falling[ends]
        self._products = ends + 1
        self._accuracy = np.cumsum(right[order])[ends] / self._products

    def at(self, threshold: float) -> Choice:
        """Returns what comes of a threshold."""
        kept = int(np.searchsorted(-self._threshold, -threshold, side="right"))
        if not kept:
            return Choice(threshold, 0, 0.0, None)
        return self._choice(kept - 1)._replace(threshold=threshold)

    def reaching(self, accuracy: float) -> Choice | None:
        """Returns the widest coverage with at least an accuracy, or None where there is none."""
        good = np.flatnonzero(self._accuracy >= accuracy)
        return self._choice(int(good[-1])) if len(good) else None

    def _choice(self, place: int) -> Choice:
        products = int(self._products[place])
        return Choice(float(self._threshold[place]), products, products / self._total, float(self._accuracy[place]))

    def curve(self, points: int) -> list[Choice]:
        """Returns about as many points, evenly spread over coverage."""
        wanted = np.linspace(1, self._total, min(points, self._total))
        places = np.unique(np.minimum(np.searchsorted(self._products, wanted), len(self._products) - 1))
        return [self._choice(int(place)) for place in places]

    def thresholds(self) -> list[Choice]:
        """Returns what comes of some round thresholds."""
        return [self.at(threshold) for threshold in _THRESHOLDS]

    def targets(self) -> list[tuple[float, Choice | None]]:
        """Returns what some round accuracies cost, those which all answers reach left out."""
        overall = self._accuracy[-1] if self._total else 0
        return [(target, self.reaching(target)) for target in _TARGETS if target > overall]
