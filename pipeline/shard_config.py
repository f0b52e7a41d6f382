"""Options of the shard job, and where it keeps its work in progress."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline import manifest, schema
from pipeline.console import UserError
from pipeline.records import Fields
from pipeline.source import Source

ERROR, SKIP = "error", "skip"
PRODUCT, DUPLICATES = "product", "duplicates"
_MIN_BYTES = 1 << 10
_MAX_FOLDS = 100


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """What makes a dataset out of dumps.

    Attributes:
      inputs: Paths or glob patterns of BSON files; all make one dataset.
      output: Folder of the dataset.
      categories: CSV of the category tree; None for a flat tree of the
        categories that the documents name.
      split_by: "product", or "duplicates" to keep products that share an image
        in one split, which takes one more reading of the inputs.
      validation_fraction: Share of each category's products held out, in [0, 1).
      folds: Number of folds for cross-validation, which take the place of train
        and validation; 0 for none.
      seed: Determines the split and the order of records.
      piece_bytes: Size of the runs of documents that the global shuffle moves.
      shard_bytes: Size of a shard, its train and validation files together.
      fields: Names of a document's fields.
      duplicate_ids: "error", or "skip" for all but the first document of an id.
      unknown_categories: "error", or "skip" for documents not in the tree.
      croissant: Write Croissant metadata, which takes a SHA-256 of every shard.
      tolerate_damage: Commit although parts of the input were refused.
      overwrite: Replace an existing dataset, and discard unfinished work that
        was made with other options.
    """

    inputs: tuple[str, ...]
    output: str
    categories: str | None = None
    split_by: str = PRODUCT
    validation_fraction: float = 0.1
    folds: int = 0
    seed: int = 0
    piece_bytes: int = 1 << 20
    shard_bytes: int = 128 << 20
    fields: Fields = field(default_factory=Fields)
    duplicate_ids: str = ERROR
    unknown_categories: str = ERROR
    croissant: bool = False
    tolerate_damage: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UserError("no input is given; expected --input=train.bson, as mongodump writes it.")
        if not 0 <= self.validation_fraction < 1:
            raise UserError(f"--validation_fraction is {self.validation_fraction}; expected a number in [0, 1).")
        if self.folds and not 2 <= self.folds <= _MAX_FOLDS:
            raise UserError(f"--folds is {self.folds}; expected 2 to {_MAX_FOLDS}, or 0 for none.")
        for name in ("piece_bytes", "shard_bytes"):
            if getattr(self, name) < _MIN_BYTES:
                raise UserError(f"--{name} is {getattr(self, name)}; expected {_MIN_BYTES} bytes or more.")

    def identity(self, sources: Sequence[Source], taxonomy_fingerprint: str | None) -> dict[str, Any]:
        """Returns all that the bytes of the shards follow from, as plain values."""
        chosen = asdict(self)
        for name in ("inputs", "output", "categories", "tolerate_damage", "overwrite"):
            del chosen[name]
        chosen["sources"] = [source.to_json() for source in sources]
        tables = ",".join(manifest.Records._fields)  # Unfinished work of a version with other ones cannot go on.
        return chosen | {"taxonomy": taxonomy_fingerprint, "version": schema.VERSION, "tables": tables}


def default_output(inputs: Sequence[str]) -> str:
    """Returns `<first input without .bson or .bson.gz>-shards`, beside the first input."""
    stem = os.path.splitext(inputs[0].rstrip("/"))[0].removesuffix(".bson")
    return stem.replace("*", "").rstrip("-_./") + "-shards"


@dataclass(frozen=True)
class WorkFolder:
    """Paths of the unfinished dataset, which stands beside its final place.

    Attributes:
      output: Folder of the finished dataset.
    """

    output: str

    @property
    def root(self) -> str:
        """The unfinished dataset; a rename makes it the finished one."""
        return self.output.rstrip("/") + ".partial"

    @property
    def replaced(self) -> str:
        """Where an older dataset waits while the new one takes its place."""
        return self.output.rstrip("/") + ".replaced"

    @property
    def scratch(self) -> str:
        """What only the job itself needs."""
        return os.path.join(self.root, "work")

    @property
    def job(self) -> str:
        """The options that the work was begun with."""
        return os.path.join(self.scratch, "job.json")

    def spool(self, number: int) -> str:
        """Content of a compressed input."""
        return os.path.join(self.scratch, "spool", f"{number:05d}.bson")

    def index(self, number: int) -> str:
        """Index of one range of the inputs."""
        return os.path.join(self.scratch, "index", f"{number:05d}.npz")

    @property
    def dumps(self) -> str:
        """Paths of the inputs, decompressed."""
        return os.path.join(self.scratch, "dumps.json")

    def digest_pieces(self, task: int) -> str:
        """What one task of digesting reads."""
        return os.path.join(self.scratch, "digest-pieces", f"{task:05d}.npz")

    def digests(self, task: int) -> str:
        """Digests of the images that one task has read."""
        return os.path.join(self.scratch, "digests", f"{task:05d}.npz")

    @property
    def plan(self) -> str:
        """The plan's totals; written after the plans of the shards."""
        return os.path.join(self.scratch, "plan.json")

    def shard_plan(self, shard: int) -> str:
        """What goes into one shard."""
        return os.path.join(self.scratch, "plan", f"{shard:05d}.npz")

    @property
    def receipts(self) -> str:
        """Folder of the receipts of finished shards."""
        return os.path.join(self.scratch, "receipts")

    def receipt(self, shard: int) -> str:
        """What went into a finished shard."""
        return os.path.join(self.receipts, f"{shard:05d}.json")
