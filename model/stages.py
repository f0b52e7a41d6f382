"""Gradual unfreezing: which layers train in which epochs (Howard and Ruder, 2018, section 3.3)."""

import re
from typing import NamedTuple

from pipeline.console import UserError

HEAD, ALL = "head", "all"
GRADUAL, AT_ONCE = "gradual", "at_once"
_STAGE = re.compile(r"^([A-Za-z0-9_]+):(\d+)(?:@((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))?$")


class Stage(NamedTuple):
    """Some epochs during which the same layers train.

    Attributes:
      trainable: "head", "all", or the group of layers of the backbone that
        trains, with all that come above it.
      epochs: Number of epochs.
      rate: Factor on the learning rate.
    """

    trainable: str
    epochs: int
    rate: float


def parse(text: str) -> tuple[Stage, ...]:
    """Reads stages such as "head:1,block14:1@0.3,all:5@0.1".

    Raises:
      UserError: The text is not in that form.
    """
    found = []
    for part in text.split(","):
        match = _STAGE.match(part.strip())
        if not match or int(match[2]) < 1:
            raise UserError(
                f"--stages has {part!r}; expected LAYERS:EPOCHS or LAYERS:EPOCHS@RATE_FACTOR, such as "
                "head:1,block14:1,all:5@0.1."
            )
        found.append(Stage(match[1], int(match[2]), float(match[3] or 1)))
    return tuple(found)


def check(trainable: str, groups: tuple[str, ...]) -> None:
    """Checks that a stage names layers that a backbone has.

    Raises:
      UserError: There are no such layers.
    """
    if trainable not in (HEAD, ALL, *groups):
        raise UserError(
            f"--stages names {trainable!r}, and this backbone has no such layers; expected head, all, or one of "
            f"{', '.join(groups)}."
        )


def at_once(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Returns one stage of as many epochs as all together, which trains what the last one does, at its rate."""
    return (stages[-1]._replace(epochs=total_epochs(stages)),)


def total_epochs(stages: tuple[Stage, ...]) -> int:
    """Returns the number of epochs of all stages together."""
    return sum(stage.epochs for stage in stages)


def of_epoch(stages: tuple[Stage, ...], epoch: int) -> tuple[int, int]:
    """Returns the number of an epoch's stage, and the epoch with which that stage begins."""
    first = 0
    for number, stage in enumerate(stages):
        if epoch < first + stage.epochs:
            return number, first
        first += stage.epochs
    raise ValueError(f"epoch {epoch} is past the {first} epochs of the stages.")
