"""Which product goes into which split: by product or by cluster, stratified by category."""

from typing import NamedTuple

import numpy as np

from pipeline import hashing, schema
from pipeline.shard_config import ShardConfig

# Keep apart the seeds of independent choices.
_SPLIT_SALT, _QUOTA_SALT = 0x51, 0x52


def names(config: ShardConfig) -> tuple[str, ...]:
    """Returns the names of the splits, in the order of their codes."""
    if config.folds:
        return (*map(schema.fold_name, range(config.folds)), schema.TEST)
    return schema.SPLITS


def codes(
    product_ids: np.ndarray, category_ids: np.ndarray, config: ShardConfig, *, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Assigns each product to a split.

    A product without a category belongs to test. Each category gives a share of
    its products to validation, rounded up or down by chance so that the total
    comes out right, and keeps at least one in train; or its products are dealt
    out to folds evenly. The choice follows from the seed and the ids alone, not
    from the order of the documents.

    Products of a cluster go to the same split. A cluster counts for the category
    of its product with the lowest id; one that is larger than what the category
    may give to validation stays in train.

    Args:
      product_ids: int64 of shape (products,).
      category_ids: int64 of shape (products,), or `schema.NO_CATEGORY`.
      config: Gives the share of validation or the number of folds, and the seed.
      clusters: Number of each product's cluster, int64 of shape (products,);
        None where each is its own.

    Returns:
      Position in `names` of each product's split: uint8, (products,).
    """
    found = np.full(len(product_ids), len(names(config)) - 1, np.uint8)
    labelled = np.flatnonzero(category_ids != schema.NO_CATEGORY)
    labelled = labelled[np.argsort(product_ids[labelled], kind="stable")]
    own = np.arange(len(labelled)) if clusters is None else clusters[labelled]
    _, leaders, members, sizes = np.unique(own, return_index=True, return_inverse=True, return_counts=True)
    categories = category_ids[labelled]
    groups = _Groups(product_ids[labelled][leaders], categories[leaders], sizes)
    if config.folds:
        found[labelled] = _folds(groups, config.folds, config.seed)[members]
        return found
    held_out = _held_out(groups, _quotas(categories, config.validation_fraction, config.seed), config.seed)[members]
    if clusters is not None:
        held_out &= ~_bare_clusters(members, categories, held_out)[members]
    found[labelled] = held_out
    return found


class _Groups(NamedTuple):
    """Clusters of products: their lowest ids, the categories of these, and numbers of products."""

    ids: np.ndarray
    categories: np.ndarray
    sizes: np.ndarray

    def shuffled(self, chosen: np.ndarray, seed: int) -> np.ndarray:
        """Returns some groups category by category, in random order within each."""
        ids = self.ids[chosen]
        return chosen[np.lexsort((ids, hashing.mix(ids, seed ^ _SPLIT_SALT), self.categories[chosen]))]


def _folds(groups: _Groups, folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each group: those of a category go round, from a fold by chance."""
    order = groups.shuffled(np.arange(len(groups.ids)), seed)
    categories, firsts, counts = np.unique(groups.categories[order], return_index=True, return_counts=True)
    begins = np.floor(hashing.uniform(categories, seed ^ _QUOTA_SALT) * folds).astype(np.int64)
    found = np.empty(len(order), np.int64)
    found[order] = (np.arange(len(order)) - np.repeat(firsts - begins, counts)) % folds
    return found


def _quotas(categories: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories, sorted, and how many products each may give to validation."""
    found, counts = np.unique(categories, return_counts=True)
    chance = hashing.uniform(found, seed ^ _QUOTA_SALT)
    return found, np.minimum(np.floor(counts * fraction + chance).astype(np.int64), counts - 1)


def _held_out(groups: _Groups, quotas: tuple[np.ndarray, np.ndarray], seed: int) -> np.ndarray:
    """Returns which groups go to validation: in random order as many of each category as its quota takes."""
    room = quotas[1][np.searchsorted(quotas[0], groups.categories)]
    order = groups.shuffled(np.flatnonzero(groups.sizes <= room), seed)
    sizes, categories = groups.sizes[order], groups.categories[order]
    total = np.cumsum(sizes)
    new = np.ones(len(order), np.bool_)
    new[1:] = categories[1:] != categories[:-1]
    before = np.maximum.accumulate(np.where(new, total - sizes, 0))
    chosen = np.zeros(len(groups.ids), np.bool_)
    chosen[order] = total - before <= room[order]
    return chosen


def _bare_clusters(members: np.ndarray, categories: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Returns the clusters that hold products of a category of which train would have none."""
    bare = np.setdiff1d(categories, categories[~held_out])
    clusters = np.zeros(members.max(initial=-1) + 1, np.bool_)
    clusters[members[np.isin(categories, bare)]] = True
    return clusters
