"""The space that tuning searches: which flags of a run may take which values."""

import re
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.console import UserError

_NAME = re.compile(r"(?:^|,)([a-z_0-9]+)=")
_LOG, _TO, _OR = "log:", "..", "|"
_FORM = "learning_rate=log:1e-4..1e-2,dropout=0.0..0.5,batch_size=16..64,optimizer=adamw|sgd"


@dataclass(frozen=True)
class Space:
    """What may vary.

    Attributes:
      distributions: Values by name of the flag.
    """

    distributions: dict[str, BaseDistribution]

    @classmethod
    def parse(cls, text: str) -> "Space":
        """Reads a space such as "learning_rate=log:1e-4..1e-2,dropout=0.0..0.5,optimizer=adamw|sgd".

        A range of two whole numbers holds whole numbers, any other range holds
        all numbers; `log:` draws magnitudes evenly. A choice may hold commas, as
        in "stages=all:5|head:1,all:4".

        Raises:
          UserError: The text is not in that form.
        """
        parts = _NAME.split(text.strip())
        if parts[0] or len(parts) < 3:
            raise UserError(f"--space is {text!r}; expected FLAG=VALUES, comma-separated, as in {_FORM}.")
        names, values = parts[1::2], parts[2::2]
        if len(set(names)) < len(names):
            raise UserError(f"--space is {text!r}, which names a flag twice; expected each once.")
        return cls({name: _distribution(name, value) for name, value in zip(names, values, strict=True)})


def _distribution(name: str, text: str) -> BaseDistribution:
    if _OR in text:
        return CategoricalDistribution(text.split(_OR))
    low, to, high = text.removeprefix(_LOG).partition(_TO)
    log = text.startswith(_LOG)
    try:
        if not to:
            raise ValueError("one value alone")
        return _range(low, high, log=log)
    except ValueError as error:
        raise UserError(
            f"--space gives {name} as {text!r} ({error}); expected LOW..HIGH, log:LOW..HIGH, or choices as in a|b|c."
        ) from None


def _range(low: str, high: str, *, log: bool) -> BaseDistribution:
    try:
        return IntDistribution(int(low), int(high), log=log)
    except ValueError:
        return FloatDistribution(float(low), float(high), log=log)


def flags(values: dict[str, Any]) -> list[str]:
    """Returns the flags that set some values."""
    return [f"--{name}={value}" for name, value in values.items()]
