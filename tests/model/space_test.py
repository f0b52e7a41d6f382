"""Tests of the space that tuning searches."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from model import space
from model.space import Space
from pipeline.console import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dropout=0.0..0.5", FloatDistribution(0.0, 0.5)),
        ("dropout=log:1e-4..1e-2", FloatDistribution(1e-4, 1e-2, log=True)),
        ("dropout=16..64", IntDistribution(16, 64)),
        ("dropout=log:16..64", IntDistribution(16, 64, log=True)),
        ("dropout=-1..1", IntDistribution(-1, 1)),
        ("dropout=a|b", CategoricalDistribution(["a", "b"])),
        ("dropout=all:5|head:1,all:4", CategoricalDistribution(["all:5", "head:1,all:4"])),
    ],
)
def test_values_are_read(text: str, expected: object) -> None:
    assert Space.parse(text).distributions == {"dropout": expected}


def test_flags_stand_in_their_order() -> None:
    found = Space.parse("learning_rate=log:1e-4..1e-2,stages=all:5|head:1,all:4,batch_size=16..64").distributions
    assert list(found) == ["learning_rate", "stages", "batch_size"]


@pytest.mark.parametrize(
    "text",
    ["", "dropout", "=1..2", "dropout=", "dropout=0.5", "dropout=1..x", "dropout=2..1", "log:1..2", "a=1..2,a=1..3"],
)
def test_what_is_no_space_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected"):
        Space.parse(text)


def test_values_become_flags() -> None:
    assert space.flags({"dropout": 0.25, "optimizer": "sgd"}) == ["--dropout=0.25", "--optimizer=sgd"]
