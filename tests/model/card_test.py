"""Tests of what a run says of itself."""

import csv
import re
from pathlib import Path

import pytest

from model import options
from model.run import Run
from pipeline import schema
from pipeline.manifest import Manifest


def _card(run: Run) -> str:
    return Path(run.folder, "card.md").read_text()


def _rows(run: Run, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(run.folder, name).read_text(encoding="utf-8").splitlines()))


def test_the_card_says_what_was_reached_by_band_and_what_it_cost(trained_run: Run, train_data: Manifest) -> None:
    card = _card(trained_run)
    held_out = sum(shard.records for shard in train_data.shards(schema.VALIDATION))
    assert re.search(rf"\| product, all \| 0\.\d{{4}} .* \| {held_out} \|", card)
    bands = [int(number) for number in re.findall(r"product, \S+ in train \|.*\| (\d+) \|", card)]
    assert sum(bands) == held_out
    assert train_data.fingerprint in card
    assert re.search(r"share of the time that waited for input \| \d+\.\d%", card)
    assert "Training is not finished" not in card
    assert Path(trained_run.folder, "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_class_map_names_each_logit(trained_run: Run) -> None:
    rows = _rows(trained_run, "categories.csv")
    assert [int(row["category_id"]) for row in rows] == list(trained_run.tree.category_ids)
    assert [int(row["train_products"]) for row in rows] == trained_run.train_products.tolist()
    assert [int(row["label"]) for row in rows] == list(range(len(rows)))


def test_the_flagfile_holds_every_option(trained_run: Run) -> None:
    lines = Path(trained_run.folder, "train.flags").read_text().splitlines()
    found = dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
    expected = options._flat(trained_run.config.to_json())
    assert set(found) == {name for name, value in expected.items() if value is not None}
    assert found["learning_rate"] == "0.003"


@pytest.mark.parametrize("name", ["loss", "waiting"])
def test_the_table_of_epochs_has_a_row_for_each(name: str, trained_run: Run) -> None:
    rows = _rows(trained_run, "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[f"train/{name}"]) > 0 for row in rows)
