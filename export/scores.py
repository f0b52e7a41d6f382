"""Score stores: the best categories of every product, on disk, shard by shard.

A prediction writes one for each run, and an ensemble reads them. The format is
described in docs/scores.md.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pipeline import files, manifest, taxonomy
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.taxonomy import Taxonomy

FORMAT = "aisle-scores-1"
_STORE, _PARTS = "store.json", "parts"


class Part(NamedTuple):
    """The answers for the products of a shard, in the order of its records.

    Attributes:
      product_id: int64 of shape (products,).
      category_id: The true category, or `schema.NO_CATEGORY`; int64 of the same shape.
      num_images: Number of readable images, int32 of the same shape; where it
        is 0, the answers are those of the prior.
      labels: Most probable categories, best first, as positions in the tree's
        `category_ids`: unsigned integers of shape (products, top_k).
      probabilities: Their probabilities, float16 of the same shape.
    """

    product_id: np.ndarray
    category_id: np.ndarray
    num_images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class ScoreStore:
    """A folder of parts, one for each shard of a split; finished when the marker is there.

    Attributes:
      folder: Where it is.
    """

    folder: str

    @classmethod
    def begin(cls, folder: str, content: dict[str, Any], tree: Taxonomy) -> "ScoreStore":
        """Begins a store, or opens one that was begun for the same.

        Args:
          folder: Where it is to be.
          content: All that the answers follow from, as plain values.
          tree: The categories, in the order of the labels.

        Raises:
          UserError: The folder holds the answers of something else.
        """
        store = cls(folder)
        path = os.path.join(folder, _STORE)
        content = {"format": FORMAT, "taxonomy": tree.fingerprint} | content
        if files.exists(path):
            _refuse_changes(folder, files.read_json(path), content)
        elif files.list_files(folder):
            raise UserError(f"{folder} holds other files; expected a new folder, or one that a prediction began.")
        else:
            tree.save(os.path.join(folder, taxonomy.FILE_NAME))
            files.write_json(path, content)
        return store

    @classmethod
    def load(cls, folder: str) -> "ScoreStore":
        """Opens a finished store.

        Raises:
          UserError: There is none.
        """
        if not files.exists(os.path.join(folder, manifest.MARKER)):
            raise UserError(
                f"{folder} holds no finished scores (no {manifest.MARKER}); expected a folder that "
                "`python -m export.predict --scores FOLDER` has written to its end."
            )
        store = cls(folder)
        if (found := store.content["format"]) != FORMAT:
            raise UserError(f"{folder} is in the format {found}; expected {FORMAT}. Predict again.")
        return store

    @cached_property
    def content(self) -> dict[str, Any]:
        """All that the answers follow from."""
        value: dict[str, Any] = files.read_json(os.path.join(self.folder, _STORE))
        return value

    @property
    def records(self) -> list[int]:
        """Number of products of each part."""
        return list(self.content["records"])

    def tree(self) -> Taxonomy:
        """Reads the categories, in the order of the labels."""
        return Taxonomy.load(os.path.join(self.folder, taxonomy.FILE_NAME))

    @property
    def receipts(self) -> str:
        """Folder in which each finished shard leaves one file."""
        return os.path.join(self.folder, _PARTS)

    def path(self, shard: int) -> str:
        """Returns the path of a part."""
        return os.path.join(self.receipts, f"{shard:05d}.npz")

    def missing(self) -> list[int]:
        """Returns the numbers of the shards that have no part yet."""
        there = set(files.list_files(self.receipts))
        return [shard for shard in range(len(self.records)) if os.path.basename(self.path(shard)) not in there]

    def write(self, shard: int, part: Part) -> None:
        """Writes a part, atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, **part._asdict())
        files.write(self.path(shard), [buffer.getvalue()])

    def read(self, shard: int) -> Part:
        """Reads a part."""
        with np.load(io.BytesIO(files.read(self.path(shard)))) as content:
            return Part(*(content[name] for name in Part._fields))

    def parts(self) -> Iterator[Part]:
        """Yields all parts, one at a time, in the order of the shards."""
        return (self.read(shard) for shard in range(len(self.records)))

    def finish(self, data: Manifest, split: str) -> None:
        """Compares every part with the dataset, then sets the marker.

        Raises:
          UserError: A part does not hold the products of its shard, each once.
        """
        for shard in range(len(self.records)):
            expected, found = data.records(split, shard).product_id, self.read(shard).product_id
            if not np.array_equal(found, expected):
                raise UserError(_difference(self.path(shard), found, expected))
        files.write(os.path.join(self.folder, manifest.MARKER), [b""])


def _difference(path: str, found: np.ndarray, expected: np.ndarray) -> str:
    missing, extra = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    return (
        f"{path} holds {len(found)} products and the shard {len(expected)}: {len(missing)} are missing "
        f"({missing[:3].tolist()}), {len(extra)} are not in it, or they stand in another order. Remove that file and "
        "predict again."
    )


def _refuse_changes(folder: str, begun: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [name for name in now if begun.get(name) != now[name]]
    if changed:
        shown = "; ".join(f"{name} was {_short(begun.get(name))} and is {_short(now[name])}" for name in changed)
        raise UserError(
            f"{folder} holds the answers of another prediction: {shown}. Give the same again to continue it, remove "
            "that folder, or name another."
        )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value[:8])) + (f",... ({len(value)})" if len(value) > 8 else "")
    return " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)


class Answers(NamedTuple):
    """The answers for a shard.

    Attributes:
      together: Those of all runs, averaged.
      members: Those of each run.
    """

    together: Part
    members: tuple[Part, ...]


class Stores(NamedTuple):
    """Where the answers go.

    Attributes:
      together: Those of all runs, averaged.
      members: Those of each run; nowhere, or `together` itself, where there is one run.
    """

    together: ScoreStore
    members: tuple[ScoreStore, ...]

    def write(self, shard: int, answers: Answers) -> None:
        """Writes the answers for a shard; that of all runs last, since it says that the shard is done."""
        for store, part in zip(self.members, answers.members, strict=bool(self.members)):
            store.write(shard, part)
        self.together.write(shard, answers.together)


def compact(labels: np.ndarray, probabilities: np.ndarray, categories: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and probabilities in the types of a `Part`; the labels in as few bytes as the tree allows."""
    return labels.astype(np.min_scalar_type(max(0, categories - 1))), probabilities.astype(np.float16)
