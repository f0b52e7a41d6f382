"""Stage 2 of the shard job: which product goes into which split and shard.

Works on tables of ids and offsets alone: 7 million products take about half a
gigabyte here, and no image is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import files, hashing, schema, splits, taxonomy
from pipeline.console import UserError
from pipeline.index import Index, Refusal
from pipeline.pieces import Pieces
from pipeline.shard_config import ERROR, ShardConfig, WorkFolder
from pipeline.taxonomy import Taxonomy

DROPPED = 255  # Split code of a document that is skipped.
_DIGEST_BYTES = 128 << 20  # Read by a task at a time.
_SHOWN = 5  # Examples named in an error.
_PIECE_SALT = 0x53  # Keeps apart the seeds of independent choices.


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
    codes = splits.codes(table.product_ids, table.category_ids, config, clusters=clusters)
    codes[list(skipped)] = DROPPED
    shards = _write_shard_plans(table, codes, config, work)
    tree.save(f"{work.root}/{taxonomy.FILE_NAME}")
    totals = {
        "shards": shards,
        "splits": {split: int((codes == code).sum()) for code, split in enumerate(splits.names(config))},
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
