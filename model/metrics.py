"""Accuracy by image and by product, at every level of the tree, on all and on never-seen products."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.scoring import Scores
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

ALL, NEVER_SEEN = "all", "never_seen"


@dataclass
class Tally:
    """Sums over a group of products.

    Attributes:
      products: Number of products.
      images: Number of their readable images.
      right_products: Products whose node is right, by level: int64, (levels,).
      right_images: The same of images.
      right_top5: Products whose category is among the five most probable.
    """

    products: int = 0
    images: int = 0
    right_products: Any = 0
    right_images: Any = 0
    right_top5: int = 0

    def report(self) -> dict[str, Any]:
        """Returns shares in [0, 1]; those of levels as lists from level 1 down."""
        return {
            "products": self.products,
            "images": self.images,
            "product_accuracy": _shares(self.right_products, self.products),
            "image_accuracy": _shares(self.right_images, self.images),
            "product_top5": self.right_top5 / self.products if self.products else None,
        }


def _shares(right: Any, total: int) -> list[float]:
    return [] if not total else [float(number) / total for number in np.atleast_1d(right)]


@dataclass
class Accuracy:
    """Adds up the answers for labelled products, each product once.

    Attributes:
      tree: The categories.
      seen: Sorted ids of the products that share an image with train.
      groups: The sums of each group.
      unreadable: Ids of products of which no image could be read.
    """

    tree: Taxonomy
    seen: np.ndarray
    groups: dict[str, Tally] = field(default_factory=lambda: {ALL: Tally(), NEVER_SEEN: Tally()})
    unreadable: list[int] = field(default_factory=list)

    def add(self, batch: ProductBatch, scores: Scores) -> None:
        """Counts a batch."""
        count = len(scores.num_images)
        product_ids = np.asarray(batch.product_ids)[:count]
        owners = np.asarray(batch.owners)
        truth = np.stack(
            [self.tree.ancestors(level + 1)[np.asarray(batch.labels)[:count]] for level in range(self.tree.num_levels)],
            axis=-1,
        )
        never_seen = ~np.isin(product_ids, self.seen)
        self.unreadable += product_ids[scores.num_images == 0].tolist()
        self._add_group(ALL, np.ones(count, np.bool_), truth, owners, scores)
        self._add_group(NEVER_SEEN, never_seen, truth, owners, scores)

    def _add_group(self, name: str, chosen: np.ndarray, truth: np.ndarray, owners: np.ndarray, scores: Scores) -> None:
        tally = self.groups[name]
        images = np.flatnonzero(np.append(chosen, np.zeros(len(owners) + 1, np.bool_))[owners] & (owners < len(chosen)))
        tally.products += int(chosen.sum())
        tally.images += len(images)
        tally.right_products += (scores.product_labels == truth)[chosen].sum(axis=0)
        tally.right_images += (scores.image_labels[images] == truth[owners[images]]).sum(axis=0)
        tally.right_top5 += int((scores.top_labels[:, :5] == truth[:, -1:]).any(axis=1)[chosen].sum())

    def report(self) -> dict[str, Any]:
        """Returns the accuracy of each group, and what could not be read."""
        found: dict[str, Any] = {name: tally.report() for name, tally in self.groups.items()}
        return found | {"unreadable_products": self.unreadable}


def table(report: dict[str, Any]) -> str:
    """Returns a report as a table for people."""
    levels = len(report[ALL]["product_accuracy"])
    heads = [f"level {level}" for level in range(1, levels + 1)]
    lines = [f"{'accuracy':<26}" + "".join(f"{head:>9}" for head in [*heads, "top 5"]) + f"{'of':>12}"]
    for group, title in ((ALL, "all"), (NEVER_SEEN, "images never seen")):
        content = report[group]
        by_product, by_image = (content[kind] or [None] * levels for kind in ("product_accuracy", "image_accuracy"))
        lines.append(_row(f"product, {title}", [*by_product, content["product_top5"]], content["products"]))
        lines.append(_row(f"image, {title}", [*by_image, None], content["images"]))
    return "\n".join(lines)


def _row(title: str, shares: Sequence[float | None], total: int) -> str:
    cells = "".join(f"{'':>9}" if share is None else f"{share:>9.4f}" for share in shares)
    return f"{title:<26}"[:26] + cells + f"{total:>12,}"
