"""A finished dataset as readers see it: what the manifest names, and nothing else."""

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline import files, schema, taxonomy
from pipeline.console import UserError
from pipeline.taxonomy import Taxonomy

FILE_NAME = "manifest.json"
MARKER = "_SUCCESS"
RECORDS_FOLDER = "records"


class Shard(NamedTuple):
    """A file of records.

    Attributes:
      name: File name in the dataset's folder.
      records: Number of products.
      images: Number of their images.
      bytes: Size of the file.
      xxh128: Digest of the file, as `xxh128sum` prints it.
    """

    name: str
    records: int
    images: int
    bytes: int
    xxh128: str


class Records(NamedTuple):
    """One row for each record of a shard, in order, and one for each image.

    So readers need not parse a record: they know where the images stand.

    Attributes:
      product_id: int64 of shape (records,).
      category_id: int64 of shape (records,), or `schema.NO_CATEGORY`.
      num_images: int32 of shape (records,).
      digest: XXH3 (64 bits) of each image, uint64 of shape (sum of num_images,).
      image_start: Offset in the shard of its first byte, int64 of the same shape.
      image_bytes: Its length, int32 of the same shape.
    """

    product_id: np.ndarray
    category_id: np.ndarray
    num_images: np.ndarray
    digest: np.ndarray
    image_start: np.ndarray
    image_bytes: np.ndarray

    def to_bytes(self) -> bytes:
        """Returns the content of a file of the table."""
        buffer = io.BytesIO()
        np.savez(buffer, **self._asdict())
        return buffer.getvalue()


def records_name(shard: str) -> str:
    """Returns the path, in a dataset's folder, of the table of the records of a shard, by its file name."""
    return os.path.join(os.path.dirname(shard), RECORDS_FOLDER, f"{os.path.basename(shard)}.npz")


def seen_name(split: str) -> str:
    """Returns the file name of the list of a split's products that share an image with what is trained on."""
    return f"{split}-seen-in-train.txt"


@dataclass(frozen=True)
class Manifest:
    """A committed dataset, or several with one category tree that are read as one.

    Attributes:
      folders: Where it is.
      splits: The shards of each split that hold a record, in order. The
        others have no file, since some object stores know no empty ones.
      details: The whole content of the manifest file, the first one of several.
      held_out: Name under which the validation split was written.
    """

    folders: tuple[str, ...]
    splits: dict[str, tuple[Shard, ...]]
    details: dict[str, Any]
    held_out: str = schema.VALIDATION

    @property
    def folder(self) -> str:
        """The folders as `load` takes them."""
        return ",".join(self.folders)

    @classmethod
    def load(cls, folders: str) -> "Manifest":
        """Reads the manifest of a dataset.

        Args:
          folders: Its folder, or several, comma-separated, whose shards make one
            dataset; on several disks they are read side by side.

        Raises:
          UserError: There is no committed dataset in a folder, or the datasets
            have different trees or folds.
        """
        first, *others = [cls._load(folder) for folder in folders.split(",")]
        return first.joined(others) if others else first

    @classmethod
    def _load(cls, folder: str) -> "Manifest":
        if not files.exists(os.path.join(folder, MARKER)):
            what = "has no finished dataset" if files.exists(folder) else "is not there"
            raise UserError(
                f"{folder} {what} (no {MARKER}); expected a folder that `python -m pipeline.shard` has written."
            )
        details = files.read_json(os.path.join(folder, FILE_NAME))
        splits = {
            split: tuple(Shard(*(shard[name] for name in Shard._fields)) for shard in shards if shard["records"])
            for split, shards in details["splits"].items()
        }
        return cls((folder,), splits, details)

    def joined(self, others: Sequence["Manifest"]) -> "Manifest":
        """Returns this dataset and others as one.

        Raises:
          UserError: They have different trees or folds, or the same content.
        """
        parts = [self, *others]
        for part in others:
            if part.details["taxonomy"] != self.details["taxonomy"] or part.details["folds"] != self.details["folds"]:
                raise UserError(
                    f"{part.folder} has another category tree or other folds than {self.folder}; shard both with the "
                    "same --categories and --folds to read them as one."
                )
        if len({part.fingerprint for part in parts}) < len(parts):
            raise UserError(f"{self.folder} and {', '.join(p.folder for p in others)} hold the same products twice.")
        names = dict.fromkeys(name for part in parts for name in part.splits)
        splits = {name: tuple(shard for part in parts for shard in part._located(name)) for name in names}
        return replace(self, folders=tuple(folder for part in parts for folder in part.folders), splits=splits)

    def _located(self, split: str) -> list[Shard]:
        """Returns the shards of a split under names that say where they are, whatever the folder."""
        folder = self.folders[0] if files.is_remote(self.folders[0]) else os.path.abspath(self.folders[0])
        return [shard._replace(name=os.path.join(folder, shard.name)) for shard in self.splits.get(split, ())]

    def hold_out(self, fold: int | None) -> "Manifest":
        """Returns the dataset with one fold as validation and all others as train.

        Args:
          fold: Number of the fold; None for a dataset without folds, which is
            returned as it is.

        Raises:
          UserError: The dataset has no such fold, or has folds and none is named.
        """
        folds = self.details["folds"]
        if fold is None and not folds:
            return self
        if fold is None or not 0 <= fold < folds:
            there = f"{folds} folds, --fold=0 to {folds - 1}" if folds else "no folds; leave --fold out"
            raise UserError(f"--fold is {fold}, and {self.folder} has {there}.")
        held_out = schema.fold_name(fold)
        names = [name for name in map(schema.fold_name, range(folds)) if name != held_out]
        train = tuple(shard for name in names for shard in self.splits.get(name, ()))
        chosen = {schema.TRAIN: train, schema.VALIDATION: self.splits.get(held_out, ())}
        return replace(self, splits=chosen, held_out=held_out)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of a split.

        Raises:
          UserError: The dataset has no such split, or a file is missing or
            has another size than when it was written.
        """
        if split not in self.splits:
            raise UserError(
                f"{self.folder} has no {split} split, only {', '.join(self.splits)}; "
                "documents with a category make train and validation, those without make test."
            )
        for shard in self.splits[split]:
            self._check(shard)
        return self.splits[split]

    def _check(self, shard: Shard) -> None:
        path = self.path(shard.name)
        if files.is_remote(path):
            return
        found = os.path.getsize(path) if os.path.exists(path) else None
        if found != shard.bytes:
            what = "is missing" if found is None else f"has {found} bytes"
            raise UserError(f"{path} {what}; expected {shard.bytes} bytes. Restore the file, or shard the input again.")

    def summary(self) -> str:
        """Returns a few lines for people: what is in the dataset."""
        lines = [
            f"{split:>12}: {sum(shard.records for shard in shards):>10,} products"
            f" {sum(shard.images for shard in shards):>12,} images"
            f" {sum(shard.bytes for shard in shards) / 1e6:>10,.1f} MB in {len(shards)} shards"
            for split, shards in self.splits.items()
        ]
        if parts := self.details["refused"]["parts"]:
            lines.append(f"{'refused':>12}: {parts:>10,} parts of the input, kept in {self.path('quarantine')}")
        return "\n".join(lines)

    def next_command(self) -> str:
        """Returns the command that comes after sharding."""
        if list(self.splits) != [schema.TEST]:
            fold = " --fold=0" if self.details["folds"] else ""
            return f"python -m model.train --flagfile=simple_cnn.flags --data {self.folder}{fold} --workdir RUN"
        return f"python -m export.predict --run RUN --data {self.folder} --output submission.csv"

    def path(self, name: str) -> str:
        """Returns the path of a file of the dataset."""
        return os.path.join(self.folders[0], name)

    @property
    def fingerprint(self) -> str:
        """Digest of the content of all shards."""
        digests = [shard.xxh128 for shards in self.splits.values() for shard in shards]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]

    def taxonomy(self) -> Taxonomy:
        """Reads the category tree."""
        return Taxonomy.load(self.path(taxonomy.FILE_NAME))

    def records(self, split: str, shard: int) -> Records:
        """Reads the table of the records of a shard."""
        return read_records(self.path(records_name(self.splits[split][shard].name)))

    def product_ids(self, split: str) -> np.ndarray:
        """Returns the ids of all products of a split, in the order of their records."""
        tables = [self.records(split, shard).product_id for shard in range(len(self.splits[split]))]
        return np.concatenate(tables) if tables else np.empty(0, np.int64)

    def products_per_category(self, split: str) -> np.ndarray:
        """Returns the number of products of a split by label of the category: int64 of shape (categories,)."""
        tree = self.taxonomy()
        counts = np.zeros(tree.num_categories, np.int64)
        for shard in range(len(self.shards(split))):
            labels = tree.labels(self.records(split, shard).category_id)
            counts += np.bincount(labels, minlength=len(counts))
        return counts

    def seen_in_train(self) -> np.ndarray:
        """Returns the sorted ids of the validation products that share an image with train."""
        if len(self.folders) == 1:
            lines = files.read(self.path(seen_name(self.held_out))).split()
            return np.array(lines, np.int64)
        tables = {
            split: [self.records(split, shard) for shard in range(len(self.splits.get(split, ())))]
            for split in (schema.TRAIN, schema.VALIDATION)
        }
        return sharing_images(tables[schema.VALIDATION], tables[schema.TRAIN])


def sharing_images(tables: Sequence[Records], others: Sequence[Records]) -> np.ndarray:
    """Returns the sorted ids of the products in some tables that share an image, by digest, with those in others.

    Costs 40 bytes of memory for each image: half a gigabyte for Cdiscount's.
    """
    if not tables or not others:
        return np.empty(0, np.int64)
    owners = np.concatenate([np.repeat(table.product_id, table.num_images) for table in tables])
    digests = np.concatenate([table.digest for table in tables])
    return np.unique(owners[np.isin(digests, np.concatenate([table.digest for table in others]))])


def read_records(path: str) -> Records:
    """Reads a table of records.

    Raises:
      UserError: It is damaged, or an earlier version of this project has written it.
    """
    try:
        with np.load(io.BytesIO(files.read(path))) as content:
            columns = {name: content[name] for name in content}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged: {error}. Restore the file, or shard the input again.") from None
    if missing := sorted(set(Records._fields) - set(columns)):
        raise UserError(
            f"{path} has no column {missing[0]}: an earlier version wrote it, and this one needs to know where images "
            "stand. Shard the input again."
        )
    return Records(*(columns[name] for name in Records._fields))
