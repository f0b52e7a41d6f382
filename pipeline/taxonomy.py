"""The category tree: paths, dense labels of every level, its file on disk.

A node is its path from the root, never its name: Cdiscount has 486 nodes at
level 2 under 483 distinct names.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline import files, schema
from pipeline.console import UserError

FILE_NAME = "taxonomy.json"
_ID_COLUMN = "category_id"
_LEVEL_COLUMN = "category_level"


@dataclass(frozen=True)
class Taxonomy:
    """A tree whose leaves are the categories, all at the same depth.

    Dense labels of a level number its nodes from 0, in the order in which the
    categories name them first; the label of the last level is the position of
    the category in `category_ids`.

    Attributes:
      category_ids: Identifier of each category, in the order of dense labels.
      paths: Names from level 1 down to the category, for each category.
    """

    category_ids: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.category_ids) != len(self.paths):
            raise ValueError(
                f"{len(self.category_ids)} category ids stand beside {len(self.paths)} paths; "
                "expected one path for each id."
            )
        if len(set(self.category_ids)) != len(self.category_ids):
            raise ValueError("a category id stands twice in the tree; expected each id once.")
        if len(set(self.paths)) != len(self.paths):
            raise ValueError("two categories share a path; expected a path of its own for each.")
        if len({len(path) for path in self.paths}) > 1 or () in self.paths:
            raise ValueError("expected paths that all have the same length, of 1 or more.")

    @property
    def num_categories(self) -> int:
        """Number of leaves."""
        return len(self.category_ids)

    @property
    def num_levels(self) -> int:
        """Depth of the tree: 3 for Cdiscount, 0 for a tree without categories."""
        return len(self.paths[0]) if self.paths else 0

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Dense label (of the last level) by category id."""
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    def labels(self, category_ids: np.ndarray) -> np.ndarray:
        """Returns the label, at the last level, of each category id; `schema.NO_CATEGORY` where the tree has it not.

        Args:
          category_ids: int64 of any shape.

        Returns:
          int32 of the same shape.
        """
        if not self.num_categories:
            return np.full(category_ids.shape, schema.NO_CATEGORY, np.int32)
        ids = np.array(self.category_ids, np.int64)
        order = np.argsort(ids, kind="stable")
        labels = order[np.minimum(np.searchsorted(ids, category_ids, sorter=order), len(ids) - 1)]
        return np.where(ids[labels] == category_ids, labels, schema.NO_CATEGORY).astype(np.int32)

    @cached_property
    def _levels(self) -> tuple[tuple[tuple[tuple[str, ...], ...], np.ndarray], ...]:
        return tuple(self._number_nodes(depth) for depth in range(1, self.num_levels + 1))

    def _number_nodes(self, depth: int) -> tuple[tuple[tuple[str, ...], ...], np.ndarray]:
        number: dict[tuple[str, ...], int] = {}
        labels = [number.setdefault(path[:depth], len(number)) for path in self.paths]
        return tuple(number), np.array(labels, np.int32)

    def nodes(self, level: int) -> tuple[tuple[str, ...], ...]:
        """Returns the paths of the nodes at a level (from 1), by dense label."""
        return self._levels[level - 1][0]

    def node_names(self, level: int) -> list[str]:
        """Returns one readable, unique name for each node at a level."""
        return [" > ".join(path) for path in self.nodes(level)]

    def ancestors(self, level: int) -> np.ndarray:
        """Returns the label at `level` of each category: int32, shape (num_categories,)."""
        return self._levels[level - 1][1]

    @cached_property
    def fingerprint(self) -> str:
        """Digest that two trees share exactly when their labels mean the same."""
        return hashlib.sha256(self._json().encode()).hexdigest()[:16]

    def _json(self) -> str:
        value = {"category_ids": self.category_ids, "paths": self.paths}
        return json.dumps(value, ensure_ascii=False, indent=0)

    def save(self, path: str) -> None:
        """Writes the tree as JSON, atomically."""
        files.write(path, [self._json().encode()])

    @classmethod
    def load(cls, path: str) -> "Taxonomy":
        """Reads a tree that `save` wrote."""
        value = files.read_json(path)
        return cls(tuple(value["category_ids"]), tuple(map(tuple, value["paths"])))


def flat(category_ids: Iterable[int]) -> Taxonomy:
    """Returns a tree of one level, for a catalogue that comes without one."""
    ordered = sorted(set(category_ids))
    return Taxonomy(tuple(ordered), tuple((str(category_id),) for category_id in ordered))


def from_csv(path: str) -> Taxonomy:
    """Reads a tree in the form of Cdiscount's `category_names.csv`.

    Args:
      path: A CSV in UTF-8 with a header: `category_id`, then one column for
        each level (`category_level1`, `category_level2`, ...), in any order.

    Raises:
      UserError: A column is missing, a row is short, an id is no number, or a
        category stands twice.
    """
    text = files.read(path).decode("utf-8-sig")
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(rows, [])]
    levels = sorted((name for name in header if _is_level(name)), key=lambda name: int(name[len(_LEVEL_COLUMN) :]))
    if _ID_COLUMN not in header or not levels:
        raise UserError(
            f"{path} has the columns {', '.join(header) or '(none)'}; expected {_ID_COLUMN}, "
            f"{_LEVEL_COLUMN}1, {_LEVEL_COLUMN}2, ... as in Cdiscount's category_names.csv."
        )
    columns = [header.index(name) for name in (_ID_COLUMN, *levels)]
    parsed = [_parse_row(path, rows.line_num, row, columns) for row in rows if row]
    return _build(path, parsed)


def _is_level(name: str) -> bool:
    return name.startswith(_LEVEL_COLUMN) and name[len(_LEVEL_COLUMN) :].isdigit()


def _parse_row(path: str, line: int, row: Sequence[str], columns: Sequence[int]) -> tuple[int, tuple[str, ...]]:
    try:
        cells = [row[column].strip() for column in columns]
        return int(cells[0]), tuple(cells[1:])
    except (IndexError, ValueError):
        raise UserError(
            f"{path}, line {line}: {row!r} is no category; expected an integer id and a name for each level."
        ) from None


def _build(csv_path: str, parsed: Sequence[tuple[int, tuple[str, ...]]]) -> Taxonomy:
    seen: set[tuple[str, ...]] = set()
    paths = []
    for category_id, names in parsed:
        # Two categories of one name stay two categories.
        path = (*names[:-1], f"{names[-1]} ({category_id})") if names in seen else names
        seen.add(path)
        paths.append(path)
    try:
        return Taxonomy(tuple(category_id for category_id, _ in parsed), tuple(paths))
    except ValueError as error:
        raise UserError(f"{csv_path}: {error}") from None
