"""Tests of the command that evaluates."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from model import evaluator, metrics
from model.run import Run
from pipeline.manifest import Manifest


def test_it_prints_the_table_and_writes_the_report(
    command: Callable[..., subprocess.CompletedProcess[str]], trained_run: Run, train_data: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run.folder, folder)
    result = command("model.evaluate", f"--run={folder}", f"--data={train_data.folder}")
    assert result.returncode == 0, result.stderr
    report = json.loads((folder / "evaluation.json").read_text())
    expected = evaluator.evaluate(trained_run, trained_run.trained()[0], train_data)
    options = {"views": ["center"], "aggregate": "mean"}
    assert report == expected | options | {"checkpoint": report["checkpoint"], "data": train_data.folder}
    assert Path(report["checkpoint"]).parent == folder / "checkpoints"
    assert result.stdout.startswith(metrics.table(expected))
    assert f"always the most frequent category: {evaluator.most_frequent_share(trained_run):.4f}" in result.stdout


def test_help_shows_a_command_that_runs(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "python -m model.evaluate --run runs/first" in command("model.evaluate", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--run=absent"], "--data"),
        (["--run=absent", "--data=absent", "--workdir=x"], "'workdir'"),
        (["--run=absent", "--data=absent"], "absent holds no run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], shown: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert shown in refusal("model.evaluate", *arguments, cwd=tmp_path)
