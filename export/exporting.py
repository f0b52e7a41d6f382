"""Writes a run's classifier for the use of other programs, checked against prediction before it becomes visible."""

import csv
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from export import calibration, onnx_model, parity, saved_model, templates, versions
from export.parity import Best, Difference, Products
from model.run import Run
from pipeline import files
from pipeline.console import UserError
from pipeline.manifest import Manifest

SAVED_MODEL, ONNX = "savedmodel", "onnx"
FORMATS = (SAVED_MODEL, ONNX)
_TEMPORARY = ".tmp-"
CLASSES, README = "classes.csv", "README.md"


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """How a classifier is exported.

    Attributes:
      output: Folder of the versions of the model; each export adds one.
      format: One of `FORMATS`.
      top_k: Number of categories that a SavedModel names for each product.
      calibrated: Whether to apply the temperature that tools.calibrate fitted.
    """

    output: str
    format: str = SAVED_MODEL
    top_k: int = 5
    calibrated: bool = True

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UserError(f"--top_k is {self.top_k}; expected 1 or more.")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
      path: Folder of the new version.
      temperature: What its logits are divided by.
      difference: How far its answers are from those of prediction.
    """

    path: str
    temperature: float
    difference: Difference


def export(run: Run, config: SaveConfig, *, data: Manifest | None = None) -> Export:
    """Exports the newest checkpoint of a run as the next version of a model.

    Args:
      run: A run with a checkpoint.
      config: How.
      data: Where the pictures of the check come from; None draws some.

    Raises:
      UserError: There is no checkpoint, Keras runs on another backend, a
        package is missing, or the answers are not those of prediction.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.backend.backend()}, and a model is exported from TensorFlow; give the same command "
            "with KERAS_BACKEND=tensorflow. The weights of a run load on every backend."
        )
    classifier, checkpoint, temperature = calibration.trained(run, calibrated=config.calibrated)
    products = parity.sample(data) if data else parity.draw()
    path = versions.next_folder(config.output)
    _sweep(config.output)
    temporary = os.path.join(config.output, f"{_TEMPORARY}{uuid.uuid4().hex[:12]}")
    try:
        with _without_notices():
            exported = _write(temporary, run, classifier, config)
        reference = parity.predicted(run, classifier, top_k=config.top_k)
        difference = parity.compare(exported, reference, products)
        _check(difference)
        _describe(temporary, run, config, checkpoint=checkpoint, temperature=temperature)
        files.move_folder(temporary, path)
    finally:
        files.remove_tree(temporary)
    return Export(path, temperature, difference)


def _sweep(folder: str) -> None:
    """Removes what interrupted exports left."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith(_TEMPORARY):
            files.remove_tree(os.path.join(folder, name))


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keeps away what TensorFlow and tf2onnx have to say about each step of saving."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _write(path: str, run: Run, classifier: keras.Model, config: SaveConfig) -> Callable[[Products], Best]:
    """Writes the model and returns the function from products to its answers, read back from disk."""
    if config.format == ONNX:
        onnx_model.write(path, classifier)
        return onnx_model.answers(path, run, top_k=config.top_k)
    saved_model.write(path, classifier, run.tree, prior=run.prior, config=run.config.input, top_k=config.top_k)
    return saved_model.answers(path)


def _check(difference: Difference) -> None:
    if not difference.tolerable:
        raise UserError(
            f"the exported model names another category for {difference.other_category} of {difference.products} "
            f"products, and probabilities differ by up to {difference.probability:.1e}; expected {parity.TOLERANCE} "
            "at most. Nothing was written."
        )


def _describe(path: str, run: Run, config: SaveConfig, *, checkpoint: str, temperature: float) -> None:
    """Writes the list of classes and the description of the signatures beside the model."""
    files.write(os.path.join(path, CLASSES), [_classes(run).encode()])
    readme = templates.render(
        f"{config.format}.md",
        name=os.path.basename(os.path.abspath(config.output)),
        config=config,
        run=run,
        checkpoint=os.path.basename(checkpoint),
        temperature=temperature,
        top_k=min(config.top_k, run.tree.num_categories),
    )
    files.write(os.path.join(path, README), [readme.encode()])


def _classes(run: Run) -> str:
    """Returns a row for each category in the order of the logits: id, share in train, names from level 1 down."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    levels = [f"category_level{level}" for level in range(1, run.tree.num_levels + 1)]
    rows.writerow(["label", "category_id", "prior", *levels])
    for label, (category_id, path) in enumerate(zip(run.tree.category_ids, run.tree.paths, strict=True)):
        rows.writerow([label, category_id, np.format_float_positional(run.prior[label], precision=9), *path])
    return text.getvalue()
