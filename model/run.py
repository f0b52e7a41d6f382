"""A run's folder: all that evaluation and export need, beside the checkpoints."""

import os
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import keras
import numpy as np

from model import checkpoint, classifier, transfer
from model.config import TrainConfig
from pipeline import files, schema, taxonomy
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.taxonomy import Taxonomy

_FILE_NAME = "run.json"
_FREE = ("checkpoint_seconds",)  # Options that may change when a run is continued.


@dataclass(frozen=True)
class Run:
    """A training run, finished or not.

    Attributes:
      folder: Where it is.
      config: The options that it follows from.
      tree: The categories, in the order of the logits.
      train_products: Number of products of each category in train, int64 of
        shape (categories,).
    """

    folder: str
    config: TrainConfig
    tree: Taxonomy
    train_products: np.ndarray

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
    def prior(self) -> np.ndarray:
        """Share of each category among the products of train: float64, (categories,)."""
        smoothed = self.train_products + 1.0  # Categories without products stay possible.
        return np.asarray(smoothed / smoothed.sum())

    @classmethod
    def begin(cls, folder: str, config: TrainConfig, data: Manifest) -> "Run":
        """Makes the folder of a new run, or opens one that was begun with the same options and data.

        Raises:
          UserError: The folder holds a run with other options or of other data.
        """
        tree = data.taxonomy()
        content = {
            "config": config.to_json(),
            "data": {"folder": data.folder, "fingerprint": data.fingerprint, "taxonomy": tree.fingerprint},
            "software": {name: metadata.version(name) for name in ("keras", "numpy")}
            | {"backend": keras.backend.backend()},
            "train_products": [int(count) for count in data.products_per_category(schema.TRAIN)],
        }
        path = os.path.join(folder, _FILE_NAME)
        if files.exists(path):
            _refuse_changes(folder, files.read_json(path), content)
        else:
            if config.model.init_from:
                transfer.check_source(cls.load(config.model.init_from), config.model)
            tree.save(os.path.join(folder, taxonomy.FILE_NAME))
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
        return cls(folder, TrainConfig.from_json(content["config"]), tree, np.array(content["train_products"]))

    def build(self, *, pretrained: bool) -> keras.Model:
        """Builds the classifier with the weights that it begins with, or with random ones; not with a checkpoint's."""
        source = self.config.model.init_from if pretrained else None
        model = classifier.build(
            self.config.model,
            image_size=self.config.input.image_size,
            num_categories=self.tree.num_categories,
            pretrained=pretrained and not source,
        )
        if source:
            transfer.begin_from(Run.load(source), self, model)
        return model

    def trained(self) -> tuple[keras.Model, str]:
        """Returns the classifier with the weights of the newest checkpoint, and that checkpoint's path.

        Raises:
          UserError: There is no checkpoint yet.
        """
        path = checkpoint.newest(self.checkpoints)
        if path is None:
            raise UserError(f"{self.folder} has no checkpoint yet; train it first: python -m model.train.")
        model = self.build(pretrained=False)
        checkpoint.restore(path, model)
        return model, path

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


def _refuse_changes(folder: str, begun: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = _flat(begun["config"]), _flat(now["config"])
    changed = [name for name in after if before.get(name) != after[name] and name not in _FREE]
    if changed:
        shown = ", ".join(f"{name} was {before.get(name)!r} and is {after[name]!r}" for name in changed)
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
