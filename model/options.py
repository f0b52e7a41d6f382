"""Options are frozen dataclasses; each field is also a flag, and its line in the docstring is that flag's help.

So an option is written down once: `define` makes flags of a dataclass and of
the dataclasses inside it, and `build` makes the dataclasses of named values,
which come from flags, or from the file of a run. Names of fields are unique
over all of them, as names of flags must be.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from absl import flags

from pipeline.console import UserError

_Config = TypeVar("_Config")

flags.disclaim_key_flags()  # The flags belong to the command that calls `define`, so that its --help shows them.
_DEFINE: Mapping[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def choice(default: str, values: Sequence[str]) -> Any:
    """Returns a field of a dataclass that takes one of some values."""
    return field(default=default, metadata={"choices": tuple(values)})


def define(config: type[_Config], flag_values: flags.FlagValues = flags.FLAGS) -> Callable[[], _Config]:
    """Defines a flag for each field of a dataclass and of the dataclasses inside it.

    Args:
      config: The dataclass; fields are bool, int, float, str, one of these or
        None, or dataclasses of such.
      flag_values: Where they are defined; by default among the command's own.

    Returns:
      Function that returns the dataclass of the flags' values, to be called
      when they are parsed.
    """
    holders = {}
    for item, kind, text in _leaves(config):
        default = None if item.default is MISSING else item.default
        if "choices" in item.metadata:
            holders[item.name] = flags.DEFINE_enum(
                item.name, default, item.metadata["choices"], text, flag_values=flag_values
            )
        else:
            holders[item.name] = _DEFINE[kind](item.name, default, text, flag_values=flag_values)
    return lambda: build(config, {name: holder.value for name, holder in holders.items()})


def build(config: type[_Config], values: Mapping[str, Any]) -> _Config:
    """Makes a dataclass, and those inside it, of values by their names.

    Args:
      config: The dataclass.
      values: Values of fields; those inside other mappings count as well, at
        any depth, and fields without a value have their defaults.
    """
    named = _flat(values)
    hints = get_type_hints(config)
    arguments = {
        item.name: build(hints[item.name], named) if is_dataclass(hints[item.name]) else named[item.name]
        for item in fields(config)  # type: ignore[arg-type]
        if is_dataclass(hints[item.name]) or item.name in named
    }
    return config(**arguments)


def check(config: Any) -> None:
    """Checks the fields that take one of some values.

    Raises:
      UserError: A field has another value.
    """
    for item in fields(config):
        choices, value = item.metadata.get("choices"), getattr(config, item.name)
        if choices and value not in choices:
            raise UserError(f"--{item.name} is {value!r}; expected one of {', '.join(choices)}.")


def check_range(config: Any, *names: str, least: float = 0.0, below: float = 1.0) -> None:
    """Checks that fields are in [least, below).

    Raises:
      UserError: A field is outside.
    """
    for name in names:
        value = getattr(config, name)
        if not least <= value < below:
            expected = f"a number in [{least:g}, {below:g})" if below != float("inf") else f"{least:g} or more"
            raise UserError(f"--{name} is {value}; expected {expected}.")


def _leaves(config: type) -> list[tuple[Field[Any], type, str]]:
    """Returns field, type and explanation of each option, depth first."""
    hints, texts = get_type_hints(config), _explanations(config)
    found = []
    for item in fields(config):
        kind = hints[item.name]
        if is_dataclass(kind):
            found += _leaves(kind)  # type: ignore[arg-type]
        else:
            found.append((item, _plain(kind), texts[item.name]))
    return found


def _plain(kind: Any) -> type:
    """Returns the type of which a hint means a value, or None."""
    if isinstance(kind, types.UnionType):
        [kind] = [each for each in get_args(kind) if each is not type(None)]
    return kind


def _explanations(config: type) -> dict[str, str]:
    """Returns what the section "Attributes" of a docstring says of each field."""
    section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")[2]
    parts = re.split(r"^  (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found
