"""Finds flagfiles by their bare names: --flagfile=xception.flags works from any folder."""

import os
from collections.abc import Sequence

from absl import flags

from model import options
from model.config import TrainConfig
from pipeline.console import UserError, parse_flags, parse_known_flags

FOLDER = os.path.join(os.path.dirname(__file__), "flags")
_OPTION = "--flagfile"


def parse(argv: Sequence[str]) -> Sequence[str]:
    """Parses flags as absl does, after looking up bare flagfile names in `model/flags/`."""
    return parse_flags(_located(argv))


def parse_known(argv: Sequence[str]) -> Sequence[str]:
    """Parses as `parse` does the command's own flags, and leaves those that it passes on."""
    return parse_known_flags(_located(argv))


def _located(argv: Sequence[str]) -> list[str]:
    arguments = list(argv)
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("--", "-", 1) != _OPTION.replace("--", "-", 1):
            continue
        if equals:
            arguments[number] = f"{_OPTION}={locate(value)}"
        elif number + 1 < len(arguments):
            arguments[number + 1] = locate(arguments[number + 1])
    return arguments


def locate(name: str) -> str:
    """Returns the path of a flagfile, given as a path or as a bare name.

    Raises:
      UserError: There is no such file.
    """
    known = os.path.join(FOLDER, name)
    if os.path.exists(name):
        return name
    if os.path.dirname(name) or not os.path.exists(known):
        there = ", ".join(sorted(os.listdir(FOLDER)))
        raise UserError(f"there is no flagfile {name!r}; expected a path, or one of {there}.")
    return known


def read(name: str) -> TrainConfig:
    """Returns the options of a flagfile, for those who are no command of training themselves.

    Raises:
      UserError: There is no such file, or an option of it makes no sense.
    """
    values = flags.FlagValues()
    config = options.define(TrainConfig, values)
    try:
        values(["", f"{_OPTION}={locate(name)}"])
    except flags.Error as error:
        raise UserError(f"{name}: {error}.") from None
    return config()
