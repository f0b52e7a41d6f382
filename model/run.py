"""A run's folder: all that evaluation and export need, beside the checkpoints."""

import csv
import io
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import keras
import numpy as np

from model import checkpoint, classifier
from model.config import TrainConfig
from pipeline import files, schema, taxonomy
from pipeline.console import UserError
from pipeline.input import TrainInput
from pipeline.manifest import Manifest
from pipeline.taxonomy import Taxonomy

_FILE_NAME = "run.json"
_FLAGFILE, _CATEGORIES = "train.flags", "categories.csv"
_FREE = ("checkpoint_seconds", "keep_checkpoints", "patience")  # Options that may change when a run is continued.
_SOFTWARE = ("keras", "numpy", "tensorflow", "tensorflow-cpu", "jax", "simplejpeg")
NEWEST, BEST = "newest", "best"
CHOICES = (NEWEST, BEST)


@dataclass(frozen=True)
class Run:
    """A training run, finished or not.

    Attributes:
      folder: Where it is.
      config: The options that it follows from.
      tree: The categories, in the order of the logits.
      train_products: Number of products of each category in train, int64 of
        shape (categories,).
      software: Versions with which it was begun.
    """

    folder: str
    config: TrainConfig
    tree: Taxonomy
    train_products: np.ndarray
    software: dict[str, str]

    @property
    def checkpoints(self) -> str:
        """Folder of the checkpoints."""
        return os.path.join(self.folder, "checkpoints")

    @property
    def logs(self) -> str:
        """Folder of the TensorBoard logs."""
        return os.path.join(self.folder, "logs")

    @property
    def metrics(self) -> str:
        """File of one JSON object for each epoch."""
        return os.path.join(self.folder, "metrics.jsonl")

    @property
    def odd_images(self) -> str:
        """File of the pictures that were not as expected, where there were any: numbers and products by kind."""
        return os.path.join(self.folder, "odd_images.json")

    @property
    def prior(self) -> np.ndarray:
        """Share of each category among the products of train: float64, (categories,)."""
        smoothed = self.train_products + 1.0  # Categories without products stay possible.
        return np.asarray(smoothed / smoothed.sum())

    @classmethod
    def begin(cls, folder: str, config: TrainConfig, data: Manifest) -> "Run":
        """Makes the folder of a new run, or opens one that was begun with the same options and data.

        Raises:
          UserError: The folder holds a run with other options or of other data,
            or the data cannot be trained on; then nothing is written.
        """
        tree = data.taxonomy()
        counts = [int(count) for count in data.products_per_category(schema.TRAIN)]
        content = {
            "config": config.to_json(),
            "data": {"folder": data.folder, "fingerprint": data.fingerprint, "taxonomy": tree.fingerprint},
            "software": _software(),
            "train_products": counts,
        }
        path = os.path.join(folder, _FILE_NAME)
        if files.exists(path):
            _refuse_changes(folder, files.read_json(path), content)
        else:
            TrainInput(data, config.input)  # Refuses what cannot be trained on.
            if config.model.init_from:
                cls.load(config.model.init_from).check_source(config)
            tree.save(os.path.join(folder, taxonomy.FILE_NAME))
            files.write(os.path.join(folder, _CATEGORIES), [_class_map(tree, counts)])
            files.write(os.path.join(folder, _FLAGFILE), [_flagfile(folder, config, data)])
            files.write_json(path, content)
        return replace(cls.load(folder), config=config)  # Free options are those of now.

    @classmethod
    def load(cls, folder: str) -> "Run":
        """Opens the folder of a run.

        Raises:
          UserError: There is none.
        """
        path = os.path.join(folder, _FILE_NAME)
        if not files.exists(path):
            raise UserError(f"{folder} holds no run (no {_FILE_NAME}); expected a --workdir of python -m model.train.")
        content = files.read_json(path)
        tree = Taxonomy.load(os.path.join(folder, taxonomy.FILE_NAME))
        config = TrainConfig.from_json(content["config"])
        return cls(folder, config, tree, np.array(content["train_products"]), content["software"])

    def build(self, *, pretrained: bool) -> keras.Model:
        """Builds the classifier with the published weights that it begins with, or with random ones."""
        return classifier.build(
            self.config.model,
            image_size=self.config.input.image_size,
            num_categories=self.tree.num_categories,
            pretrained=pretrained,
        )

    def trained(self, choice: str = NEWEST) -> tuple[keras.Model, str]:
        """Returns the classifier with the weights of a checkpoint, and that checkpoint's path.

        Args:
          choice: "newest", which no look at the validation products has chosen,
            or "best" by accuracy on them. Without validation both are the newest.

        Raises:
          UserError: There is no checkpoint yet.
        """
        path = checkpoint.newest(self.checkpoints)
        if path is None:
            raise UserError(f"{self.folder} has no checkpoint yet; train it first: python -m model.train.")
        if choice == BEST and (steps := best_steps(checkpoint.notes(path)["history"])) is not None:
            path = checkpoint.at(self.checkpoints, steps) or path
        model = self.build(pretrained=False)
        checkpoint.restore(path, model)
        return model, path

    def next_command(self) -> str:
        """Returns the command that comes after training."""
        return f"python -m export.predict --run {self.folder} --data TEST --output submission.csv"

    def check_source(self, config: TrainConfig) -> None:
        """Checks that a run with some options can begin with the weights of this one.

        Raises:
          UserError: This one has no checkpoint, or another backbone.
        """
        ours, theirs = self.config.model.backbone, config.model.backbone
        if ours != theirs:
            raise UserError(
                f"--init_from={self.folder} is a run of {ours}, and this is one of {theirs}; "
                f"give --backbone={ours}, or another run."
            )
        if checkpoint.newest(self.checkpoints) is None:
            raise UserError(f"--init_from={self.folder} has no checkpoint yet; train it first.")

    def check_tree(self, data: Manifest) -> None:
        """Checks that labels of the data mean what they meant in training.

        Raises:
          UserError: The data was sharded with another category tree.
        """
        found = data.taxonomy().fingerprint
        if found != self.tree.fingerprint:
            raise UserError(
                f"{data.folder} has another category tree ({found}) than the run {self.folder} "
                f"({self.tree.fingerprint}); shard it with the --categories that the run was trained on."
            )


def best_steps(history: Sequence[dict[str, Any]]) -> int | None:
    """Returns the `total_steps` of the epoch with the highest validation accuracy by product, the first of equals."""
    measured = [record for record in history if "validation" in record]
    if not measured:
        return None
    best = max(measured, key=lambda record: record["validation"]["all"]["product_accuracy"][-1])
    return int(best["total_steps"])


def epochs_since_best(history: Sequence[dict[str, Any]]) -> int:
    """Returns the number of epochs after the one of `best_steps`; 0 where nothing was validated."""
    best = best_steps(history)
    return sum(best is not None and record["total_steps"] > best for record in history)


def _software() -> dict[str, str]:
    """Returns the versions of what a run's numbers depend on."""
    found = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _class_map(tree: Taxonomy, train_products: Sequence[int]) -> bytes:
    """Returns a CSV with a row for each logit."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["label", "category_id", "train_products", *(f"level{n + 1}" for n in range(tree.num_levels))])
    for label, (category_id, path) in enumerate(zip(tree.category_ids, tree.paths, strict=True)):
        writer.writerow([label, category_id, train_products[label], *path])
    return text.getvalue().encode()


def _flagfile(folder: str, config: TrainConfig, data: Manifest) -> bytes:
    """Returns the flags of model.train that make the same run again."""
    path = os.path.join(folder, _FLAGFILE)
    lines = [
        "# All flags of this run, defaults included. The same run again:",
        "#",
        f"#   python -m model.train --flagfile={path} --data {data.folder} --workdir ANOTHER",
    ]
    for name, value in _flat(config.to_json()).items():
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else value
            lines.append(f"--{name.rpartition('.')[2]}={text}")
    return ("\n".join(lines) + "\n").encode()


def _refuse_changes(folder: str, begun: dict[str, Any], now: dict[str, Any]) -> None:
    # An option that is newer than the run had its default.
    before, after = _flat(TrainConfig.from_json(begun["config"]).to_json()), _flat(now["config"])
    changed = [name for name in after if before[name] != after[name] and name not in _FREE]
    if changed:
        shown = ", ".join(f"{name} was {before[name]!r} and is {after[name]!r}" for name in changed)
        raise UserError(
            f"{folder} holds a run with other options: {shown}. Give the same to continue it, or another --workdir."
        )
    if begun["data"]["fingerprint"] != now["data"]["fingerprint"]:
        raise UserError(
            f"{folder} holds a run on other data ({begun['data']['folder']}); give that --data to continue it, or "
            "another --workdir."
        )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
