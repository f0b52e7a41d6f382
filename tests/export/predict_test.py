"""Tests of the command that predicts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from export import prediction
from export.predictor import PredictConfig
from model.run import Run
from pipeline import schema
from pipeline.manifest import Manifest

_ROOT = Path(__file__).parents[2]
_DEADLINE_SECONDS = 120


def _kill_after_a_part(words: list[str], parts: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while not list(parts.glob("parts/*.npz")):
            assert process.poll() is None, "it ended before it wrote a part"
            assert time.monotonic() - begun < _DEADLINE_SECONDS, "it never wrote a part"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_killed_prediction_ends_in_the_csv_of_an_undisturbed_one(
    command: Callable[..., subprocess.CompletedProcess[str]],
    trained_run: Run,
    many_shards: Manifest,
    options: Callable[..., PredictConfig],
    tmp_path: Path,
) -> None:
    expected = tmp_path / "undisturbed.csv"
    prediction.run(options(data=many_shards.folder, output=str(expected)))

    path = tmp_path / "submission.csv"
    arguments = [f"--run={trained_run.folder}", f"--data={many_shards.folder}", f"--output={path}"]
    left = Path(f"{path}.parts")
    _kill_after_a_part([sys.executable, "-m", "export.predict", *arguments], left)
    assert not path.exists()
    assert 0 < len(list(left.glob("parts/*.npz"))) < len(many_shards.shards(schema.TEST))
    result = command("export.predict", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Wrote {path}: 80 products.\n"
    assert path.read_bytes() == expected.read_bytes()
    assert not left.exists()


def test_help_shows_a_command_that_runs(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    example = "python -m export.predict --run runs/first --data data/test-shards --output submission.csv"
    assert example in command("export.predict", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--run=absent"], "--data"),
        (["--run=absent", "--data=absent", "--split=rest"], "<train|validation|test>"),
        (["--run=absent", "--data=absent", "--out=x.csv"], "--out=x.csv is neither a flag of this command"),
        (["--run=absent", "--data=absent", "--views=center,left"], "--views is 'center,left'"),
        (["--run=absent", "--data=absent"], "absent holds no run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], shown: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert shown in refusal("export.predict", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
