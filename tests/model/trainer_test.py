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

from model import checkpoint, journal, locks, optimization, optimizers, options, trainer, transfer
from model.augment import AugmentConfig
from model.checkpoint import Position
from model.config import TrainConfig
from model.optimizers import OptimizerConfig
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.input import TrainInput
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue


class _KilledError(Exception):
    """Stands for a process that ends."""


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return options.build(TrainConfig, config.to_json() | changes)


def _weights(run: Run) -> list[np.ndarray]:
    return run.trained()[0].get_weights()


def _assert_same_end(run: Run, undisturbed: Run) -> None:
    assert checkpoint.newest(run.checkpoints) is not None
    for mine, other in zip(_weights(run), _weights(undisturbed), strict=True):
        np.testing.assert_array_equal(mine, other)


def _records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run.metrics).read_text().splitlines()]


def _assert_same_records(run: Run, undisturbed: Run) -> None:
    """Checks that the logs of a run say what they would have said, times and float32 rounding of sums aside."""
    mine, others = _records(run), _records(undisturbed)
    assert [record["validation"] for record in mine] == [record["validation"] for record in others]
    for record, other in zip(mine, others, strict=True):
        for name in ("epoch", "total_steps", "loss", "accuracy", "learning_rate"):
            assert record[name] == pytest.approx(other[name], rel=1e-6)
        assert 0 < record["waiting"] < 1
    assert os.listdir(run.logs) == os.listdir(undisturbed.logs)


def _kill_at_save(monkeypatch: pytest.MonkeyPatch, number: int, *, before: bool) -> None:
    """Ends training just before or just after it saves for the `number`th time."""
    save, calls = checkpoint.save, 0

    def killed(folder: str, model: keras.Model, position: Position, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number and before:
            raise _KilledError
        save(folder, model, position, **options)
        if calls == number:
            raise _KilledError

    monkeypatch.setattr(checkpoint, "save", killed)


def _steps(run: Run, data: Manifest) -> int:
    return TrainInput(data, run.config.input).steps


def _train_until_killed(run: Run, data: Manifest, number: int, *, before: bool) -> Position | None:
    """Returns where the newest checkpoint stands after the kill."""
    with pytest.MonkeyPatch.context() as patch:
        _kill_at_save(patch, number, before=before)
        with pytest.raises(_KilledError):
            trainer.train(run, data)
    path = checkpoint.newest(run.checkpoints)
    return None if path is None else checkpoint.position(path)


# An epoch has 6 batches, of which 5 save, and then its end, with which stage "head" ends as well.
@pytest.mark.parametrize(("number", "expected"), [(3, Position(0, 3, 3)), (9, Position(1, 3, 9))])
def test_a_resumed_run_ends_in_the_weights_of_an_undisturbed_one(
    number: int, expected: Position, tmp_path: Path, train_data: Manifest, trained_run: Run
) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    assert _train_until_killed(run, train_data, number, before=False) == expected
    trainer.train(Run.begin(str(tmp_path), trained_run.config, train_data), train_data)
    _assert_same_end(run, trained_run)


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(
    tmp_path: Path, train_data: Manifest, trained_run: Run
) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    for number, before, expected in (
        (1, True, None),
        (1, False, Position(0, 1, 1)),
        (4, False, Position(0, 5, 5)),
        (1, True, Position(0, 5, 5)),  # During validation.
        (1, False, Position(1, 0, 6)),
        (1, True, Position(1, 0, 6)),
        (5, False, Position(1, 5, 11)),
        (1, False, Position(2, 0, 12)),
    ):
        assert _train_until_killed(run, train_data, number, before=before) == expected
    trainer.train(run, train_data)
    _assert_same_end(run, trained_run)
    _assert_same_records(run, trained_run)
    assert len(os.listdir(run.checkpoints)) == 2


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


def test_data_without_a_validation_split_are_trained_on(
    tmp_path: Path, catalogue: Path, train_config: TrainConfig
) -> None:
    inputs = (str(catalogue / synthetic_catalogue.TRAIN),)
    shards = str(tmp_path / "shards")
    data = shard_job.run(ShardConfig(inputs=inputs, output=shards, validation_fraction=0, shard_bytes=400 << 10))
    run = Run.begin(str(tmp_path / "run"), replace(train_config, stages="head:1"), data)
    trainer.train(run, data)
    [record] = _records(run)
    assert "validation" not in record
    assert checkpoint.newest(run.checkpoints) is not None


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "warmup": 0.5}, {"optimizer": "sgd", "warmup": 0.0}])
def test_the_rate_of_a_stage_falls_to_nothing(
    changes: dict[str, Any], tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    config = replace(train_config, stages="head:1@0.1", optimization=OptimizerConfig(**changes))
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    [record] = _records(run)
    assert record["learning_rate"] < 1e-6 * config.optimization.learning_rate


def test_patience_ends_a_run_that_gets_no_better_and_it_stays_ended(
    tmp_path: Path, train_data: Manifest, train_config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(train_config, stages="head:6", patience=2)  # At such a rate nothing moves.
    config = replace(config, optimization=replace(config.optimization, learning_rate=1e-30, ema=0.0))
    run = Run.begin(str(tmp_path), config, train_data)
    for _ in range(2):
        trainer.train(run, train_data)
        assert [record["epoch"] for record in _records(run)] == [1, 2, 3]
        assert "Ended after epoch 3: the last 2 did not raise" in capsys.readouterr().out
    assert "Training ended early" in Path(run.folder, "card.md").read_text()
    assert checkpoint.position(run.trained("best")[1]).epoch == 1


def test_another_seed_gives_another_run(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest, trained_run: Run
) -> None:
    config = replace(train_config, input=replace(train_config.input, seed=6), stages="head:1")
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    assert _records(run)[0]["loss"] != _records(trained_run)[0]["loss"]


@pytest.fixture(scope="module", name="full_run")
def _full_run(train_config: TrainConfig, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which stages, averages, accumulation and every change of pictures must come back."""
    config = replace(
        train_config,
        stages="head:1,block3:1@0.5,all:1@0.2",
        optimization=OptimizerConfig(learning_rate=3e-3, ema=0.9, layer_decay=0.7, accumulate=2, clip_norm=1.0),
        augment=AugmentConfig(zoom=0.3, rotate=20, colour=0.2, erase=0.5, mixup=0.2, cutmix=1.0),
    )
    run = Run.begin(str(tmp_path_factory.mktemp("runs") / "full"), config, train_data)
    trainer.train(run, train_data)
    return run


# An epoch has 6 batches, so stages change at 6 and 12.
@pytest.mark.parametrize(("number", "expected"), [(12, Position(2, 0, 12)), (15, Position(2, 3, 15))])
def test_slots_and_averages_come_back_across_stages(
    number: int, expected: Position, tmp_path: Path, train_data: Manifest, full_run: Run
) -> None:
    run = Run.begin(str(tmp_path), replace(full_run.config, checkpoint_seconds=0), train_data)
    assert _train_until_killed(run, train_data, number, before=False) == expected
    trainer.train(Run.begin(str(tmp_path), full_run.config, train_data), train_data)
    _assert_same_end(run, full_run)
    assert _records(run)[-1]["validation"] == _records(full_run)[-1]["validation"]


def test_a_trained_run_has_the_averages_as_its_weights(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    config = replace(train_config, stages="all:1", optimization=OptimizerConfig(ema=0.9))
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    model, path = run.trained()
    going_on = run.build(pretrained=False)
    optimization.enter_stage(run, going_on, 0, _steps(run, train_data))
    checkpoint.restore(path, going_on)
    kernel = going_on.get_layer("head").kernel
    averages = {variable.path: average for variable, average in optimizers.averages(going_on.optimizer)}
    np.testing.assert_array_equal(model.get_layer("head").kernel, averages[kernel.path])
    assert not np.array_equal(kernel, averages[kernel.path])


def test_a_run_begins_with_the_weights_of_another(
    tmp_path: Path,
    train_config: TrainConfig,
    train_data: Manifest,
    trained_run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(train_config, model=replace(train_config.model, init_from=trained_run.folder))
    model = transfer.first_model(Run.begin(str(tmp_path), config, train_data))
    assert "with its last layer: the categories are the same" in capsys.readouterr().out
    for mine, other in zip(model.get_weights(), _weights(trained_run), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_with_other_categories_the_last_layer_is_new(
    tmp_path: Path, catalogue: Path, train_config: TrainConfig, trained_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "train.bson"  # Without category_names.csv beside it, the tree has one level.
    flat.symlink_to(catalogue / synthetic_catalogue.TRAIN)
    data = shard_job.run(ShardConfig(inputs=(str(flat),), output=str(tmp_path / "shards"), validation_fraction=0))
    config = replace(train_config, model=replace(train_config.model, init_from=trained_run.folder))
    model = transfer.first_model(Run.begin(str(tmp_path / "run"), config, data))
    assert "with a new last layer: other categories" in capsys.readouterr().out
    source = trained_run.trained()[0]
    for name, same in (("backbone", True), ("head", False)):
        mine, other = (each.get_layer(name).get_weights() for each in (model, source))
        assert np.array_equal(mine[0], other[0]) == same


def test_a_run_of_another_backbone_is_refused_as_a_beginning(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest, trained_run: Run
) -> None:
    other = replace(train_config.model, backbone="mobilenet_v3_small", init_from=trained_run.folder)
    with pytest.raises(UserError, match="is a run of simple_cnn, and this is one of mobilenet_v3_small"):
        Run.begin(str(tmp_path), replace(train_config, model=other), train_data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("logs_written", [1, 2])
def test_an_epoch_is_logged_though_the_run_was_killed_between_its_checkpoint_and_its_logs(
    logs_written: int, tmp_path: Path, train_data: Manifest, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.begin(str(tmp_path), trained_run.config, train_data)
    write, calls = journal.write, 0

    def killed(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == logs_written:
            raise _KilledError
        write(*arguments)

    monkeypatch.setattr(journal, "write", killed)
    with pytest.raises(_KilledError):
        trainer.train(run, train_data)
    monkeypatch.undo()
    trainer.train(run, train_data)
    _assert_same_records(run, trained_run)


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    config = _changed(train_config, stages="all:1", learning_rate=1e30, warmup=0.0, checkpoint_seconds=0.0)
    run = Run.begin(str(tmp_path), config, train_data)
    with pytest.raises(UserError, match=r"the loss is (nan|inf) since batch \d of epoch 1.*lower --learning_rate"):
        trainer.train(run, train_data)
    newest = checkpoint.newest(run.checkpoints)
    assert newest is not None
    assert all(np.isfinite(weights).all() for weights in run.trained()[0].get_weights())


def test_a_full_disk_ends_in_one_line_and_the_run_continues_where_there_is_room(
    tmp_path: Path, train_data: Manifest, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.begin(str(tmp_path), replace(trained_run.config, checkpoint_seconds=0), train_data)
    room = iter([1 << 40, 1 << 40, 1000])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(room)))
    with pytest.raises(UserError, match=r"the disk has 0\.0 MB left\..*the same command continues"):
        trainer.train(run, train_data)
    monkeypatch.undo()
    assert sorted(os.listdir(run.checkpoints)) == ["step-000000001", "step-000000002"]
    trainer.train(Run.begin(str(tmp_path), trained_run.config, train_data), train_data)
    _assert_same_end(run, trained_run)


def test_a_run_that_another_process_trains_is_refused(train_data: Manifest, trained_run: Run) -> None:
    with locks.held(trained_run.folder), pytest.raises(UserError, match="another process works on"):
        trainer.train(trained_run, train_data)


def test_the_best_checkpoint_stays_and_is_found(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    # The second stage destroys what the first has learned.
    config = _changed(train_config, stages="all:2@3,all:3@1000", warmup=0.0, keep_checkpoints=1)
    run = Run.begin(str(tmp_path), config, train_data)
    trainer.train(run, train_data)
    records = _records(run)
    accuracies = [record["validation"]["all"]["product_accuracy"][-1] for record in records]
    steps = records[int(np.argmax(accuracies))]["total_steps"]
    assert steps < records[-1]["total_steps"], accuracies
    kept = [f"step-{number:09d}" for number in (steps, records[-1]["total_steps"])]
    assert sorted(os.listdir(run.checkpoints)) == kept
    assert [os.path.basename(run.trained(choice)[1]) for choice in ("best", "newest")] == kept
