"""Pictures that are not as expected: what to do with them, how many there were, and of which products."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from pipeline.console import UserError

CONVERT, SKIP, ERROR = "convert", "skip", "error"
_LISTED = 10_000  # Ids kept by kind; the rest is only counted.


@dataclass(frozen=True, kw_only=True)
class ImagePolicy:
    """What to do with pictures that are not as expected.

    Attributes:
      odd_images: For whole pictures that are no JPEG of the expected size in
        colour or grey (PNG, GIF, BMP, CMYK, another size): "convert", "skip" as
        if they could not be read, or "error".
      unreadable_images: For what makes no picture: "skip" or "error".
    """

    odd_images: str = CONVERT
    unreadable_images: str = SKIP

    def __post_init__(self) -> None:
        if self.odd_images not in (CONVERT, SKIP, ERROR):
            raise UserError(f"--odd_images is {self.odd_images!r}; expected convert, skip or error.")
        if self.unreadable_images not in (SKIP, ERROR):
            raise UserError(f"--unreadable_images is {self.unreadable_images!r}; expected skip or error.")


@dataclass
class ImageReport:
    """Counts odd and unreadable pictures; several threads may add to it.

    Attributes:
      counts: Number of pictures by kind, such as "unreadable" or "PNG".
      products: Ids of their products by kind, at most 10,000 each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    products: dict[str, set[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, product_id: int) -> None:
        """Counts one picture."""
        with self._lock:
            self.counts[kind] += 1
            listed = self.products.setdefault(kind, set())
            if len(listed) < _LISTED:
                listed.add(product_id)

    def summary(self) -> str:
        """Returns one line for people; empty where every picture was as expected."""
        return ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))

    def to_json(self) -> dict[str, object]:
        """Returns counts and product ids by kind, as plain values."""
        return {kind: {"images": count, "products": sorted(self.products[kind])} for kind, count in self.counts.items()}
