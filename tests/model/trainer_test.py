"""Tests of the training loop, above all of its end after an interruption."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import checkpoint, trainer
from model.checkpoint import Position
from model.config import TrainConfig
from model.run import Run
from pipeline import input as input_pipeline
from pipeline import schema
from pipeline.manifest import Manifest


class _KilledError(Exception):
    """Stands for a process that ends."""


def _weights(run: Run) -> list[np.ndarray]:
    return run.trained()[0].get_weights()


def _assert_same_end(run: Run, undisturbed: Run) -> None:
    assert checkpoint.newest(run.checkpoints) is not None
    for mine, other in zip(_weights(run), _weights(undisturbed), strict=True):
        np.testing.assert_array_equal(mine, other)


def _records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run.metrics).read_text().splitlines()]


def _kill_at_save(monkeypatch: pytest.MonkeyPatch, number: int, *, before: bool) -> None:
    """Ends training just before or just after it saves for the `number`th time."""
    save, calls = checkpoint.save, 0

    def killed(folder: str, model: keras.Model, position: Position) -> None:
        nonlocal calls
        calls += 1
        if calls == number and before:
            raise _KilledError
        save(folder, model, position)
        if calls == number:
            raise _KilledError

    monkeypatch.setattr(checkpoint, "save", killed)


def _steps(run: Run, data: Manifest) -> int:
    return input_pipeline.steps_per_epoch(data, run.config.input)


# An epoch has 6 batches, and each saves; save 7 is that of the first epoch's end, with which stage "head" ends.
@pytest.mark.parametrize(
    ("number", "before", "expected"),
    [
        (1, True, None),
        (1, False, Position(0, 1, 1)),
        (4, False, Position(0, 4, 4)),
        (6, False, Position(0, 6, 6)),
        (7, False, Position(1, 0, 6)),
        (8, True, Position(1, 0, 6)),
        (10, False, Position(1, 3, 9)),
        (14, True, Position(1, 6, 12)),
        (14, False, Position(2, 0, 12)),
    ],
)
def test_a_resumed_run_ends_in_the_weights_of_an_undisturbed_one(
    number: int,
    before: bool,
    expected: Position | None,
    tmp_path: Path,
    train_data: Manifest,
    trained_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    assert _steps(run, train_data) == 6
    with monkeypatch.context() as patch, pytest.raises(_KilledError):
        _kill_at_save(patch, number, before=before)
        trainer.train(run, train_data)
    path = checkpoint.newest(run.checkpoints)
    assert (path and checkpoint.position(path)) == expected

    trainer.train(Run.begin(str(tmp_path), trained_run.config, train_data), train_data)
    _assert_same_end(run, trained_run)


def test_a_run_that_is_killed_twice_ends_in_the_same_weights(
    tmp_path: Path, train_data: Manifest, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    for number in (5, 6):
        with monkeypatch.context() as patch, pytest.raises(_KilledError):
            _kill_at_save(patch, number, before=False)
            trainer.train(run, train_data)
    trainer.train(run, train_data)
    _assert_same_end(run, trained_run)
    assert [record["epoch"] for record in _records(run)] == [1, 2]


def test_a_finished_run_stays_as_it_is(tmp_path: Path, train_data: Manifest, trained_run: Run) -> None:
    shutil.copytree(trained_run.folder, tmp_path / "copy")
    run = Run.load(str(tmp_path / "copy"))
    trainer.train(run, train_data)
    _assert_same_end(run, trained_run)
    assert _records(run) == _records(trained_run)


def test_each_epoch_is_logged_once_with_its_validation(train_data: Manifest, trained_run: Run) -> None:
    records = _records(trained_run)
    steps = _steps(trained_run, train_data)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["total_steps"] for record in records] == [steps, 2 * steps]
    held_out = sum(shard.records for shard in train_data.shards(schema.VALIDATION))
    for record in records:
        assert record["loss"] > 0
        assert 0 <= record["accuracy"] <= 1
        assert record["validation"]["all"]["products"] == held_out


def test_tensorboard_shows_each_epoch_once(trained_run: Run) -> None:
    accumulator = EventAccumulator(trained_run.logs)
    accumulator.Reload()
    records = _records(trained_run)
    tags = set(accumulator.Tags()["tensors"])
    assert {"train/loss", "train/learning_rate", "validation_all/product_accuracy_level3"} <= tags
    events = accumulator.Tensors("train/loss")
    assert [event.step for event in events] == [record["total_steps"] for record in records]
    values = [event.tensor_proto.float_val[0] for event in events]
    assert values == pytest.approx([record["loss"] for record in records])


def test_checkpoints_in_between_change_nothing(tmp_path: Path, train_data: Manifest, trained_run: Run) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    trainer.train(run, train_data)
    _assert_same_end(run, trained_run)
    assert len(os.listdir(run.checkpoints)) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": "adamw"}, "adamw"),
        ({"optimizer": "sgd", "warmup": 0.0}, "SGD"),
    ],
)
def test_the_rate_of_a_stage_falls_to_nothing(
    changes: dict[str, Any], expected: str, tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    config = replace(train_config, stages="head:1@0.1", **changes)
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    [record] = _records(run)
    assert record["learning_rate"] < 1e-6 * config.learning_rate


def test_another_seed_gives_another_run(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest, trained_run: Run
) -> None:
    config = replace(train_config, input=replace(train_config.input, seed=6), stages="head:1")
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    assert _records(run)[0]["loss"] != _records(trained_run)[0]["loss"]
