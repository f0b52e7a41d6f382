"""The submission: every product of the test set once, in the order of ids."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from export.scores import ScoreStore
from pipeline import files
from pipeline.console import UserError
from pipeline.taxonomy import Taxonomy

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

    def summary(self) -> str:
        """Returns a line or two for people."""
        lines = [f"Wrote {self.path}: {self.products:,} products."]
        if self.unreadable:
            lines.insert(
                0,
                f"{self.unreadable_products:,} products have no readable image and got the most frequent category; "
                f"they are listed in {self.unreadable}.",
            )
        return "\n".join(lines)


class Best(NamedTuple):
    """The best category of some products, in any order.

    Attributes:
      product_id: int64 of shape (products,).
      labels: As positions in the tree's `category_ids`, integers of the same shape.
      num_images: Number of readable images, int32 of the same shape; where it
        is 0, the answer is that of the prior.
    """

    product_id: np.ndarray
    labels: np.ndarray
    num_images: np.ndarray


def best_of(store: ScoreStore) -> Iterator[Best]:
    """Yields the best category of each product of a store, shard by shard."""
    return (Best(part.product_id, part.labels[:, 0], part.num_images) for part in store.parts())


def write(path: str, found: Iterable[Best], tree: Taxonomy, *, products: int) -> Submission:
    """Writes the best category of every product.

    Costs 20 bytes of memory a product.

    Args:
      path: Where the CSV goes.
      found: The answers, shard by shard.
      tree: The categories, in the order of the labels.
      products: Number of products that there must be.

    Raises:
      UserError: A product is missing or stands in the answers twice.
    """
    product_ids, labels, without = _gathered(found, products)
    order = np.argsort(product_ids, kind="stable")
    files.write(path, _rows(product_ids, labels, order, np.array(tree.category_ids, np.int64)))
    listed = _list_unreadable(path, np.sort(without))
    return Submission(path, len(product_ids), listed, len(without))


def _gathered(found: Iterable[Best], products: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids and labels of all products, and the ids of those without a readable image."""
    product_ids, labels = np.empty(products, np.int64), np.empty(products, np.int32)
    without = [np.empty(0, np.int64)]
    end = 0
    for best in found:
        begin, end = end, end + len(best.product_id)
        if end > products:
            break
        product_ids[begin:end], labels[begin:end] = best.product_id, best.labels
        without.append(best.product_id[best.num_images == 0])
    if end != products:
        raise UserError(f"there are answers for {end} products or more; expected {products}. Predict again.")
    return product_ids, labels, np.concatenate(without)


def _rows(product_ids: np.ndarray, labels: np.ndarray, order: np.ndarray, category_ids: np.ndarray) -> Iterator[bytes]:
    yield f"{HEADER}\n".encode()
    last = None
    for first in range(0, len(order), _ROWS_PER_WRITE):
        rows = order[first : first + _ROWS_PER_WRITE]
        ids = product_ids[rows]
        _check_once(ids, last)
        last = ids[-1]
        pairs = zip(ids.tolist(), category_ids[labels[rows]].tolist(), strict=True)
        yield "".join(f"{product_id},{category_id}\n" for product_id, category_id in pairs).encode()


def _check_once(ids: np.ndarray, before: np.int64 | None) -> None:
    repeated = ids[1:][ids[1:] == ids[:-1]].tolist() + ([before] if before == ids[0] else [])
    if repeated:
        raise UserError(f"product {repeated[0]} stands in the answers twice; remove their folder and predict again.")


def _list_unreadable(path: str, product_ids: np.ndarray) -> str | None:
    listed = f"{os.path.splitext(path)[0]}-unreadable.txt"
    if len(product_ids):
        files.write(listed, ["".join(f"{product_id}\n" for product_id in product_ids.tolist()).encode()])
        return listed
    if files.exists(listed) and not files.is_remote(listed):
        os.unlink(listed)  # Of an earlier prediction.
    return None
