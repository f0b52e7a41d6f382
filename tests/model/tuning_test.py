"""Tests of the search for flags, with a stand-in for the training of a trial."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from model import locks, trials, tuning
from model.tuning import TuningConfig
from pipeline.console import UserError

# Says that accuracy is the dropout, in two epochs; refuses other flags, and breaks off where it is told to.
_TRAIN = """#!{python}
import json, os, sys
values = dict(word[2:].split("=") for word in sys.argv[3:])
if "nonsense" in values:
    sys.exit("error: Unknown command line flag 'nonsense'.")
folder = values["workdir"]
os.makedirs(folder, exist_ok=True)
open(os.path.join(folder, "run.json"), "w").write("{{}}")
if "diverge" in values:
    sys.exit("error: the loss is nan.")
with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
    for epoch in (1, 2):
        accuracy = float(values["dropout"]) * epoch / 2
        print(json.dumps({{"validation": {{"all": {{"product_accuracy": [1, accuracy]}}}}}}), file=file)
"""


class _KilledError(Exception):
    """Stands for a process that ends."""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(_TRAIN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(tuning, "_POLL_SECONDS", 0.02)


def _config(tmp_path: Path, **options: Any) -> TuningConfig:
    given: dict[str, Any] = {"space": "dropout=0.0..0.5", "flags": ("--seed=1",), "trials": 3, "prune": False}
    return TuningConfig(folder=str(tmp_path / "search"), **given | options)


def _trials(config: TuningConfig) -> list[dict[str, Any]]:
    [study] = optuna.get_all_study_summaries(f"sqlite:///{config.folder}/study.sqlite")
    loaded = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{config.folder}/study.sqlite")
    return [{"state": trial.state.name, "value": trial.value, **trial.params} for trial in loaded.trials]


def test_each_trial_is_a_run_and_the_best_stands_first(tmp_path: Path) -> None:
    config = _config(tmp_path)
    table = Path(tuning.tune(config)).read_text().splitlines()
    found = _trials(config)
    assert [trial["value"] for trial in found] == pytest.approx([trial["dropout"] for trial in found])
    best = max(range(3), key=lambda number: found[number]["value"])
    assert table[4].startswith(f"| {best + 1} | {found[best]['value']:.4f} | 2 | complete |")
    assert (tmp_path / "search" / "trials" / "0002" / "metrics.jsonl").exists()
    assert (tmp_path / "search" / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "search" / "trials.csv").read_text().splitlines()) == 4


def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, killed = (replace(_config(tmp_path), folder=str(tmp_path / name)) for name in ("whole", "killed"))
    tuning.tune(undisturbed)

    train = tuning._train

    def broken(config: TuningConfig, trial: optuna.trial.Trial, folder: str) -> Any:
        if trial.number == 1:
            raise _KilledError
        return train(config, trial, folder)

    monkeypatch.setattr(tuning, "_train", broken)
    with pytest.raises(_KilledError):
        tuning.tune(killed)
    assert [trial["state"] for trial in _trials(killed)] == ["COMPLETE", "RUNNING"]
    monkeypatch.setattr(tuning, "_train", train)
    tuning.tune(killed)
    assert _trials(killed) == _trials(undisturbed)


def test_more_trials_continue_a_finished_search(tmp_path: Path) -> None:
    tuning.tune(_config(tmp_path, trials=1))
    tuning.tune(_config(tmp_path, trials=2))
    assert len(_trials(_config(tmp_path))) == 2


def test_a_trial_that_diverges_counts_as_failed(tmp_path: Path) -> None:
    config = _config(tmp_path, flags=("--diverge=yes",), trials=2)
    tuning.tune(config)
    assert [trial["state"] for trial in _trials(config)] == ["FAIL", "FAIL"]


def test_flags_that_training_refuses_end_the_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.train refused the flags of a trial: Unknown command line flag"):
        tuning.tune(_config(tmp_path, flags=("--nonsense=1",)))


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    tuning.tune(_config(tmp_path, trials=1))
    with pytest.raises(UserError, match=r"holds another search: space was .* and is .dropout=0\.1"):
        tuning.tune(_config(tmp_path, space="dropout=0.1..0.2"))
    with locks.held(str(tmp_path / "search")), pytest.raises(UserError, match="another process works on"):
        tuning.tune(_config(tmp_path, trials=2))


def test_a_run_without_validation_has_no_accuracies(tmp_path: Path) -> None:
    assert trials.accuracies(str(tmp_path)) == []
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 1}) + "\n")
    assert trials.accuracies(str(tmp_path)) == []
