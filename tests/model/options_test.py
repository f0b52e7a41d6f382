"""Tests of options that are flags."""

from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from absl import flags

from model import options
from model.config import TrainConfig
from pipeline.console import UserError


@dataclass(frozen=True, kw_only=True)
class _Inner:
    """What is inside.

    Attributes:
      options_test_colour: Which one, in a sentence
        of two lines.
    """

    options_test_colour: str = options.choice("red", ("red", "blue"))


@dataclass(frozen=True, kw_only=True)
class _Outer:
    """What is outside.

    Attributes:
      inner: More.
      options_test_size: How large: in metres.
      options_test_share: How much.
      options_test_on: Whether.
      options_test_fold: Which fold.
    """

    inner: _Inner = field(default_factory=_Inner)
    options_test_size: int = 3
    options_test_share: float = 0.5
    options_test_on: bool = True
    options_test_fold: int | None = None


@pytest.fixture(scope="module", name="read")
def _read() -> Any:
    return options.define(_Outer)


def test_without_flags_options_are_those_of_the_dataclass(read: Any) -> None:
    flags.FLAGS(["command"])
    assert read() == _Outer()


def test_each_field_is_a_flag_however_deep(read: Any) -> None:
    words = ["size=7", "share=1e-3", "fold=2", "colour=blue"]
    flags.FLAGS(["command", "--nooptions_test_on", *(f"--options_test_{word}" for word in words)])
    assert read() == _Outer(
        inner=_Inner(options_test_colour="blue"),
        options_test_size=7,
        options_test_share=1e-3,
        options_test_on=False,
        options_test_fold=2,
    )
    flags.FLAGS.unparse_flags()
    for name in ("size", "share", "fold", "colour", "on"):
        flags.FLAGS[f"options_test_{name}"].unparse()


@pytest.mark.usefixtures("read")
def test_the_docstring_is_the_help() -> None:
    assert flags.FLAGS["options_test_colour"].help.endswith("Which one, in a sentence of two lines.")
    assert flags.FLAGS["options_test_size"].help == "How large: in metres."


def test_another_value_than_those_of_a_choice_is_refused() -> None:
    with pytest.raises(UserError, match="--options_test_colour is 'green'; expected one of red, blue"):
        options.check(_Inner(options_test_colour="green"))


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (1.0, {}, r"in \[0, 1\)"),
        (-0.1, {}, r"in \[0, 1\)"),
        (float("nan"), {}, r"in \[0, 1\)"),
        (-1, {"below": float("inf")}, "0 or more"),
    ],
)
def test_a_number_outside_its_range_is_refused(value: float, bounds: dict[str, float], expected: str) -> None:
    with pytest.raises(UserError, match=f"--options_test_share is .*; expected (a number )?{expected}"):
        options.check_range(_Outer(options_test_share=value), "options_test_share", **bounds)


def test_every_option_of_a_run_is_explained_and_named_once() -> None:
    found = options._leaves(TrainConfig)
    names = [item.name for item, _, _ in found]
    assert len(set(names)) == len(names) > len(fields(TrainConfig))
    assert all(text.endswith(".") for _, _, text in found)
