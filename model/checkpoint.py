"""Checkpoints: a folder each, visible only when whole; the newest ones are kept."""

import json
import os
import shutil
import uuid
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import keras

from model import optimizers
from pipeline import files
from pipeline.console import UserError

_WEIGHTS, _STATE = "model.weights.h5", "state.json"
_AVERAGED = "averaged.weights.h5"  # Where moving averages are kept, the model with these as its weights.
_PREFIX = "step-"
_KEPT = 2


@dataclass(frozen=True)
class Position:
    """How far training has come.

    Attributes:
      epoch: Number of the epoch that goes on, from 0.
      step: Number of its batches that are done.
      total_steps: Number of batches done since the run began.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0


def save(folder: str, model: keras.Model, position: Position) -> None:
    """Writes weights, optimizer, random states and position, then drops the oldest checkpoints."""
    final = os.path.join(folder, f"{_PREFIX}{position.total_steps:09d}")
    temporary = os.path.join(folder, f".tmp-{uuid.uuid4().hex[:12]}")
    os.makedirs(temporary)
    try:
        model.save_weights(os.path.join(temporary, _WEIGHTS))
        _sync(os.path.join(temporary, _WEIGHTS))
        if optimizers.averages(getattr(model, "optimizer", None)):
            with optimizers.averaged(model):
                keras.Model(model.inputs, model.outputs).save_weights(os.path.join(temporary, _AVERAGED))
            _sync(os.path.join(temporary, _AVERAGED))
        state = asdict(position) | {"seeds": [list(map(int, seed)) for seed in _seed_states(model)]}
        files.write_json(os.path.join(temporary, _STATE), state)
        if os.path.isdir(final):
            shutil.rmtree(final)
        files.move_folder(temporary, final, last=_STATE)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for name in _names(folder)[:-_KEPT]:
        shutil.rmtree(os.path.join(folder, name))


def newest(folder: str) -> str | None:
    """Returns the path of the newest checkpoint, or None."""
    names = _names(folder)
    return os.path.join(folder, names[-1]) if names else None


def position(path: str) -> Position:
    """Reads how far training had come at a checkpoint."""
    state = _state(path)
    return Position(state["epoch"], state["step"], state["total_steps"])


def restore(path: str, model: keras.Model) -> None:
    """Loads what a checkpoint holds: all of it for a model that trains on, the averaged weights for one that does not.

    Args:
      path: The checkpoint.
      model: Compiled as it was, to train on; or not compiled, to be used.

    Raises:
      UserError: The checkpoint does not fit the model or is broken.
    """
    try:
        with warnings.catch_warnings():  # Of a file that does not fit, the exception says enough.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            if not getattr(model, "optimizer", None):
                averaged = os.path.join(path, _AVERAGED)
                model.load_weights(averaged if os.path.exists(averaged) else os.path.join(path, _WEIGHTS))
                return
            model.load_weights(os.path.join(path, _WEIGHTS))
        for generator, seed in zip(_seed_generators(model), _state(path)["seeds"], strict=True):
            generator.state.assign(seed)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"{path} does not fit this model: {' '.join(str(error).split())[:300]}. Give the flags of the run "
            "again, or another --workdir."
        ) from error


def _names(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    for name in os.listdir(folder):
        if name.startswith(".tmp-"):  # Left by an interruption.
            shutil.rmtree(os.path.join(folder, name))
    return sorted(name for name in os.listdir(folder) if name.startswith(_PREFIX))


def _state(path: str) -> dict[str, Any]:
    with open(os.path.join(path, _STATE), encoding="utf-8") as file:
        state: dict[str, Any] = json.load(file)
    return state


def _seed_generators(model: keras.Model) -> list[Any]:
    """Returns the random generators of all layers, which Keras leaves out of saved weights."""
    found = []
    for layer in model._flatten_layers():
        found += layer._seed_generators
    return found


def _seed_states(model: keras.Model) -> list[Any]:
    return [keras.ops.convert_to_numpy(generator.state) for generator in _seed_generators(model)]


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
