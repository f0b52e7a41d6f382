"""Joins the scores of several stores: the best category of each product, shard by shard.

Each method is a sum, over the members, of a value for each category: so all
are one sort of a few dozen labels a product, without a column for each category.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from export.scores import Part, ScoreStore
from export.submission import Best
from pipeline.console import UserError

MEAN, GEOMETRIC, VOTE, FITTED = "mean", "geometric", "vote", "fitted"
METHODS = (MEAN, GEOMETRIC, VOTE, FITTED)
_LEAST_PROBABILITY = 1e-8  # About the smallest that float16 can tell from 0.
_MOST_VOTERS = 64  # Of more, the mean probability may outweigh a vote.
_ROWS = 1 << 14  # At a time: bounds memory, and what is sorted stays in the cache.


def check_alike(stores: Sequence[ScoreStore]) -> None:
    """Checks that stores answer for the same products in the same categories.

    Raises:
      UserError: They do not.
    """
    first = stores[0]
    for store in stores[1:]:
        for name in ("taxonomy", "data", "split", "records"):
            if store.content[name] != first.content[name]:
                raise UserError(
                    f"{store.folder} and {first.folder} have another {name}; expected scores of the same split of the "
                    "same dataset, in the same category tree."
                )


def combine(
    stores: Sequence[ScoreStore], *, method: str = MEAN, weights: Sequence[float] | None = None
) -> Iterator[Best]:
    """Yields the best categories of each shard; memory holds one shard of each store.

    Args:
      stores: Finished stores that are alike, see `check_alike`.
      method: One of `METHODS`; "fitted" is the mean with weights.
      weights: Of the stores, that sum to 1; None for equal ones.
    """
    categories = stores[0].tree().num_categories
    for shard in range(len(stores[0].records)):
        parts = [store.read(shard) for store in stores]
        labels = best_labels(parts, method=method, weights=weights, categories=categories)
        yield Best(parts[0].product_id, labels, parts[0].num_images)


def best_labels(
    parts: Sequence[Part], *, method: str, categories: int, weights: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the best label of each product: int64 of shape (products,); of equals, the lowest.

    Args:
      parts: The answers of each member for the same products in the same order.
      method: One of `METHODS`.
      categories: Number of categories of the tree.
      weights: Of the members, that sum to 1; None for equal ones.
    """
    shares = [1 / len(parts)] * len(parts) if weights is None else list(weights)
    found = [np.empty(0, np.int64)]
    for first in range(0, len(parts[0].product_id), _ROWS):
        rows = slice(first, first + _ROWS)
        labels = np.concatenate([part.labels[rows].astype(np.int32) for part in parts], axis=1)
        values = [
            _VALUES[method](part.probabilities[rows].astype(np.float32), categories) * np.float32(share)
            for part, share in zip(parts, shares, strict=True)
        ]
        found.append(_largest_sums(labels, np.concatenate(values, axis=1)))
    return np.concatenate(found)


def _largest_sums(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns, for each row, the label whose values have the largest sum."""
    order = np.argsort(labels, axis=1, kind="stable")
    labels, values = np.take_along_axis(labels, order, axis=1), np.take_along_axis(values, order, axis=1)
    begins = np.ones(labels.shape, np.bool_)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    starts = np.flatnonzero(begins)
    sums = np.add.reduceat(values.ravel(), starts)
    rows = starts // labels.shape[1]
    largest = np.maximum.reduceat(sums, np.flatnonzero(starts % labels.shape[1] == 0))
    winners = np.flatnonzero(sums == largest[rows])
    _, firsts = np.unique(rows[winners], return_index=True)
    return labels.ravel()[starts[winners[firsts]]].astype(np.int64)


def _as_it_is(probabilities: np.ndarray, categories: int) -> np.ndarray:
    del categories
    return probabilities


def _above_the_rest(probabilities: np.ndarray, categories: int) -> np.ndarray:
    """Returns logarithms relative to those of the categories that the store leaves out."""
    return np.log(np.maximum(probabilities, rest(probabilities, categories)) / rest(probabilities, categories))


def rest(probabilities: np.ndarray, categories: int) -> np.ndarray:
    """Returns the probability of each category that is left out: an even share of what remains, (products, 1)."""
    left_out = max(1, categories - probabilities.shape[1])
    even = (1 - probabilities.sum(axis=1, keepdims=True)) / left_out
    return np.maximum(np.minimum(even, probabilities[:, -1:]), np.float32(_LEAST_PROBABILITY))


def _votes(probabilities: np.ndarray, categories: int) -> np.ndarray:
    """Returns a vote for the first category; of equal numbers of votes the mean probability decides."""
    del categories
    values = probabilities / _MOST_VOTERS
    values[:, 0] += 1
    return values


_VALUES = {MEAN: _as_it_is, FITTED: _as_it_is, GEOMETRIC: _above_the_rest, VOTE: _votes}
