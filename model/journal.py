"""What a run says of its epochs: metrics.jsonl, metrics.csv and TensorBoard's events.

All three follow from the records that a checkpoint carries, so an interruption
between checkpoint and log loses no epoch and writes none twice.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from tensorboard.summary import Writer

from model import metrics
from model.run import Run
from pipeline import files

# In TensorBoard's and the CSV's order; a record may lack those of validation.
_OF_TRAINING = ("loss", "accuracy", "learning_rate", "images_per_second", "seconds", "waiting")


def write(run: Run, records: Sequence[dict[str, Any]]) -> None:
    """Brings the logs up to the records of all finished epochs, first to last."""
    files.write(run.metrics, [json.dumps(record).encode() + b"\n" for record in records])
    files.write(os.path.join(run.folder, "metrics.csv"), [_csv(records)])
    for record in records:
        path = os.path.join(run.logs, f"events.out.tfevents.epoch-{record['epoch']:05d}")
        if not files.exists(path):
            _write_events(path, record)


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields name and value of each number of an epoch, such as "validation_all/product_accuracy_level1"."""
    for name in _OF_TRAINING:
        yield f"train/{name}", record[name]
    report = record.get("validation", {})
    bands = report.get(metrics.BANDS, {})
    groups = {name: report[name] for name in (metrics.ALL, metrics.NEVER_SEEN) if name in report}
    for group, content in groups.items():
        for kind in ("product", "image"):
            for level, share in enumerate(content[f"{kind}_accuracy"], start=1):
                yield f"validation_{group}/{kind}_accuracy_level{level}", share
            if content[f"{kind}_top5"] is not None:
                yield f"validation_{group}/{kind}_top5", content[f"{kind}_top5"]
    for band, content in bands.items():
        yield f"validation_bands/product_accuracy_{band}", content["product_accuracy"][-1]


def _csv(records: Sequence[dict[str, Any]]) -> bytes:
    rows = [
        {"epoch": record["epoch"], "total_steps": record["total_steps"], **dict(scalars(record))} for record in records
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write_events(path: str, record: dict[str, Any]) -> None:
    """Writes an epoch's events into a file of its own, atomically."""
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(folder)
        for name, value in scalars(record):
            writer.add_scalar(name, value, record["total_steps"])
        writer.close()
        [name] = os.listdir(folder)
        files.write(path, [files.read(os.path.join(folder, name))])
