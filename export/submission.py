"""The submission: every product of the test set once, in the order of ids."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from export import predictor
from pipeline import files
from pipeline.console import UserError
from pipeline.manifest import Manifest

HEADER = "_id,category_id"
_ROWS_PER_WRITE = 1 << 16


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
      path: The CSV.
      products: Number of its rows.
      unreadable: Path of the list of the products without a readable image,
        which were answered from the prior; None where there is none.
      unreadable_products: Their number.
    """

    path: str
    products: int
    unreadable: str | None
    unreadable_products: int


def write(path: str, parts: Sequence[str], data: Manifest, *, split: str) -> Submission:
    """Merges parts into a submission, after checking them against the dataset.

    Costs 20 bytes of memory a product.

    Args:
      path: Where the CSV goes.
      parts: Paths of the parts of all shards.
      data: The dataset that was predicted.
      split: Name of the split.

    Raises:
      UserError: The parts do not hold every product exactly once.
    """
    merged = predictor.Part(*map(np.concatenate, zip(*map(predictor.load_part, parts), strict=True)))
    order = np.argsort(merged.product_id, kind="stable")
    product_ids, category_ids = merged.product_id[order], merged.category_id[order]
    _check(product_ids, np.sort(data.product_ids(split)), data.folder)
    files.write(path, _rows(product_ids, category_ids))
    without = product_ids[merged.num_images[order] == 0]
    listed = _list_unreadable(path, without)
    return Submission(path, len(product_ids), listed, len(without))


def _check(found: np.ndarray, expected: np.ndarray, folder: str) -> None:
    if not np.array_equal(found, expected):
        missing, extra = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
        raise UserError(
            f"the parts hold {len(found)} products and {folder} {len(expected)}: {len(missing)} are missing "
            f"({missing[:3].tolist()}), {len(extra)} are not in it, and others repeat. Remove the folder of the "
            "parts and predict again."
        )


def _rows(product_ids: np.ndarray, category_ids: np.ndarray) -> Iterator[bytes]:
    yield f"{HEADER}\n".encode()
    for first in range(0, len(product_ids), _ROWS_PER_WRITE):
        rows = slice(first, first + _ROWS_PER_WRITE)
        pairs = zip(product_ids[rows].tolist(), category_ids[rows].tolist(), strict=True)
        yield "".join(f"{product_id},{category_id}\n" for product_id, category_id in pairs).encode()


def _list_unreadable(path: str, product_ids: np.ndarray) -> str | None:
    listed = f"{os.path.splitext(path)[0]}-unreadable.txt"
    if len(product_ids):
        files.write(listed, ["".join(f"{product_id}\n" for product_id in product_ids.tolist()).encode()])
        return listed
    if files.exists(listed) and not files.is_remote(listed):
        os.unlink(listed)  # Of an earlier prediction.
    return None
