"""Checkpoints: a folder each, visible only when whole; the newest ones are kept, and the best."""

import errno
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from model import optimizers
from pipeline import files
from pipeline.console import UserError

_WEIGHTS, _STATE = "model.weights.h5", "state.json"
_AVERAGED = "averaged.weights.h5"  # Where moving averages are kept, the model with these as its weights.
_PREFIX, _TEMPORARY = "step-", ".tmp-"
_FILE_BYTES = 1 << 20  # More than HDF5 and the state take beside the numbers.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def save(
    folder: str,
    model: keras.Model,
    position: Position,
    *,
    notes: Mapping[str, Any] | None = None,
    keep: int = 2,
    keep_also: int | None = None,
) -> None:
    """Writes weights, optimizer, random states and position, then drops the oldest checkpoints.

    Args:
      folder: Folder of all checkpoints of the run.
      model: A compiled model.
      position: How far training has come.
      notes: What else to keep, as JSON.
      keep: Number of checkpoints that stay, this one among them.
      keep_also: `total_steps` of one more that stays.

    Raises:
      UserError: The disk is full. The earlier checkpoints are intact.
    """
    final = _path(folder, position.total_steps)
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex[:12]}")
    state = asdict(position) | {"seeds": [list(map(int, seed)) for seed in _seed_states(model)], "notes": notes or {}}
    try:
        os.makedirs(temporary)
        _check_room(temporary, model)
        model.save_weights(os.path.join(temporary, _WEIGHTS))
        _sync(os.path.join(temporary, _WEIGHTS))
        if optimizers.averages(getattr(model, "optimizer", None)):
            with optimizers.averaged(model):
                keras.Model(model.inputs, model.outputs).save_weights(os.path.join(temporary, _AVERAGED))
            _sync(os.path.join(temporary, _AVERAGED))
        files.write_json(os.path.join(temporary, _STATE), state)
        if os.path.isdir(final):
            _remove(final)
        files.move_folder(temporary, final, last=_STATE)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(
            f"the checkpoint {final} could not be written: {error.strerror or error}. Those before it are intact; "
            "make room, and the same command continues from the newest."
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    protected = None if keep_also is None else _path(folder, keep_also)
    for name in _names(folder)[:-keep]:
        if os.path.join(folder, name) != protected:
            _remove(os.path.join(folder, name))


def _check_room(folder: str, model: keras.Model) -> None:
    """Raises what a full disk would, before HDF5 writes half a file and complains about it at length."""
    optimizer = getattr(model, "optimizer", None)
    copies = 2 if optimizers.averages(optimizer) else 1
    variables = [*model.variables * copies, *(optimizer.variables if optimizer else [])]
    needed = _FILE_BYTES + sum(int(np.prod(item.shape)) * np.dtype(item.dtype).itemsize for item in variables)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"it takes {needed / 1e6:,.1f} MB, and the disk has {free / 1e6:,.1f} MB left")


def newest(folder: str) -> str | None:
    """Returns the path of the newest checkpoint, or None."""
    names = _names(folder)
    return os.path.join(folder, names[-1]) if names else None


def at(folder: str, total_steps: int) -> str | None:
    """Returns the path of the checkpoint that was saved after so many batches, or None."""
    path = _path(folder, total_steps)
    return path if os.path.isdir(path) else None


def sweep(folder: str) -> None:
    """Removes what interruptions left; only for the one process that saves here."""
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            if name.startswith(_TEMPORARY):
                shutil.rmtree(os.path.join(folder, name))


def notes(path: str) -> dict[str, Any]:
    """Reads what else was kept with a checkpoint."""
    found: dict[str, Any] = _state(path)["notes"]
    return found


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
            "again, or another --workdir; a damaged checkpoint may be removed, then the one before it counts."
        ) from error


def _path(folder: str, total_steps: int) -> str:
    return os.path.join(folder, f"{_PREFIX}{total_steps:09d}")


def _names(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(_PREFIX)) if os.path.isdir(folder) else []


def _remove(path: str) -> None:
    """Removes a checkpoint; its name goes first, so that none is ever seen with half its files."""
    doomed = os.path.join(os.path.dirname(path), f"{_TEMPORARY}{uuid.uuid4().hex[:12]}")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


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
