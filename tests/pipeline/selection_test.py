"""Tests of which products an epoch trains on."""

from collections import Counter

import numpy as np
import pytest

from pipeline import product_batches
from pipeline.console import UserError
from pipeline.input import InputConfig, TrainInput
from pipeline.manifest import Manifest
from pipeline.selection import Selection, SelectionConfig


def _table(data: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and labels of the train split."""
    label_of = data.taxonomy().label_of
    tables = [data.records("train", shard) for shard in range(len(data.shards("train")))]
    categories = np.concatenate([table.category_id for table in tables])
    return np.concatenate([table.product_id for table in tables]), np.array([label_of[c] for c in categories.tolist()])


def _copies(data: Manifest, epoch: int = 0, **options: object) -> np.ndarray:
    return Selection(data, SelectionConfig(**options)).copies(*_table(data), epoch)  # type: ignore[arg-type]


def test_shares_of_epochs_are_disjoint_and_cover_all(train_data: Manifest) -> None:
    shares = [_copies(train_data, epoch, sample_fraction=0.25) for epoch in range(8)]
    assert (np.sum(shares[:4], axis=0) == 1).all()
    assert (np.sum(shares[4:], axis=0) == 1).all()
    assert all(0.1 < share.mean() < 0.4 for share in shares)


def test_parts_are_disjoint_and_cover_all(train_data: Manifest) -> None:
    parts = [_copies(train_data, data_shard=f"{number}/3") for number in (1, 2, 3)]
    assert (np.sum(parts, axis=0) == 1).all()
    assert all(part.mean() > 0.2 for part in parts)


def test_a_part_stays_the_same_in_every_epoch(train_data: Manifest) -> None:
    np.testing.assert_array_equal(_copies(train_data, 0, data_shard="2/3"), _copies(train_data, 5, data_shard="2/3"))


def test_the_most_frequent_categories_can_be_chosen(train_data: Manifest) -> None:
    _, labels = _table(train_data)
    most = {label for label, _ in sorted(Counter(labels.tolist()).items(), key=lambda item: (-item[1], item[0]))[:3]}
    copies = _copies(train_data, only_categories="top:3")
    assert set(labels[copies == 1].tolist()) == most
    assert set(copies.tolist()) == {0, 1}


def test_categories_can_be_named(train_data: Manifest) -> None:
    ids = train_data.taxonomy().category_ids
    _, labels = _table(train_data)
    copies = _copies(train_data, only_categories=f"{ids[2]},{ids[5]}")
    np.testing.assert_array_equal(copies == 1, np.isin(labels, [2, 5]))


@pytest.mark.parametrize("named", ["12345678", "shoes", "top:many"])
def test_categories_that_are_not_there_are_refused(train_data: Manifest, named: str) -> None:
    with pytest.raises(UserError, match="--only_categories"):
        _copies(train_data, only_categories=named)


def test_balance_draws_every_category_alike_and_keeps_the_size_of_an_epoch(train_data: Manifest) -> None:
    _, labels = _table(train_data)
    drawn = np.sum([_copies(train_data, epoch, balance=1.0) for epoch in range(20)], axis=0)
    by_category = np.bincount(labels, weights=drawn)[np.unique(labels)]
    np.testing.assert_allclose(by_category, len(labels) * 20 / len(by_category), rtol=0.05)
    half = np.bincount(labels, weights=_copies(train_data, balance=0.5))
    natural = np.bincount(labels)
    assert half[natural.argmax()] < natural.max()


@pytest.mark.parametrize(
    "options", [{"sample_fraction": 0.3}, {"data_shard": "2/2"}, {"only_categories": "top:4"}, {"balance": 1.0}]
)
def test_every_epoch_has_the_same_number_of_steps_of_chosen_images(
    train_data: Manifest, options: dict[str, object]
) -> None:
    selected = SelectionConfig(**options)  # type: ignore[arg-type]
    config = InputConfig(batch_size=8, decode_size=36, image_size=32, selection=selected)
    train_input = TrainInput(train_data, config)
    chosen = Selection(train_data, config.selection)
    for epoch in range(3):
        batches = list(train_input.epoch(epoch))
        assert len(batches) == train_input.steps > 0
        labels = np.concatenate([labels for _, labels, _ in batches])
        assert chosen.chosen[labels].all()


def test_validation_keeps_to_the_chosen_categories(train_data: Manifest) -> None:
    selected = SelectionConfig(only_categories="top:2")
    config = InputConfig(batch_size=16, decode_size=36, image_size=32, selection=selected)
    chosen = Selection(train_data, config.selection).chosen
    batches = list(product_batches.products(train_data, config, split="validation"))
    labels = np.concatenate([batch.labels[: int(batch.products)] for batch in batches])
    assert len(labels) > 0
    assert chosen[labels].all()


@pytest.mark.parametrize(
    "options", [{"sample_fraction": 0.0}, {"data_shard": "0/3"}, {"data_shard": "third"}, {"balance": 1.5}]
)
def test_impossible_options_are_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        SelectionConfig(**options)  # type: ignore[arg-type]
