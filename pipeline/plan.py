"""Stage 2 of the shard job: which product goes into which split and shard.

Works on tables of ids and offsets alone: 7 million products take about half a
gigabyte here, and no image is read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import files, hashing, schema, taxonomy
from pipeline.console import UserError
from pipeline.index import Index, Refusal
from pipeline.shard_config import ERROR, ShardConfig, WorkFolder
from pipeline.taxonomy import Taxonomy

DROPPED = 255  # Split code of a document that is skipped.
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
    config: ShardConfig, dumps: Sequence[str], indexes: Sequence[Index], tree: Taxonomy | None, work: WorkFolder
) -> dict[str, Any]:
    """Decides everything about the shards, and writes a small plan for each.

    Args:
      config: The options.
      dumps: Path of the plain BSON file of each input.
      indexes: The proven index of each.
      tree: The categories; None for a flat tree of those in the documents.
      work: Where the plans go.

    Returns:
      The totals: the dumps, number of shards, documents by split, parts of the input that
      make no product, and documents that the options say to skip.

    Raises:
      UserError: An id stands twice or a category is not in the tree, and the
        options do not say to skip such documents; or there is no document.
    """
    table = Table.of(indexes)
    if not len(table.starts):
        raise UserError(f"{', '.join(config.inputs)}: no whole document found; expected a dump by mongodump.")
    tree = tree or taxonomy.flat(np.unique(table.category_ids[table.category_ids != schema.NO_CATEGORY]).tolist())
    skipped = _repeated_ids(table, config) | _unknown_categories(table, tree, config)
    codes = split_codes(table.product_ids, table.category_ids, config.validation_fraction, config.seed)
    codes[list(skipped)] = DROPPED
    shards = _write_shard_plans(table, codes, config, work)
    tree.save(f"{work.root}/{taxonomy.FILE_NAME}")
    totals = {
        "dumps": list(dumps),
        "shards": shards,
        "splits": {split: int((codes == code).sum()) for code, split in enumerate(schema.SPLITS)},
        "refusals": [refusal for index in indexes for refusal in index.refusals],
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


def split_codes(product_ids: np.ndarray, category_ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Assigns each product to train, validation or test.

    Each category gives `fraction` of its products to validation, rounded up or
    down by chance so that the total comes out right, and keeps at least one in
    train. A product without a category belongs to test. The choice follows from
    the seed and the ids alone, not from the order of the documents.

    Args:
      product_ids: int64 of shape (products,).
      category_ids: int64 of shape (products,), or `schema.NO_CATEGORY`.
      fraction: Share of validation, in [0, 1).
      seed: Any integer.

    Returns:
      Position in `schema.SPLITS` of each product's split: uint8, (products,).
    """
    labelled = np.flatnonzero(category_ids != schema.NO_CATEGORY)
    keys = hashing.mix(product_ids[labelled], seed ^ _SPLIT_SALT)
    order = labelled[np.lexsort((product_ids[labelled], keys, category_ids[labelled]))]
    categories, firsts, counts = np.unique(category_ids[order], return_index=True, return_counts=True)
    chance = hashing.uniform(categories, seed ^ _QUOTA_SALT)
    quotas = np.minimum(np.floor(counts * fraction + chance).astype(np.int64), counts - 1)
    ranks = np.arange(len(order)) - np.repeat(firsts, counts)
    codes = np.full(len(product_ids), schema.SPLITS.index(schema.TEST), np.uint8)
    codes[order] = np.where(
        ranks < np.repeat(quotas, counts), schema.SPLITS.index(schema.VALIDATION), schema.SPLITS.index(schema.TRAIN)
    )
    return codes


@dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard.

    Attributes:
      pieces: Input number, first offset and end of each run of whole
        documents: int64 of shape (pieces, 3).
      codes: Position in `schema.SPLITS` of each document of these runs in
        order, or `DROPPED`: uint8 of shape (documents,).
    """

    pieces: np.ndarray
    codes: np.ndarray

    @classmethod
    def load(cls, path: str) -> "ShardPlan":
        """Reads the plan of a shard."""
        with np.load(io.BytesIO(files.read(path))) as content:
            return cls(content["pieces"], content["codes"])

    def save(self, path: str) -> None:
        """Writes the plan of a shard, atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, pieces=self.pieces, codes=self.codes)
        files.write(path, [buffer.getvalue()])


def _write_shard_plans(table: Table, codes: np.ndarray, config: ShardConfig, work: WorkFolder) -> int:
    """Deals the pieces out to the shards at random; returns the number of shards."""
    firsts = _piece_firsts(table, config.piece_bytes)
    lasts = np.append(firsts[1:], len(table.starts))
    pieces = np.stack([table.files[firsts], table.starts[firsts], table.ends[lasts - 1]], axis=1).astype(np.int64)
    total = int((pieces[:, 2] - pieces[:, 1]).sum())
    count = min(len(pieces), max(1, round(total / config.shard_bytes)))
    order = np.argsort(hashing.mix(np.arange(len(pieces)), config.seed ^ _PIECE_SALT), kind="stable")
    for shard in range(count):
        mine = np.sort(order[shard::count])  # In file order, so that the disk reads forward.
        documents = [codes[firsts[piece] : lasts[piece]] for piece in mine]
        ShardPlan(pieces[mine], np.concatenate(documents)).save(work.shard_plan(shard))
    return count


def _piece_firsts(table: Table, piece_bytes: int) -> np.ndarray:
    """Returns the first document of each run that is cut at multiples of `piece_bytes` and at gaps."""
    numbers = table.starts // piece_bytes
    new = (np.diff(table.files) != 0) | (np.diff(numbers) != 0) | (table.starts[1:] != table.ends[:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1])
