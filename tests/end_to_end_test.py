"""The whole job as a user types it: draw, shard, train, evaluate, predict."""

import csv
import json
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline import schema
from pipeline.manifest import Manifest

_COMMANDS = """
tools.synthesize --output data --products 600 --test_products 150 --num_categories 6 --seed 3
pipeline.shard --input data/train.bson --shard_bytes 1000000
pipeline.shard --input data/test.bson --shard_bytes 500000
model.train --flagfile=simple_cnn.flags --data data/train-shards --workdir run --stages all:2
    --decode_size=64 --image_size=64
model.evaluate --run run --data data/train-shards
export.predict --run run --data data/test-shards --output submission.csv
"""


def _answers(path: Path) -> dict[int, int]:
    with open(path, encoding="utf-8", newline="") as file:
        return {int(row["_id"]): int(row["category_id"]) for row in csv.DictReader(file)}


def test_a_made_up_catalogue_becomes_a_submission_that_is_mostly_right(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for line in _COMMANDS.replace("\n    ", " ").strip().splitlines():
        result = command(*shlex.split(line), cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr

    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["model"]["backbone"] == "simple_cnn"
    assert (config["optimization"]["learning_rate"], config["loss"]["label_smoothing"]) == (
        0.003,
        0.1,
    )  # Of the flagfile, found by its name.
    assert (config["stages"], config["input"]["image_size"]) == ("all:2", 64)  # Overridden after it.

    truth = _answers(tmp_path / "data" / "solution.csv")
    answers = _answers(tmp_path / "submission.csv")
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert rows[0] == "_id,category_id"
    assert len(rows) == 151
    assert list(answers) == sorted(truth)
    [(_, most)] = Counter(truth.values()).most_common(1)
    right = sum(answers[number] == category for number, category in truth.items())
    assert right / 150 > most / 150 + 0.15

    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    held_out = Manifest.load(str(tmp_path / "data" / "train-shards")).product_ids(schema.VALIDATION)
    assert report["all"]["products"] == len(held_out)
    assert report["all"]["product_accuracy"][-1] > most / 150 + 0.15
