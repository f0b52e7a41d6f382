"""What each member adds to an ensemble, and how much it should weigh: measured on validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from export import combine
from export.scores import Part, ScoreStore
from pipeline import schema
from pipeline.console import UserError
from pipeline.taxonomy import Taxonomy

_FIT_STEPS = 1_000
_FIT_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Contribution:
    """Accuracy on validation, by product, in [0, 1].

    Attributes:
      products: Number of products.
      weights: Of each member, that sum to 1.
      together: Accuracy of the ensemble.
      alone: Accuracy of each member by itself.
      without: Accuracy of the ensemble without each member.
      methods: Accuracy of the ensemble by each method.
    """

    products: int
    weights: list[float]
    together: float
    alone: list[float]
    without: list[float]
    methods: dict[str, float]

    def table(self, names: Sequence[str]) -> str:
        """Returns a table for people, a row for each member."""
        width = max(map(len, ["member", *names]))
        lines = [f"{'member':<{width}}  weight   alone  without    adds"]
        for name, weight, alone, without in zip(names, self.weights, self.alone, self.without, strict=True):
            adds = self.together - without
            lines.append(f"{name:<{width}}  {weight:>6.3f}  {alone:>6.4f}   {without:>6.4f} {adds:>+7.4f}")
        by_method = ", ".join(f"{method} {share:.4f}" for method, share in self.methods.items())
        lines.append(f"together {self.together:.4f} of {self.products:,} validation products; by method: {by_method}")
        return "\n".join(lines)


def measure(stores: Sequence[ScoreStore], *, method: str) -> Contribution:
    """Measures an ensemble on scores of labelled products.

    Args:
      stores: Finished stores of a labelled split that are alike.
      method: One of `combine.METHODS`.

    Raises:
      UserError: The products have no labels.
    """
    chances = chances_of_truth(stores)
    fitted = fit(chances)
    count = _Counter(stores[0].tree(), {})
    for parts in zip(*(store.parts() for store in stores), strict=True):
        for name in combine.METHODS:
            count.right(name, parts, method=name, weights=fitted if name == combine.FITTED else None)
        for member, part in enumerate(parts):
            count.right(f"alone {member}", [part], method=combine.MEAN)
    for member in range(len(stores)) if len(stores) > 1 else ():
        rest = [number for number in range(len(stores)) if number != member]
        weights = fit(chances[:, rest]) if method == combine.FITTED else None
        for parts in zip(*(stores[number].parts() for number in rest), strict=True):
            count.right(f"without {member}", parts, method=method, weights=weights)
    shares = {name: found / len(chances) for name, found in count.found.items()}
    return Contribution(
        products=len(chances),
        weights=fitted if method == combine.FITTED else [1 / len(stores)] * len(stores),
        together=shares[method],
        alone=[shares[f"alone {member}"] for member in range(len(stores))],
        without=[shares.get(f"without {member}", 0.0) for member in range(len(stores))],
        methods={name: shares[name] for name in combine.METHODS},
    )


def fit(chances: np.ndarray) -> list[float]:
    """Returns the weights of the members with which their weighted mean is likeliest.

    Found by expectation-maximisation of the weights of a mixture (Dempster,
    Laird and Rubin, "Maximum likelihood from incomplete data via the EM
    algorithm", JRSS B, 1977), which has one maximum.

    Args:
      chances: Probability that each member gives to the true category, above 0:
        float of shape (products, members).

    Returns:
      One weight in [0, 1] for each member; they sum to 1.
    """
    weights = np.full(chances.shape[1], 1 / chances.shape[1])
    for _ in range(_FIT_STEPS):
        shares = 1 / (chances @ weights)
        updated = weights * (shares @ chances) / len(chances)
        done = np.abs(updated - weights).max() < _FIT_TOLERANCE
        weights = updated / updated.sum()
        if done:
            break
    return [float(weight) for weight in weights]


def chances_of_truth(stores: Sequence[ScoreStore]) -> np.ndarray:
    """Returns the probability that each member gives to the true category: float64 of shape (products, members).

    Raises:
      UserError: The products have no labels.
    """
    tree = stores[0].tree()
    found = [_chances(parts, tree) for parts in zip(*(store.parts() for store in stores), strict=True)]
    chances = np.concatenate([np.empty((0, len(stores))), *found])
    if not len(chances):
        raise UserError(f"{stores[0].folder} holds no products; expected scores of a validation split.")
    return chances


def _chances(parts: Sequence[Part], tree: Taxonomy) -> np.ndarray:
    if (parts[0].category_id == schema.NO_CATEGORY).any():
        raise UserError(
            "--labels names scores of products without a category; expected those of a validation split: "
            "python -m export.predict --split=validation --scores FOLDER."
        )
    truth = _labels(parts[0], tree)[:, np.newaxis]
    columns = []
    for part in parts:
        probabilities = part.probabilities.astype(np.float64)
        least = combine.rest(probabilities, tree.num_categories)[:, 0]
        columns.append(np.maximum(np.where(part.labels == truth, probabilities, 0).sum(axis=1), least))
    return np.stack(columns, axis=1)


def _labels(part: Part, tree: Taxonomy) -> np.ndarray:
    """Returns the label of the true category of each product; -1 for one that the tree lacks."""
    ids = np.array(tree.category_ids, np.int64)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids[order], part.category_id), len(ids) - 1)
    return np.where(ids[order][place] == part.category_id, order[place], -1)


class _Counter(NamedTuple):
    """Counts products that are answered right.

    Attributes:
      tree: The categories.
      found: Number of products, by what answered.
    """

    tree: Taxonomy
    found: dict[str, int]

    def right(self, name: str, parts: Sequence[Part], *, method: str, weights: Sequence[float] | None = None) -> None:
        labels = combine.best_labels(parts, method=method, categories=self.tree.num_categories, weights=weights)
        self.found[name] = self.found.get(name, 0) + int((labels == _labels(parts[0], self.tree)).sum())
