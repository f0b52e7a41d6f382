"""A made-up category tree with the proportions of Cdiscount's: 49 : 486 : 5,270."""

import csv
import io

import numpy as np

from pipeline import hashing
from pipeline.taxonomy import Taxonomy

_LEAVES_PER_TOP, _LEAVES_PER_MIDDLE = 107, 11
_ID_BASE, _ID_STEP = 1_000_000_000, 7
_ROOMS = (
    "KITCHEN", "GARDEN", "OFFICE", "NURSERY", "BATHROOM", "GARAGE", "LIVING ROOM", "BEDROOM", "SPORTS",
    "MUSIC", "TOYS", "COMPUTING", "PHONES", "SHOES", "JEWELLERY", "BOOKS", "GROCERY", "WINE", "PETS", "TRAVEL",
    "LIGHTING", "TOOLS", "CAMPING", "CYCLING", "PHOTOGRAPHY",
)  # fmt: skip
_KINDS = (
    "CONTAINERS", "COVERS", "HOLDERS", "FURNITURE", "DECORATION", "MACHINES", "ACCESSORIES", "SPARE PARTS",
    "STORAGE", "TEXTILES", "CARE", "SETS", "PROTECTION", "FITTINGS", "CABLES", "GAMES", "BAGS", "INSTRUMENTS",
)  # fmt: skip
_ITEMS = (
    "BOX", "CASE", "FRAME", "STAND", "LAMP", "BOTTLE", "BASKET", "CLOCK", "TRAY", "CUSHION", "RACK", "BRUSH",
    "PAN", "TIMER", "MIRROR", "CUP", "BELT", "HOOK", "STRAP", "CHARGER",
)  # fmt: skip
_STYLES = (
    "ROUND", "TALL", "FOLDING", "SMALL", "DOUBLE", "CLASSIC", "STRIPED", "LIGHT", "HEAVY", "PORTABLE", "SOFT",
    "MODERN", "GLASS", "WOODEN", "STEEL",
)  # fmt: skip


def make(num_categories: int, seed: int) -> Taxonomy:
    """Makes up a tree of three levels.

    Names repeat under different parents, some nodes have one child, and ids are
    in no order, as in Cdiscount's.

    Args:
      num_categories: Number of leaves, 1 or more.
      seed: Any integer.
    """
    leaves = np.arange(num_categories)
    tops = _uneven_groups(leaves, max(1, round(num_categories / _LEAVES_PER_TOP), min(3, num_categories // 3)), seed)
    middles = _uneven_groups(
        leaves, max(1, round(num_categories / _LEAVES_PER_MIDDLE), min(8, num_categories // 2)), seed + 1
    )
    nodes = sorted(set(zip(tops.tolist(), middles.tolist(), strict=True)))
    place = {node: number for number, node in enumerate(nodes)}
    paths = [
        (_name(top, _ROOMS), _name(place[top, middle] % (len(_KINDS) + top), _KINDS), _leaf_name(int(leaf)))
        for leaf, top, middle in zip(leaves, tops.tolist(), middles.tolist(), strict=True)
    ]
    order = np.argsort(hashing.mix(leaves, seed + 2))
    return Taxonomy(tuple((_ID_BASE + _ID_STEP * order).tolist()), tuple(paths))


def _uneven_groups(leaves: np.ndarray, groups: int, seed: int) -> np.ndarray:
    """Returns a group for each leaf: consecutive, of uneven sizes, none empty."""
    sizes = 0.15 + hashing.uniform(np.arange(groups), seed) ** 2
    edges = np.cumsum(sizes) / sizes.sum()
    found = np.searchsorted(edges, (leaves + 0.5) / len(leaves))
    return np.unique(np.minimum(found, groups - 1), return_inverse=True)[1]


def _name(number: int, words: tuple[str, ...]) -> str:
    repeat = number // len(words)
    return words[number % len(words)] + (f" {repeat + 1}" if repeat else "")


def _leaf_name(number: int) -> str:
    pairs = len(_ITEMS) * len(_STYLES)
    style = _STYLES[number // len(_ITEMS) % len(_STYLES)]
    return f"{style} {_ITEMS[number % len(_ITEMS)]}" + (f" {number // pairs + 1}" if number >= pairs else "")


def sample(tree: Taxonomy, num_categories: int) -> Taxonomy:
    """Returns a tree of some categories, spread evenly over those of a larger one."""
    chosen = np.linspace(0, tree.num_categories - 1, num_categories).round().astype(int).tolist()
    return Taxonomy(tuple(tree.category_ids[i] for i in chosen), tuple(tree.paths[i] for i in chosen))


def to_csv(tree: Taxonomy) -> bytes:
    """Returns a tree in the form of Cdiscount's `category_names.csv`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["category_id", *(f"category_level{level}" for level in range(1, tree.num_levels + 1))])
    writer.writerows([category_id, *path] for category_id, path in zip(tree.category_ids, tree.paths, strict=True))
    return text.getvalue().encode()
