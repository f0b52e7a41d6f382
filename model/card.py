"""The card of a run: what it is, what it reached, what it cost and where its limits are, for people."""

import io
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from model import metrics, stages
from model.devices import Devices
from model.run import Run, best_steps, epochs_since_best
from pipeline import files, schema
from pipeline.manifest import Manifest

FILE_NAME, CURVES = "card.md", "curves.png"
_DPI = 110
_COLOURS = ("#1f6f8b", "#d1603d", "#7a9e3b", "#6b4e90")


def write(run: Run, data: Manifest, history: Sequence[dict[str, Any]], devices: Devices) -> None:
    """Writes card.md and curves.png into the run's folder.

    Args:
      run: The run.
      data: What it is trained on.
      history: The record of each finished epoch, one at least.
      devices: Where it trains.
    """
    files.write(os.path.join(run.folder, CURVES), [curves(history)])
    files.write(os.path.join(run.folder, FILE_NAME), [_text(run, data, history, devices).encode()])


def _text(run: Run, data: Manifest, history: Sequence[dict[str, Any]], devices: Devices) -> str:
    sections = [
        _head(run, history),
        f"![Loss, accuracy, learning rate and speed by epoch]({CURVES})",
        *_accuracy(run, history),
        "## Training\n\n" + _table(["", ""], _training(run, history, devices)),
        "## Data\n\n" + _table(["", ""], _data(run, data)),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(run, history)),
        "## The same run again\n\nAll flags are in `train.flags`, whose first lines give the command. Versions are in "
        "`run.json`, the meaning of the logits in `categories.csv`, an epoch a line in `metrics.csv` and "
        "`metrics.jsonl`; `tensorboard --logdir logs` shows them.",
    ]
    return "\n\n".join(sections) + "\n"


def _head(run: Run, history: Sequence[dict[str, Any]]) -> str:
    config, epochs = run.config, stages.total_epochs(run.config.plan)
    return (
        f"# {os.path.basename(os.path.abspath(run.folder))}\n\n"
        f"A classifier of product images into {run.tree.num_categories:,} categories: {config.model.backbone}, "
        f"{config.input.image_size} px, after {len(history)} of {epochs} epochs (`--stages={config.stages}`)."
    )


def _accuracy(run: Run, history: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the section on accuracy."""
    if "validation" not in history[-1]:
        return ["## Accuracy\n\nNot measured: the data has no validation split."]
    report = history[-1]["validation"]
    heads = ["", *(f"level {level + 1}" for level in range(run.tree.num_levels)), "top 5", "of"]
    body = [
        [row.title, *("" if share is None else f"{share:.4f}" for share in row.shares), f"{row.total:,}"]
        for row in metrics.rows(report)
    ]
    best = next(record for record in history if record["total_steps"] == best_steps(history))
    found = best["validation"][metrics.ALL]["product_accuracy"][-1]
    share = run.train_products.max() / max(1, run.train_products.sum())
    return [
        f"## Accuracy after epoch {history[-1]['epoch']}\n\nOn the validation products, each counted once. Those "
        "whose images are never seen share none with train. A band such as 50-361 holds the categories with so many "
        "products in train.\n\n" + _table(heads, body),
        f"The best epoch was {best['epoch']}, {found:.4f} by product (`--checkpoint=best`). Always the most frequent "
        f"category would be right for {share:.4f} of train. Products without a readable image, which are answered "
        f"with that category: {report['unreadable']:,}.",
    ]


def _training(run: Run, history: Sequence[dict[str, Any]], devices: Devices) -> list[Sequence[str]]:
    config = run.config
    seconds = sum(record["seconds"] for record in history)
    waited = sum(record["seconds"] * record["waiting"] for record in history)
    images = history[-1]["total_steps"] * config.input.batch_size
    return [
        ("time of training, validation left out", _duration(seconds)),
        ("images/s", f"{images / seconds:,.0f}"),
        ("share of the time that waited for input", f"{waited / seconds:.1%}"),
        ("devices of the last epoch", f"{devices.count} x {devices.kind}, {devices.processes} process(es)"),
        ("batches of images", f"{history[-1]['total_steps']:,} of {config.input.batch_size}"),
        ("optimizer, peak rate", f"{config.optimization.optimizer}, {config.optimization.learning_rate:g}"),
        ("weights at the start", config.model.init_from or config.model.weights),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.software.items())),
    ]


def _data(run: Run, data: Manifest) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("dataset", f"`{data.folder}`"),
        ("fingerprint of its shards", f"`{data.fingerprint}`"),
        ("fingerprint of the category tree", f"`{run.tree.fingerprint}`"),
    ]
    for split in (schema.TRAIN, schema.VALIDATION):
        shards = data.splits.get(split, ())
        products, images = sum(shard.records for shard in shards), sum(shard.images for shard in shards)
        rows.append((split, f"{products:,} products, {images:,} images"))
    if run.config.fold is not None:
        rows.append(("fold held out", str(run.config.fold)))
    return rows


def _limits(run: Run, history: Sequence[dict[str, Any]]) -> list[str]:
    counts = run.train_products
    found = [
        f"It knows {int((counts > 0).sum()):,} of the {len(counts):,} categories of the tree from train; "
        f"{int((counts < 10).sum()):,} have fewer than ten products there. It answers every picture with one of them.",
        "Accuracy was measured on products drawn like those of train: a product of another shop, another year or "
        "another camera is likely to be recognised less often.",
        "The best epoch is chosen on the validation products, so its accuracy on them is a little too good to expect "
        "elsewhere. Products that share an image with train are recognised more often than new ones; see never seen.",
        "Probabilities are not calibrated.",
    ]
    patience = run.config.patience
    if len(history) < stages.total_epochs(run.config.plan):
        ended = patience and epochs_since_best(history) >= patience
        early = f"Training ended early, {patience} epochs after the best one (`--patience={patience}`)."
        found.insert(0, early if ended else "Training is not finished.")
    return found


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min {rest:02d} s" if hours else f"{minutes} min {rest:02d} s"


def curves(history: Sequence[dict[str, Any]]) -> bytes:
    """Draws loss, accuracy, learning rate and speed by epoch, as a PNG."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    (loss, accuracy), (rate, speed) = figure.subplots(2, 2, sharex=True)
    epochs = [record["epoch"] for record in history]
    _draw(loss, "Loss in training", epochs, {"": [record["loss"] for record in history]})
    _draw(accuracy, "Accuracy", epochs, _accuracy_curves(history))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _draw(rate, "Learning rate at the end of the epoch", epochs, {"": [record["learning_rate"] for record in history]})
    _draw(speed, "Images/s", epochs, {"": [record["images_per_second"] for record in history]})
    speed.set_ylim(bottom=0)
    for axes in (rate, speed):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _accuracy_curves(history: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    found = {"train, by image": [record["accuracy"] for record in history]}
    reports = [record.get("validation") for record in history]
    if all(reports):
        for group, title in ((metrics.ALL, "validation, by product"), (metrics.NEVER_SEEN, "images never seen")):
            found[title] = [(report[group]["product_accuracy"] or [float("nan")])[-1] for report in reports if report]
        found["validation, by image"] = [
            (report[metrics.ALL]["image_accuracy"] or [float("nan")])[-1] for report in reports if report
        ]
    return found


def _draw(axes: Axes, title: str, epochs: Sequence[int], lines: dict[str, list[float]]) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for colour, (label, values) in zip(_COLOURS, lines.items(), strict=False):
        axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker="o", markersize=3)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
