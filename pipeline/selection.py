"""Which products an epoch trains on: all, a share, some categories, a disjoint part, or a balanced draw.

All of it follows from product ids, labels, the seed and the number of the
epoch, so that every host, and a run that continues, choose alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import hashing, schema
from pipeline.console import UserError
from pipeline.manifest import Manifest

_DRAW_SALT, _PART_SALT = 0x63, 0x64
_TOP = re.compile(r"^top:(\d+)$")
_PART = re.compile(r"^(\d+)/(\d+)$")


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """What is trained on.

    Attributes:
      sample_fraction: Share of the products in an epoch, in (0, 1]. Each epoch
        takes the next share, so that 1 / sample_fraction epochs see all.
      only_categories: Category ids, comma-separated, or "top:N" for the N with
        most products in train; empty for all. Validation keeps to them too.
      data_shard: "K/N", the K-th of N disjoint parts of the products, from
        1/N to N/N, for ensembles; empty for all.
      balance: 0 draws products as they are; 1 draws every category equally
        often; between them, category c with n products is drawn in
        proportion to n^(1 - balance). An epoch keeps its size.
    """

    sample_fraction: float = 1.0
    only_categories: str = ""
    data_shard: str = ""
    balance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sample_fraction <= 1:
            raise UserError(f"--sample_fraction is {self.sample_fraction}; expected a number above 0, up to 1.")
        if not 0 <= self.balance <= 1:
            raise UserError(f"--balance is {self.balance}; expected a number in [0, 1].")
        if self.data_shard:
            part = _PART.match(self.data_shard)
            if not part or not 1 <= int(part[1]) <= int(part[2]):
                raise UserError(f"--data_shard is {self.data_shard!r}; expected K/N, from 1/N to N/N, such as 3/50.")

    @property
    def takes_all(self) -> bool:
        """Tells whether an epoch has every product once."""
        return self.sample_fraction == 1 and not (self.only_categories or self.data_shard or self.balance)


class Selection:
    """The chosen products of a dataset's train split.

    Args:
      data: The dataset.
      config: What is trained on.
      seed: Determines shares and parts.

    Raises:
      UserError: A category that is named is not in the tree.
    """

    def __init__(self, data: Manifest, config: SelectionConfig, *, seed: int = 0) -> None:
        self._config, self._seed = config, seed
        tree = data.taxonomy()
        self._products = data.products_per_category(schema.TRAIN)
        self.chosen = np.zeros(tree.num_categories, np.bool_)
        self.chosen[_labels(config.only_categories, self._products, tree.label_of)] = True
        self._weights = self._label_weights()

    def _label_weights(self) -> np.ndarray:
        """Returns how often a product of each category stands in an epoch, on average."""
        counts = np.where(self.chosen, self._products, 0).astype(np.float64)
        drawn = np.power(counts, 1 - self._config.balance, where=counts > 0, out=np.zeros_like(counts))
        weights = np.divide(drawn, counts, where=counts > 0, out=np.zeros_like(counts))
        return weights * (self._config.sample_fraction * counts.sum() / max(drawn.sum(), 1e-300))

    def copies(self, product_ids: np.ndarray, labels: np.ndarray, epoch: int) -> np.ndarray:
        """Returns how often each product stands in an epoch.

        Systematic sampling (Madow and Madow, "On the theory of systematic
        sampling", 1944): with weight w and a random start u in [0, 1), a product
        stands floor(u + (epoch + 1) w) - floor(u + epoch w) times.

        Args:
          product_ids: int64 of shape (products,).
          labels: Label at the last level, integers of shape (products,).
          epoch: Number of the epoch, from 0.

        Returns:
          int64 of shape (products,).
        """
        start = hashing.uniform(product_ids, self._seed ^ _DRAW_SALT)
        weight = self._weights[labels]
        counts = (np.floor(start + (epoch + 1) * weight) - np.floor(start + epoch * weight)).astype(np.int64)
        return counts * self._in_part(product_ids)

    def _in_part(self, product_ids: np.ndarray) -> np.ndarray:
        part = _PART.match(self._config.data_shard)
        if not part:
            return np.ones(len(product_ids), np.bool_)
        number, total = int(part[1]), int(part[2])
        return np.floor(hashing.uniform(product_ids, self._seed ^ _PART_SALT) * total) == number - 1

    def images_per_epoch(self, product_ids: np.ndarray, labels: np.ndarray, num_images: np.ndarray) -> int:
        """Returns the number of images of an epoch, on average over the epochs, from the columns of all products."""
        return int(float((self._weights[labels] * num_images * self._in_part(product_ids)).sum()) + 1e-6)


def _labels(text: str, products: np.ndarray, label_of: dict[int, int]) -> Sequence[int]:
    top = _TOP.match(text)
    if top:
        return np.argsort(-products, kind="stable")[: int(top[1])].tolist()
    if not text:
        return range(len(products))
    categories = _category_ids(text)
    unknown = [category for category in categories if category not in label_of]
    if unknown:
        raise UserError(
            f"--only_categories names {unknown[0]}, which is none of the {len(label_of)} categories of the tree; "
            "expected ids as in the CSV of the tree."
        )
    return [label_of[category] for category in categories]


def _category_ids(text: str) -> list[int]:
    try:
        return [int(category) for category in text.split(",")]
    except ValueError:
        raise UserError(
            f"--only_categories is {text[:100]!r}; expected category ids, comma-separated, or top:N. "
            "Those in a file are --only_categories=$(paste -sd, FILE)."
        ) from None
