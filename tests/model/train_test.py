"""Tests of the command that trains."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model import checkpoint, flagfile
from model.run import Run
from pipeline.manifest import Manifest

_ROOT = Path(__file__).parents[2]
_DEADLINE_SECONDS = 120


def _flags(run: Run, data: Manifest, workdir: Path) -> list[str]:
    """Returns the flags with which a user would begin this run."""
    config = run.config
    return [
        f"--data={data.folder}",
        f"--workdir={workdir}",
        f"--dropout={config.model.dropout}",
        f"--batch_size={config.input.batch_size}",
        f"--decode_size={config.input.decode_size}",
        f"--image_size={config.input.image_size}",
        f"--shuffle_images={config.input.shuffle_images}",
        f"--seed={config.input.seed}",
        f"--stages={config.stages}",
        f"--learning_rate={config.optimization.learning_rate}",
        f"--label_smoothing={config.loss.label_smoothing}",
    ]


def _kill_when(words: list[str], ready: Callable[[], bool]) -> None:
    """Starts a command and kills it as soon as it has come so far."""
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while not ready():
            assert process.poll() is None, "it ended before it came so far"
            assert time.monotonic() - begun < _DEADLINE_SECONDS, "it never came so far"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_run_killed_while_it_saves_and_once_more_ends_in_the_weights_of_an_undisturbed_one(
    command: Callable[..., subprocess.CompletedProcess[str]], trained_run: Run, train_data: Manifest, tmp_path: Path
) -> None:
    saved = tmp_path / "checkpoints"
    arguments = _flags(trained_run, train_data, tmp_path)
    words = [sys.executable, "-m", "model.train", *arguments, "--checkpoint_seconds=0"]
    _kill_when(words, lambda: (saved / "step-000000002").exists() and any(saved.glob(".tmp-*")))
    # Its own flagfile continues it: there all flags stand as they were.
    arguments = [f"--flagfile={tmp_path}/train.flags", f"--data={train_data.folder}", f"--workdir={tmp_path}"]
    words = [sys.executable, "-m", "model.train", *arguments, "--checkpoint_seconds=0"]
    _kill_when(words, (saved / "step-000000005").exists)  # An epoch has six batches.
    result = command("model.train", *arguments)
    assert result.returncode == 0, result.stderr
    first, *_, last = result.stdout.splitlines()
    assert first.startswith(f"Continuing {tmp_path} at epoch ")
    assert "python -m export.predict" in last
    assert not list(saved.glob(".tmp-*")), "what the kill left must be gone"

    run = Run.load(str(tmp_path))
    newest = checkpoint.newest(run.checkpoints)
    assert newest is not None
    assert checkpoint.position(newest) == checkpoint.Position(2, 0, 12)
    mine, other = (each.trained()[0].get_weights() for each in (run, trained_run))
    assert all(map(np.array_equal, mine, other))
    assert [json.loads(line)["epoch"] for line in Path(run.metrics).read_text().splitlines()] == [1, 2]


def test_help_shows_a_command_that_runs(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "python -m model.train --flagfile=simple_cnn.flags" in command("model.train", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--data=absent"], "--workdir"),
        (["--data=absent", "--workdir=run", "--batch_size=many"], "--batch_size=many"),
        (["--data=absent", "--workdir=run", "--epochs=3"], "'epochs'"),
        (["--data=absent", "--workdir=run"], "absent is not there"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], shown: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert shown in refusal("model.train", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flagfile_is_refused_with_those_that_there_are(refusal: Callable[..., str], tmp_path: Path) -> None:
    line = refusal("model.train", "--flagfile=none.flags", "--data=absent", "--workdir=run", cwd=tmp_path)
    assert "'none.flags'" in line
    assert all(name in line for name in os.listdir(flagfile.FOLDER))


def test_changed_flags_are_refused_with_the_difference(
    refusal: Callable[..., str], trained_run: Run, train_data: Manifest
) -> None:
    arguments = _flags(trained_run, train_data, Path(trained_run.folder))
    line = refusal("model.train", *arguments, "--learning_rate=0.5")
    assert "learning_rate was 0.003 and is 0.5" in line
