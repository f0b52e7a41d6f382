"""Tests of training on several devices, in several processes and under another backend."""

import json
import os
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import checkpoint, options, trainer
from model.config import TrainConfig
from model.devices import Devices
from model.run import Run
from pipeline.console import UserError
from pipeline.manifest import Manifest

_ROOT = Path(__file__).parents[2]
_DEADLINE_SECONDS = 300


def _start(run: Run, data: Manifest, *flags: str, **variables: str) -> "subprocess.Popen[str]":
    """Starts training a run by its own flagfile."""
    words = [sys.executable, "-m", "model.train", f"--flagfile={run.folder}/train.flags"]
    return subprocess.Popen(
        [*words, f"--data={data.folder}", f"--workdir={run.folder}", *flags],
        env=os.environ | {"PYTHONPATH": str(_ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: "subprocess.Popen[str]") -> str:
    """Returns what a process that is expected to end well has printed."""
    try:
        output, errors = process.communicate(timeout=_DEADLINE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output


def _assert_near(mine: Run, other: Run) -> None:
    for run_weights, other_weights in zip(*(run.trained()[0].get_weights() for run in (mine, other)), strict=True):
        np.testing.assert_allclose(run_weights, other_weights, rtol=2e-3, atol=2e-4)
    for record, expected in zip(_records(mine), _records(other), strict=True):
        assert record["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert record["accuracy"] == pytest.approx(expected["accuracy"], abs=0.006)  # Two of 384 pictures.
        assert record["validation"]["all"]["products"] == expected["validation"]["all"]["products"]


def _records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run.metrics).read_text().splitlines()]


def _plain(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Returns options of which nothing is random but the order, which is the same under each backend."""
    plain = {"dropout": 0.0, "flip": False, "optimizer": "sgd", "weight_decay": 0.0}
    return options.build(TrainConfig, config.to_json() | plain | changes)


def test_two_devices_of_tensorflow_share_the_batches_of_one(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    # With a frozen backbone, since each device normalises by its own part of a batch.
    config = _plain(train_config, stages="head:1", learning_rate=0.05)
    one, two = (Run.begin(str(tmp_path / name), config, train_data) for name in ("one", "two"))
    process = _start(two, train_data, "--devices=2")
    trainer.train(one, train_data)
    assert "epoch 1/1" in _ended(process)
    _assert_near(two, one)
    assert "2 x cpu, 1 process" in Path(two.folder, "card.md").read_text()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.clusters)])
def test_jax_continues_a_run_of_tensorflow_with_the_same_batches(
    processes: int, tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    pytest.importorskip("jax")
    config = _plain(train_config, stages="all:1", learning_rate=0.01, checkpoint_seconds=0.0)
    one, other = (Run.begin(str(tmp_path / name), config, train_data) for name in ("one", "other"))
    trainer.train(one, train_data)
    shutil.copytree(one.folder, other.folder, dirs_exist_ok=True)
    shutil.rmtree(
        os.path.join(other.checkpoints, "step-000000006")
    )  # The end; before it stands the last but one batch.
    before = checkpoint.newest(other.checkpoints)
    assert before is not None
    assert checkpoint.position(before).total_steps == 5

    started = [_start(other, train_data, **_cluster(number, processes)) for number in range(processes)]
    first, *others = map(_ended, started)
    assert "at epoch 1, batch 6" in first
    assert others == [""] * (processes - 1), "one process speaks for all"
    _assert_near(other, one)
    assert f"{processes} process(es)" in Path(other.folder, "card.md").read_text()


def _cluster(number: int, processes: int) -> dict[str, str]:
    """Returns the variables of one of several processes of JAX, or of the one."""
    if processes == 1:
        return {"KERAS_BACKEND": "jax"}
    return {
        "KERAS_BACKEND": "jax",
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{_free_port()}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
        "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
    }


@cache
def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    Devices(count=4).check_batch(64)
    with pytest.raises(UserError, match=r"--batch_size=66 cannot be shared by 4 devices; expected a multiple of 4"):
        Devices(count=4).check_batch(66)
