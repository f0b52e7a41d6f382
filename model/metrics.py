"""Accuracy by image and by product, at every level of the tree, by groups of products."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.scoring import Scores
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

ALL, NEVER_SEEN, BANDS = "all", "never_seen", "bands"
# Upper ends, exclusive, of bands of a category's products in train. Half of Cdiscount's 5,270 categories
# have fewer than 362, the mean is 2,347, and 448 have fewer than 50. The bands are the same for
# every catalogue, so that their accuracies may be compared.
_BAND_ENDS = (10, 50, 362, 2347)
_LISTED = 1000  # Ids of unreadable products that a report names; it counts all.
_TOTALS = 4  # Columns of sums before those of levels: products, images, and right answers among five.


def band_of(train_products: np.ndarray) -> np.ndarray:
    """Returns the number of the frequency band of each category: int64, (categories,).

    Args:
      train_products: Number of products of each category in train.
    """
    return np.searchsorted(_BAND_ENDS, train_products, side="right")


def band_names() -> list[str]:
    """Returns a name for each band, rarest first: "0-9" are categories of up to nine products."""
    begins = (0, *_BAND_ENDS)
    closed = [f"{begin}-{end - 1}" for begin, end in zip(begins, _BAND_ENDS, strict=False)]
    return [*closed, f"{begins[-1]}+"]


@dataclass
class Accuracy:
    """Adds up the answers for labelled products, each product once.

    Memory does not grow with the number of products.

    Attributes:
      tree: The categories.
      seen: Sorted ids of the products that share an image with train.
      train_products: Number of products of each category in train, (categories,).
      sums: What was counted, int64. A row for each group: all, never seen, and
        the bands. Columns: products, images, products with the right category
        among the five most probable, images with it; then right products by
        level, and right images by level.
      unreadable: Number of products of which no image could be read.
      unreadable_ids: Ids of the first of them.
    """

    tree: Taxonomy
    seen: np.ndarray
    train_products: np.ndarray
    sums: np.ndarray = field(init=False)
    unreadable: int = 0
    unreadable_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bands = band_of(self.train_products)
        self._ancestors = np.stack([self.tree.ancestors(level + 1) for level in range(self.tree.num_levels)], axis=-1)
        self.sums = np.zeros((2 + len(band_names()), _TOTALS + 2 * self.tree.num_levels), np.int64)

    def add(self, batch: ProductBatch, scores: Scores) -> None:
        """Counts a batch."""
        count = len(scores.num_images)
        product_ids = np.asarray(batch.product_ids)[:count]
        labels = np.asarray(batch.labels)[:count]
        self._note_unreadable(product_ids[scores.num_images == 0])
        groups = np.stack(
            [np.ones(count, np.bool_), ~self._is_seen(product_ids)]
            + [self._bands[labels] == band for band in range(len(band_names()))]
        )
        truth = self._ancestors[labels]
        owners = np.asarray(batch.owners)
        images = np.flatnonzero(owners < count)  # The others are padding, or unreadable.
        owners = owners[images]
        products = _right(truth, scores.product_labels, scores.top_labels)
        pictures = _right(truth[owners], scores.image_labels[images], scores.image_top_labels[images])
        self.sums += _interleaved(groups @ products, groups[:, owners] @ pictures)

    def _is_seen(self, product_ids: np.ndarray) -> np.ndarray:
        # np.isin would sort `seen` for every batch: 300,000 ids on all of Cdiscount.
        if not len(self.seen):
            return np.zeros(len(product_ids), np.bool_)
        places = np.searchsorted(self.seen, product_ids)
        return self.seen[np.minimum(places, len(self.seen) - 1)] == product_ids

    def _note_unreadable(self, product_ids: np.ndarray) -> None:
        self.unreadable += len(product_ids)
        self.unreadable_ids += product_ids[: _LISTED - len(self.unreadable_ids)].tolist()

    def counts(self) -> dict[str, Any]:
        """Returns what was counted, as JSON."""
        return {"sums": self.sums.tolist(), "unreadable": self.unreadable, "unreadable_ids": self.unreadable_ids}

    def set_counts(self, parts: Sequence[dict[str, Any]]) -> None:
        """Sets what was counted to the sum of some `counts`."""
        self.sums = np.sum([part["sums"] for part in parts], axis=0)
        self.unreadable = sum(part["unreadable"] for part in parts)
        self.unreadable_ids = [number for part in parts for number in part["unreadable_ids"]][:_LISTED]

    def report(self) -> dict[str, Any]:
        """Returns the accuracy of each group, and what could not be read.

        Bands without a product are left out; the others carry the number of
        their categories in the tree.
        """
        rows = [_shares(row, self.tree.num_levels) for row in self.sums]
        categories = np.bincount(self._bands, minlength=len(band_names()))
        bands = {
            name: row | {"categories": int(number)}
            for name, row, number in zip(band_names(), rows[2:], categories, strict=True)
            if row["products"]
        }
        return {
            ALL: rows[0],
            NEVER_SEEN: rows[1],
            BANDS: bands,
            "unreadable": self.unreadable,
            "unreadable_products": self.unreadable_ids,
        }


def _right(truth: np.ndarray, labels: np.ndarray, top_labels: np.ndarray) -> np.ndarray:
    """Returns a row for each answer: 1, whether right among five, whether right by level; int64."""
    among = (top_labels[:, :5] == truth[:, -1:]).any(axis=1)
    return np.column_stack([np.ones(len(truth), np.int64), among, labels == truth]).astype(np.int64)


def _interleaved(products: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns the columns of `Accuracy.sums` from those of products and those of images."""
    totals = np.stack([products[:, :2], images[:, :2]], axis=-1).reshape(len(products), _TOTALS)
    return np.concatenate([totals, products[:, 2:], images[:, 2:]], axis=1)


def _shares(row: np.ndarray, levels: int) -> dict[str, Any]:
    """Returns the report of a group: shares in [0, 1], those of levels as lists from level 1 down."""
    products, images, product_top5, image_top5 = row[:_TOTALS].tolist()
    by_product, by_image = row[_TOTALS : _TOTALS + levels].tolist(), row[_TOTALS + levels :].tolist()
    return {
        "products": products,
        "images": images,
        "product_accuracy": [right / products for right in by_product] if products else [],
        "image_accuracy": [right / images for right in by_image] if images else [],
        "product_top5": product_top5 / products if products else None,
        "image_top5": image_top5 / images if images else None,
    }


def table(report: dict[str, Any]) -> str:
    """Returns a report as a table for people."""
    lines = rows(report)
    levels = len(lines[0].shares) - 1
    heads = [f"level {level}" for level in range(1, levels + 1)]
    head = f"{'accuracy':<34}" + "".join(f"{name:>9}" for name in [*heads, "top 5"]) + f"{'of':>12}"
    return "\n".join([head, *map(_line, lines)])


@dataclass(frozen=True)
class Row:
    """A line of a report.

    Attributes:
      title: What was counted.
      shares: Accuracy at each level, and the share with the category among the
        five most probable; None where nothing was counted.
      total: Number of products or images.
    """

    title: str
    shares: tuple[float | None, ...]
    total: int


def rows(report: dict[str, Any]) -> list[Row]:
    """Returns the lines of a report: all, never seen, and by product each band."""
    levels = len(report[ALL]["product_accuracy"])
    found = []
    for group, title in ((ALL, "all"), (NEVER_SEEN, "images never seen")):
        found += [_row(kind, title, report[group], levels) for kind in ("product", "image")]
    for name, content in report.get(BANDS, {}).items():
        found.append(_row("product", f"{name} in train", content, levels))
    return found


def _row(kind: str, title: str, content: dict[str, Any], levels: int) -> Row:
    shares: Sequence[float | None] = content[f"{kind}_accuracy"] or [None] * levels
    return Row(f"{kind}, {title}", (*shares, content[f"{kind}_top5"]), content[f"{kind}s"])


def _line(row: Row) -> str:
    cells = "".join(f"{'':>9}" if share is None else f"{share:>9.4f}" for share in row.shares)
    return f"{row.title:<34}" + cells + f"{row.total:>12,}"
