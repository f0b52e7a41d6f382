"""Stage 2 of the shard job: which product goes into which split and shard.

Works on tables of ids and offsets alone: 7 million products take about half a
gigabyte here, and no image is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import files, hashing, schema, taxonomy
from pipeline.console import UserError
from pipeline.index import Index, Refusal
from pipeline.pieces import Pieces
from pipeline.shard_config import ERROR, ShardConfig, WorkFolder
from pipeline.taxonomy import Taxonomy

DROPPED = 255  # Split code of a document that is skipped.
_DIGEST_BYTES = 128 << 20  # Read by a task at a time.
_SHOWN = 5  # Examples named in an error.
# Seeds of independent choices are kept apart by these.
_SPLIT_SALT, _QUOTA_SALT, _PIECE_SALT = 0x51, 0x52, 0x53


@dataclass(frozen=True)
class Table:
    """All whole documents of all inputs, in order.

    Attributes:
      files: Number of the input: int32 of shape (documents,), like all below.
      starts: Offset of the first byte, int64.
      ends: Offset after the last byte, int64.
      product_ids: int64.
      category_ids: int64, or `schema.NO_CATEGORY`.
    """

    files: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    product_ids: np.ndarray
    category_ids: np.ndarray

    @classmethod
    def of(cls, indexes: Sequence[Index]) -> "Table":
        """Joins the proven indexes of the inputs."""
        numbers = [np.full(len(index.starts), number, np.int32) for number, index in enumerate(indexes)]
        columns = ("starts", "ends", "product_ids", "category_ids")
        joined = [np.concatenate([getattr(index, name) for index in indexes]) for name in columns]
        return cls(np.concatenate(numbers), *joined)


def make_plan(
    config: ShardConfig,
    table: Table,
    refusals: Sequence[Refusal],
    tree: Taxonomy | None,
    work: WorkFolder,
    *,
    clusters: np.ndarray | None = None,
) -> dict[str, Any]:
    """Decides everything about the shards, and writes a small plan for each.

    Args:
      config: The options.
      table: All whole documents.
      refusals: The parts of the inputs between them.
      tree: The categories; None for a flat tree of those in the documents.
      work: Where the plans go.
      clusters: Number of each document's cluster, which stays in one split;
        None to decide for each document alone.

    Returns:
      The totals: number of shards, documents by split, parts of the input that
      make no product, and documents that the options say to skip.

    Raises:
      UserError: An id stands twice or a category is not in the tree, and the
        options do not say to skip such documents; or there is no document.
    """
    if not len(table.starts):
        raise UserError(f"{', '.join(config.inputs)}: no whole document found; expected a dump by mongodump.")
    tree = tree or taxonomy.flat(np.unique(table.category_ids[table.category_ids != schema.NO_CATEGORY]).tolist())
    skipped = _repeated_ids(table, config) | _unknown_categories(table, tree, config)
    codes = split_codes(
        table.product_ids, table.category_ids, config.validation_fraction, config.seed, clusters=clusters
    )
    codes[list(skipped)] = DROPPED
    shards = _write_shard_plans(table, codes, config, work)
    tree.save(f"{work.root}/{taxonomy.FILE_NAME}")
    totals = {
        "shards": shards,
        "splits": {split: int((codes == code).sum()) for code, split in enumerate(schema.SPLITS)},
        "refusals": list(refusals),
        "skipped": [_refusal(table, number, reason) for number, reason in sorted(skipped.items())],
    }
    files.write_json(work.plan, totals)
    return totals


def _refusal(table: Table, number: int, reason: str) -> Refusal:
    return Refusal(int(table.files[number]), int(table.starts[number]), int(table.ends[number]), reason)


def _repeated_ids(table: Table, config: ShardConfig) -> dict[int, str]:
    """Returns the documents whose id an earlier document has, and why they are refused."""
    order = np.argsort(table.product_ids, kind="stable")
    ordered = table.product_ids[order]
    repeated = np.sort(order[1:][ordered[1:] == ordered[:-1]])
    if len(repeated) and config.duplicate_ids == ERROR:
        shown = ", ".join(map(str, np.unique(table.product_ids[repeated])[:_SHOWN]))
        raise UserError(
            f"{len(repeated)} documents repeat the id of an earlier one ({shown}, ...); expected each id once. "
            "Mend the dump, or keep the first of each with --duplicate_ids=skip."
        )
    return {number: f"the id {table.product_ids[number]} stands in an earlier document" for number in repeated.tolist()}


def _unknown_categories(table: Table, tree: Taxonomy, config: ShardConfig) -> dict[int, str]:
    known = np.array([*tree.category_ids, schema.NO_CATEGORY], np.int64)
    unknown = np.flatnonzero(~np.isin(table.category_ids, known))
    if len(unknown) and config.unknown_categories == ERROR:
        categories = np.unique(table.category_ids[unknown])
        shown = ", ".join(map(str, categories[:_SHOWN]))
        raise UserError(
            f"{len(unknown)} documents are of {len(categories)} categories ({shown}, ...) that are not among the "
            f"{tree.num_categories} of {config.categories}; give the right tree with --categories, or leave these "
            "documents out with --unknown_categories=skip."
        )
    return {number: f"the category {table.category_ids[number]} is not in the tree" for number in unknown.tolist()}


def split_codes(
    product_ids: np.ndarray,
    category_ids: np.ndarray,
    fraction: float,
    seed: int,
    *,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns each product to train, validation or test.

    Each category gives `fraction` of its products to validation, rounded up or
    down by chance so that the total comes out right, and keeps at least one in
    train. A product without a category belongs to test. The choice follows from
    the seed and the ids alone, not from the order of the documents.

    Products of a cluster go to the same split. A cluster counts for the category
    of its product with the lowest id; one that is larger than what the category
    may give stays in train.

    Args:
      product_ids: int64 of shape (products,).
      category_ids: int64 of shape (products,), or `schema.NO_CATEGORY`.
      fraction: Share of validation, in [0, 1).
      seed: Any integer.
      clusters: Number of each product's cluster, int64 of shape (products,);
        None where each is its own.

    Returns:
      Position in `schema.SPLITS` of each product's split: uint8, (products,).
    """
    train, validation, test = map(schema.SPLITS.index, (schema.TRAIN, schema.VALIDATION, schema.TEST))
    codes = np.full(len(product_ids), test, np.uint8)
    labelled = np.flatnonzero(category_ids != schema.NO_CATEGORY)
    labelled = labelled[np.argsort(product_ids[labelled], kind="stable")]
    own = np.arange(len(labelled)) if clusters is None else clusters[labelled]
    _, leaders, members, sizes = np.unique(own, return_index=True, return_inverse=True, return_counts=True)
    ids, categories = product_ids[labelled][leaders], category_ids[labelled]
    held_out = _held_out(ids, categories[leaders], sizes, _quotas(categories, fraction, seed), seed)[members]
    if clusters is not None:
        held_out &= ~_bare_clusters(members, categories, held_out)[members]
    codes[labelled] = np.where(held_out, validation, train)
    return codes


def _quotas(categories: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories, sorted, and how many products each may give to validation."""
    found, counts = np.unique(categories, return_counts=True)
    chance = hashing.uniform(found, seed ^ _QUOTA_SALT)
    return found, np.minimum(np.floor(counts * fraction + chance).astype(np.int64), counts - 1)


def _held_out(
    ids: np.ndarray, categories: np.ndarray, sizes: np.ndarray, quotas: tuple[np.ndarray, np.ndarray], seed: int
) -> np.ndarray:
    """Returns which clusters go to validation: in random order as many of each category as its quota takes."""
    room = quotas[1][np.searchsorted(quotas[0], categories)]
    small = np.flatnonzero(sizes <= room)
    order = small[np.lexsort((ids[small], hashing.mix(ids[small], seed ^ _SPLIT_SALT), categories[small]))]
    total = np.cumsum(sizes[order])
    new = np.diff(categories[order], prepend=-2) != 0  # No category is -2.
    before = np.maximum.accumulate(np.where(new, total - sizes[order], 0))
    chosen = np.zeros(len(ids), np.bool_)
    chosen[order] = total - before <= room[order]
    return chosen


def _bare_clusters(members: np.ndarray, categories: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Returns the clusters that hold products of a category of which train would have none."""
    bare = np.setdiff1d(categories, categories[~held_out])
    clusters = np.zeros(members.max(initial=-1) + 1, np.bool_)
    clusters[members[np.isin(categories, bare)]] = True
    return clusters


def _write_shard_plans(table: Table, codes: np.ndarray, config: ShardConfig, work: WorkFolder) -> int:
    """Deals the pieces out to the shards at random; returns the number of shards."""
    firsts, lasts, pieces = _cut(table, config.piece_bytes)
    total = int((pieces[:, 2] - pieces[:, 1]).sum())
    count = min(len(pieces), max(1, round(total / config.shard_bytes)))
    order = np.argsort(hashing.mix(np.arange(len(pieces)), config.seed ^ _PIECE_SALT), kind="stable")
    for shard in range(count):
        mine = np.sort(order[shard::count])  # In file order, so that the disk reads forward.
        documents = [codes[firsts[piece] : lasts[piece]] for piece in mine]
        Pieces(pieces[mine], np.concatenate(documents)).save(work.shard_plan(shard))
    return count


def _cut(table: Table, piece_bytes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first document of each piece, the one after its last, and its range."""
    firsts = _piece_firsts(table, piece_bytes)
    lasts = np.append(firsts[1:], len(table.starts))
    ranges = np.stack([table.files[firsts], table.starts[firsts], table.ends[lasts - 1]], axis=1).astype(np.int64)
    return firsts, lasts, ranges


def write_digest_pieces(table: Table, work: WorkFolder) -> int:
    """Writes what each task of digesting reads, all documents in order; returns the number of tasks."""
    firsts, lasts, ranges = _cut(table, _DIGEST_BYTES)
    for task in range(len(firsts)):
        codes = np.zeros(lasts[task] - firsts[task], np.uint8)
        Pieces(ranges[task : task + 1], codes).save(work.digest_pieces(task))
    return len(firsts)


def _piece_firsts(table: Table, piece_bytes: int) -> np.ndarray:
    """Returns the first document of each run that is cut at multiples of `piece_bytes` and at gaps."""
    numbers = table.starts // piece_bytes
    new = (np.diff(table.files) != 0) | (np.diff(numbers) != 0) | (table.starts[1:] != table.ends[:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1])
