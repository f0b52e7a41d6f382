"""Tests of the stages of unfreezing."""

import pytest

from model import stages
from model.stages import Stage
from pipeline.console import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all:10", [("all", 10, 1.0)]),
        ("head:1,block14:2@0.3,all:5@1e-1", [("head", 1, 1.0), ("block14", 2, 0.3), ("all", 5, 0.1)]),
        (" head:1 , all:2@.5 ", [("head", 1, 1.0), ("all", 2, 0.5)]),
        ("all:1@2", [("all", 1, 2.0)]),
        ("all:1@3.E+2", [("all", 1, 300.0)]),
    ],
)
def test_stages_are_read_in_order(text: str, expected: list[tuple[str, int, float]]) -> None:
    assert stages.parse(text) == tuple(Stage(*item) for item in expected)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("all", "'all'"),
        ("all:0", "'all:0'"),
        ("all:-1", "'all:-1'"),
        ("all:1.5", "'all:1.5'"),
        (":1", "':1'"),
        ("head:1,", "''"),
        ("head:1,,all:1", "''"),
        ("head:1;all:1", "'head:1;all:1'"),
        ("all:1@", "'all:1@'"),
        ("all:1@fast", "'all:1@fast'"),
        ("all:1@1e", "'all:1@1e'"),
        ("all:1@.", "'all:1@.'"),
        ("all:1@-0.1", "'all:1@-0.1'"),
        ("head:1,a b:1", "'a b:1'"),
    ],
)
def test_what_is_no_stage_is_refused_and_shown(text: str, shown: str) -> None:
    with pytest.raises(UserError, match="LAYERS:EPOCHS") as caught:
        stages.parse(text)
    assert f"--stages has {shown};" in str(caught.value)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, (0, 0)), (1, (1, 1)), (2, (1, 1)), (3, (1, 1)), (4, (2, 4)), (5, (2, 4))],
)
def test_an_epoch_belongs_to_the_stage_whose_epochs_hold_it(epoch: int, expected: tuple[int, int]) -> None:
    assert stages.of_epoch(stages.parse("head:1,block2:3,all:2"), epoch) == expected


def test_an_epoch_past_the_last_stage_is_an_error() -> None:
    plan = stages.parse("head:1,all:2")
    assert stages.total_epochs(plan) == 3
    with pytest.raises(ValueError, match="epoch 3 is past the 3 epochs"):
        stages.of_epoch(plan, 3)


@pytest.mark.parametrize("trainable", ["head", "all", "block2"])
def test_layers_that_there_are_may_be_named(trainable: str) -> None:
    stages.check(trainable, ("block1", "block2"))


def test_layers_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'block'.* expected head, all, or one of block1, block2"):
        stages.check("block", ("block1", "block2"))


def test_at_once_is_one_stage_of_as_many_epochs() -> None:
    assert stages.at_once(stages.parse("head:1,block2:2@0.3,all:4@0.1")) == (Stage("all", 7, 0.1),)
