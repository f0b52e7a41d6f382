"""Tests of comparing runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from model.config import TrainConfig
from model.optimizers import OptimizerConfig
from model.run import Run
from pipeline.console import UserError
from tools import comparison
from tools.comparison import Curve


def test_runs_are_named_by_what_they_differ_in(train_config: TrainConfig) -> None:
    other = replace(train_config, unfreeze="at_once", optimization=OptimizerConfig(learning_rate=0.5))
    reseeded = replace(train_config, input=replace(train_config.input, seed=99))
    first, second, third = comparison.differences([train_config, other, reseeded])
    assert first == third == "--learning_rate=0.003 --unfreeze=gradual"
    assert second == "--learning_rate=0.5 --unfreeze=at_once"


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_last_epoch_of_a_run_is_told_and_drawn(ending: str, trained_run: Run, tmp_path: Path) -> None:
    curves = comparison.load([trained_run.folder, trained_run.folder], labels=["a", "b"])
    last = json.loads(Path(trained_run.metrics).read_text().splitlines()[-1])
    expected = last["validation"]["all"]["product_accuracy"][-1]
    assert [(curve.label, curve.epochs, curve.accuracy[-1]) for curve in curves] == [
        ("a", [1, 2], expected),
        ("b", [1, 2], expected),
    ]
    path = tmp_path / f"picture.{ending}"
    comparison.draw(curves, str(path))
    assert path.stat().st_size > 1000


def test_runs_of_one_label_share_a_line_with_their_mean() -> None:
    curves = [Curve("a", [1], [0.5], 10.0), Curve("a", [1], [0.7], 20.0), Curve("b", [1], [0.1], 1.0)]
    head, first, second = comparison.table(curves).splitlines()
    assert head.split()[-5:] == ["mean", "least", "most", "s", "a", "run"][-5:]
    assert first.split() == ["a", "2", "0.6000", "0.5000", "0.7000", "15"]
    assert second.split() == ["b", "1", "0.1000", "0.1000", "0.1000", "1"]


def test_a_run_without_a_validated_epoch_is_refused(trained_run: Run, tmp_path: Path) -> None:
    shutil.copytree(trained_run.folder, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no validated epoch yet"):
        comparison.load([str(tmp_path / "run")], labels=None)


def test_as_many_labels_as_runs_are_expected(trained_run: Run) -> None:
    with pytest.raises(UserError, match="--labels has 2 names for 1 runs"):
        comparison.load([trained_run.folder], labels=["a", "b"])


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.svg or \.png"):
        comparison.draw([Curve("a", [1], [0.5], 1.0)], str(tmp_path / "picture.gif"))
