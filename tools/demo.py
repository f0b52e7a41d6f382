r"""The whole job on a made-up catalogue: draw, shard, train, evaluate, predict, and a report.

    python -m tools.demo --output demo

Each command is shown as one would type it. The made-up test set has a solution,
so the report can say how many of the predictions are right.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from pipeline import console
from tools import synthetic_catalogue

_OUTPUT = flags.DEFINE_string("output", "demo", "Folder of everything that is made.")
_PRODUCTS = flags.DEFINE_integer("products", 3000, "Number of labelled products.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of training.")


class Step(NamedTuple):
    """A command and how long it took, in seconds."""

    module: str
    seconds: float


def main(_: Sequence[str]) -> None:
    """Runs every command, then reports."""
    folder = _OUTPUT.value
    begun = time.monotonic()
    steps = [_run(command) for command in commands(folder, products=_PRODUCTS.value, epochs=_EPOCHS.value)]
    console.say("\n".join(report(folder, steps, time.monotonic() - begun)))


def commands(folder: str, *, products: int, epochs: int) -> list[list[str]]:
    """Returns the arguments of each command: a module and its flags."""
    train, test = (os.path.join(folder, name) for name in (synthetic_catalogue.TRAIN, synthetic_catalogue.TEST))
    train_shards, test_shards = (os.path.join(folder, name) for name in ("train-shards", "test-shards"))
    run, submission = os.path.join(folder, "run"), os.path.join(folder, "submission.csv")
    training = ["--data", train_shards, "--workdir", run, f"--stages=all:{epochs}"]
    return [
        ["tools.synthesize", "--output", folder, f"--products={products}", "--test_products=600", "--overwrite"],
        ["pipeline.shard", "--input", train, "--overwrite"],
        ["pipeline.shard", "--input", test, "--overwrite"],
        ["model.train", "--flagfile=simple_cnn.flags", *training],
        ["model.evaluate", "--run", run, "--data", train_shards],
        ["export.predict", "--run", run, "--data", test_shards, "--output", submission],
    ]


def _run(command: Sequence[str]) -> Step:
    console.say(f"\n$ python -m {shlex.join(command)}")
    begun = time.monotonic()
    status = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if status:
        raise console.UserError(f"{command[0]} ended with status {status}; its own message stands above.")
    return Step(command[0], time.monotonic() - begun)


def report(folder: str, steps: Sequence[Step], seconds: float) -> list[str]:
    """Returns lines that say what the commands have reached."""
    with open(os.path.join(folder, "run", "evaluation.json"), encoding="utf-8") as file:
        found = json.load(file)["all"]
    answers = _read(os.path.join(folder, "submission.csv"))
    truth = _read(os.path.join(folder, synthetic_catalogue.SOLUTION))
    right = sum(answers[product] == category for product, category in truth.items())
    most = max(map(list(truth.values()).count, set(truth.values())))
    return [
        "",
        *(f"{step.seconds:>7.1f} s  {step.module}" for step in steps),
        f"{seconds:>7.1f} s  in all",
        f"validation accuracy by product: {found['product_accuracy'][-1]:.4f} of {found['products']} products",
        f"test accuracy by product:       {right / len(truth):.4f} of {len(truth)} products",
        f"always the most frequent:       {most / len(truth):.4f}, the least that counts as learning",
        f"Everything is in {folder}; with your own train.bson the same commands do the same.",
    ]


def _read(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8", newline="") as file:
        return {row["_id"]: row["category_id"] for row in csv.DictReader(file)}


if __name__ == "__main__":
    console.run(main)
