"""Tests of checkpoints."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from model import checkpoint
from model.checkpoint import Position
from pipeline.console import UserError


def _model(width: int = 3) -> keras.Model:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(width, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    optimizer = keras.optimizers.AdamW(0.1)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    return model


def _train(model: keras.Model, steps: range) -> None:
    for step in steps:
        random = np.random.default_rng(step)
        model.train_on_batch(random.normal(size=(8, 4)), random.normal(size=(8, 2)))


def _state(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in [*model.variables, *model.optimizer.variables]]


def _saved(folder: Path, *steps: int) -> keras.Model:
    model = _model()
    for step in steps:
        checkpoint.save(str(folder), model, Position(0, step, step))
    return model


def test_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    undisturbed = _model()
    _train(undisturbed, range(3))
    checkpoint.save(str(tmp_path), undisturbed, Position(1, 2, 3))
    _train(undisturbed, range(3, 6))

    path = checkpoint.newest(str(tmp_path))
    assert path is not None
    assert checkpoint.position(path) == Position(epoch=1, step=2, total_steps=3)
    resumed = _model()
    checkpoint.restore(path, resumed)
    _train(resumed, range(3, 6))  # Takes slots, step count and the seeds of dropout.
    for mine, other in zip(_state(resumed), _state(undisturbed), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_folder_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    assert checkpoint.newest(str(tmp_path)) is None
    assert checkpoint.newest(str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([0], ["step-000000000"]),
        ([1, 2], ["step-000000001", "step-000000002"]),
        ([9, 10, 100], ["step-000000010", "step-000000100"]),
        ([3, 3, 3], ["step-000000003"]),
    ],
)
def test_the_two_newest_are_kept(steps: list[int], kept: list[str], tmp_path: Path) -> None:
    _saved(tmp_path, *steps)
    assert sorted(os.listdir(tmp_path)) == kept
    assert checkpoint.newest(str(tmp_path)) == str(tmp_path / kept[-1])


def test_what_an_interruption_left_is_no_checkpoint(tmp_path: Path) -> None:
    _saved(tmp_path, 1)
    broken = tmp_path / ".tmp-0123456789ab"
    broken.mkdir()
    (broken / "model.weights.h5").write_bytes(b"half")
    assert checkpoint.newest(str(tmp_path)) == str(tmp_path / "step-000000001")
    assert broken.exists(), "a reader must not touch what another process may be writing"
    checkpoint.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["step-000000001"]


@pytest.mark.parametrize(
    ("keep", "keep_also", "kept"),
    [(1, None, [5]), (3, None, [3, 4, 5]), (9, None, [1, 2, 3, 4, 5]), (1, 2, [2, 5]), (2, 5, [4, 5]), (2, 7, [4, 5])],
)
def test_the_newest_are_kept_and_one_more(keep: int, keep_also: int | None, kept: list[int], tmp_path: Path) -> None:
    model = _model()
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(str(tmp_path), model, Position(0, step, step), keep=keep, keep_also=keep_also)
    assert sorted(os.listdir(tmp_path)) == [f"step-{step:09d}" for step in kept]
    assert checkpoint.at(str(tmp_path), 5) == str(tmp_path / "step-000000005")
    assert checkpoint.at(str(tmp_path), 6) is None


def test_notes_come_back(tmp_path: Path) -> None:
    notes = {"history": [{"epoch": 1, "loss": 0.1}], "sums": [0.1, 2.0]}
    checkpoint.save(str(tmp_path), _model(), Position(1, 0, 4), notes=notes)
    assert checkpoint.notes(str(tmp_path / "step-000000004")) == notes


def test_a_full_disk_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _saved(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"the disk has 0\.0 MB left\. Those before it are intact; make room"):
        checkpoint.save(str(tmp_path), model, Position(0, 2, 2))
    assert os.listdir(tmp_path) == ["step-000000001"]


def test_a_save_that_fails_leaves_the_earlier_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _saved(tmp_path, 1)

    def fail(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save_weights", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(str(tmp_path), model, Position(0, 2, 2))
    assert os.listdir(tmp_path) == ["step-000000001"]


def _cut(path: Path) -> None:
    weights = path / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:500])


def _forget_a_seed(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"seeds": []}))


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _forget_a_seed,
        lambda path: (path / "model.weights.h5").unlink(),
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "state.json").write_text("{"),
        lambda path: (path / "state.json").write_text("{}"),
    ],
)
def test_a_broken_checkpoint_is_refused_by_name(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _saved(tmp_path, 1)
    path = tmp_path / "step-000000001"
    damage(path)
    with pytest.raises(UserError) as caught:
        checkpoint.restore(str(path), _model())
    assert str(caught.value).startswith(f"{path} does not fit this model")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path, 1)
    with pytest.raises(UserError, match="Give the flags of the run again, or another --workdir"):
        checkpoint.restore(str(tmp_path / "step-000000001"), _model(width=4))
