"""The table and the picture of a search."""

import csv
import io
import json
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline import files

_TABLE, _CSV, _PICTURE = "trials.md", "trials.csv", "trials.png"
_COLOUR, _PRUNED_COLOUR, _BEST_COLOUR = "#1f6f8b", "#b9b9b9", "#d1603d"
_COLUMNS, _DPI = 3, 110


def run_folder(folder: str, number: int) -> str:
    """Returns the folder of the run of a trial, by its number from 0."""
    return os.path.join(folder, "trials", f"{number:04d}")


def accuracies(folder: str) -> list[float]:
    """Returns the validation accuracy by product after each finished epoch of a run."""
    path = os.path.join(folder, "metrics.jsonl")
    if not files.exists(path):
        return []
    records = [json.loads(line) for line in files.read(path).splitlines()]
    return [record["validation"]["all"]["product_accuracy"][-1] for record in records if "validation" in record]


def write(folder: str, trials: Sequence[FrozenTrial]) -> str:
    """Writes trials.csv, trials.md and trials.png; returns the path of the second."""
    rows = [_row(folder, trial) for trial in trials]
    rows.sort(key=lambda row: (row["state"] != "complete", -(row["accuracy"] or 0)))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    files.write(os.path.join(folder, _CSV), [text.getvalue().encode()])
    if any(row["accuracy"] is not None for row in rows):
        files.write(os.path.join(folder, _PICTURE), [picture(trials, [_row(folder, trial) for trial in trials])])
    path = os.path.join(folder, _TABLE)
    files.write(path, [_text(rows).encode()])
    return path


def _row(folder: str, trial: FrozenTrial) -> dict[str, Any]:
    run = run_folder(folder, trial.number)
    values = accuracies(run)
    return {
        "trial": trial.number + 1,
        "accuracy": values[-1] if values else None,
        "epochs": len(values),
        "state": trial.state.name.lower(),
        "minutes": round(trial.user_attrs.get("seconds", 0) / 60, 2),
        **trial.params,
        "run": os.path.relpath(run, folder),
    }


def _text(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(name, row[name]) for name in names] for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = (
        "Accuracy is by product on the validation split, after the last epoch that the trial did. A pruned trial was "
        "worse at an epoch than the median of the trials before it. The best of many trials looks better on these "
        "products than it is on others."
    )
    return f"# Trials, best first\n\n{table}\n\n![Accuracy by trial and by flag]({_PICTURE})\n\n{note}\n"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "run":
        return f"[{value}]({value}/card.md)"
    if isinstance(value, float):
        return f"{value:.4f}" if name == "accuracy" else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def picture(trials: Sequence[FrozenTrial], rows: Sequence[dict[str, Any]]) -> bytes:
    """Draws the accuracy of each trial in order, and against each flag, as a PNG."""
    names = list(trials[0].params)
    figure_rows = -(-(len(names) + 1) // _COLUMNS)
    figure = Figure(figsize=(12, 3.4 * figure_rows), layout="constrained")
    first, *others = figure.subplots(figure_rows, _COLUMNS, sharey=True, squeeze=False).ravel()
    measured = [(trial, row) for trial, row in zip(trials, rows, strict=True) if row["accuracy"] is not None]
    colours = [_COLOUR if trial.state == TrialState.COMPLETE else _PRUNED_COLOUR for trial, _ in measured]
    values = [row["accuracy"] for _, row in measured]
    first.scatter([row["trial"] for _, row in measured], values, color=colours, s=28)
    finished = [row["accuracy"] if trial.state == TrialState.COMPLETE else 0.0 for trial, row in measured]
    best = [max(finished[: number + 1]) for number in range(len(finished))]
    shown = [value or float("nan") for value in best]
    first.step([row["trial"] for _, row in measured], shown, where="post", color=_BEST_COLOUR, label="best so far")
    first.legend(frameon=False, fontsize=9)
    first.set_ylabel("validation accuracy by product")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    first.set_xlabel("trial (grey: pruned or failed)")
    for axes, name in zip(others, names, strict=False):
        distribution = trials[0].distributions[name]
        axes.scatter([_place(distribution, row[name]) for _, row in measured], values, color=colours, s=28)
        axes.set_xlabel(name)
        if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            axes.set_xscale("log")
        if isinstance(distribution, CategoricalDistribution):
            axes.set_xticks(range(len(distribution.choices)), [str(choice) for choice in distribution.choices])
    for axes in others[len(names) :]:
        axes.set_visible(False)
    for axes in (first, *others):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _place(distribution: Any, value: Any) -> Any:
    return distribution.choices.index(value) if isinstance(distribution, CategoricalDistribution) else value
