"""Runs side by side: their validation accuracy by epoch, as a picture and as a table."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from model.config import TrainConfig
from model.metrics import ALL
from model.run import Run
from pipeline.console import UserError

_FORMATS = (".svg", ".png")
_COLOURS = ("#1f6f8b", "#d1603d", "#7a9e3b", "#6b4e90", "#444444")
_REPEATED = ("seed", "fold")  # Runs that differ in these alone repeat one experiment.


class Curve(NamedTuple):
    """The validation of a run.

    Attributes:
      label: Name of the run, or of its group.
      epochs: Numbers of the epochs, from 1.
      accuracy: Accuracy by product at the last level after each, in [0, 1].
      seconds: Time of training, validation left out.
    """

    label: str
    epochs: list[int]
    accuracy: list[float]
    seconds: float


def load(folders: Sequence[str], *, labels: Sequence[str] | None) -> list[Curve]:
    """Reads the validation of runs.

    Args:
      folders: Folders of the runs.
      labels: Name of each; None makes names of what the options differ in.

    Raises:
      UserError: A folder holds no run, or no validation yet, or there are not
        as many labels as runs.
    """
    runs = [Run.load(folder) for folder in folders]
    if labels is not None and len(labels) != len(runs):
        raise UserError(f"--labels has {len(labels)} names for {len(runs)} runs; expected one for each.")
    return [
        _curve(run, label) for run, label in zip(runs, labels or differences([run.config for run in runs]), strict=True)
    ]


def _curve(run: Run, label: str) -> Curve:
    records: list[dict[str, Any]] = []
    if os.path.exists(run.metrics):
        with open(run.metrics, encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
    validated = [record for record in records if "validation" in record]
    if not validated:
        raise UserError(f"{run.folder} has no validated epoch yet; expected a run that has finished one.")
    return Curve(
        label,
        [record["epoch"] for record in validated],
        [record["validation"][ALL]["product_accuracy"][-1] for record in validated],
        sum(record["seconds"] for record in records),
    )


def differences(configs: Sequence[TrainConfig]) -> list[str]:
    """Returns for each run the options in which the runs differ, seeds and folds left out."""
    flat = [_flat(config.to_json()) for config in configs]
    differ = [name for name in flat[0] if name not in _REPEATED and len({str(each[name]) for each in flat}) > 1]
    return [" ".join(f"--{name}={each[name]}" for name in differ) or "the same options" for each in flat]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value) if isinstance(value, dict) else {name: value}
    return found


def draw(curves: Sequence[Curve], path: str) -> None:
    """Draws a line for each run, one colour for each label.

    Raises:
      UserError: The path ends in neither .svg nor .png.
    """
    if not path.endswith(_FORMATS):
        raise UserError(f"--output is {path}; expected a name that ends in {' or '.join(_FORMATS)}.")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    labels = list(dict.fromkeys(curve.label for curve in curves))
    for curve in curves:
        colour = _COLOURS[labels.index(curve.label) % len(_COLOURS)]
        axes.plot(curve.epochs, curve.accuracy, color=colour, marker="o", markersize=3, linewidth=1.5)
    for number, label in enumerate(labels):
        axes.plot([], [], color=_COLOURS[number % len(_COLOURS)], label=label)
    axes.set(xlabel="epoch", ylabel="validation accuracy by product", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.endswith(".svg") else None)


def table(curves: Sequence[Curve]) -> str:
    """Returns a line for each label: its runs, the mean, least and greatest of their last epochs, and their time."""
    lines = [f"{'last epoch, by product':<44}{'runs':>5}{'mean':>9}{'least':>9}{'most':>9}{'s a run':>9}"]
    for label in dict.fromkeys(curve.label for curve in curves):
        group = [curve for curve in curves if curve.label == label]
        last = [curve.accuracy[-1] for curve in group]
        seconds = sum(curve.seconds for curve in group) / len(group)
        lines.append(
            f"{label:<44}{len(group):>5}{sum(last) / len(last):>9.4f}{min(last):>9.4f}{max(last):>9.4f}{seconds:>9.0f}"
        )
    return "\n".join(lines)
