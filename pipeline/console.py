"""What every command shares on a terminal: one-line errors and progress."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NoReturn, TypeVar

from absl import app, flags
from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 10.0
_SCALED_FROM = 100_000  # Smaller amounts are shown to the last digit.
_DEBUG_VARIABLE = "AISLE_DEBUG"

_Result = TypeVar("_Result")


class UserError(Exception):
    """Something that the user can mend.

    The message says what arrived, what was expected and what to do. Commands
    print it as one line and exit with status 1, without a traceback.
    """


def run(
    main: Callable[[Sequence[str]], None],
    *,
    flags_parser: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> None:
    """Runs `main` as an absl app and turns expected failures into one line.

    Args:
      main: Called with the arguments that are left after flag parsing.
      flags_parser: Parses `sys.argv` and returns what is no flag. The default
        parses absl flags and refuses positional arguments.
    """
    parser = flags_parser or parse_flags
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _guarded(parser, argv))


def parse_flags(argv: Sequence[str]) -> Sequence[str]:
    """Parses the command's flags; anything else on the command line is an error."""
    rest = parse_flags_and_arguments(argv)
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: options are given as --name=value.")
    return rest


def parse_flags_and_arguments(argv: Sequence[str]) -> Sequence[str]:
    """Parses the command's flags and leaves positional arguments; an unknown flag is an error."""
    try:
        rest: Sequence[str] = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}. Run with --help for the flags.") from None
    return rest


def parse_known_flags(argv: Sequence[str]) -> Sequence[str]:
    """Parses the command's own flags and leaves all others, for commands that pass them on."""
    try:
        rest: Sequence[str] = flags.FLAGS(argv, known_only=True)
    except flags.Error as error:
        raise UserError(f"{error}. Run with --help for the flags.") from None
    return rest


def _guarded(call: Callable[[Sequence[str]], _Result], argv: Sequence[str]) -> _Result:
    try:
        return call(argv)
    except (UserError, OSError, MemoryError, KeyboardInterrupt) as error:
        if os.environ.get(_DEBUG_VARIABLE):
            raise
        fail(_one_line(error))


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues where this one stopped."
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    return " ".join(str(error).split())


def fail(message: str) -> NoReturn:
    """Prints one line on standard error and exits with status 1."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def say(message: str) -> None:
    """Prints one line of result on standard output, above any progress bar."""
    tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


@contextmanager
def native_stderr_to(path: str) -> Iterator[None]:
    """Sends to a file what native code and child processes print; this process's Python still reaches the terminal."""
    ours, before = os.dup(2), sys.stderr
    try:
        with open(path, "ab") as file, os.fdopen(os.dup(ours), "w", buffering=1) as sys.stderr:
            os.dup2(file.fileno(), 2)
            yield
    finally:
        os.dup2(ours, 2)
        sys.stderr = before
        os.close(ours)


class _Lines:
    """A text file that ends each refresh of a bar with a newline, for logs."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self._file.write(text + "\n")

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def progress(label: str, *, total: float | None, unit: str, initial: float = 0) -> "Iterator[tqdm[Any]]":
    """Shows a bar with rate and ETA on a terminal, and plain lines in a log.

    Args:
      label: What is being done, a verb form such as "writing shards".
      total: Expected amount, in `unit`; None when it is not known.
      unit: "B" (shown with binary prefixes), or a word such as " products".
      initial: Amount already done by an earlier, interrupted command.

    Yields:
      The bar; call its `update(amount)`.
    """
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=unit == "B" or (total or 0) >= _SCALED_FROM,
        unit_divisor=1024 if unit == "B" else 1000,
        initial=initial,
        dynamic_ncols=terminal,
        ncols=None if terminal else 0,
        mininterval=0.2 if terminal else _LOG_INTERVAL_SECONDS,
        maxinterval=_LOG_INTERVAL_SECONDS,
        file=sys.stderr if terminal else _Lines(sys.stderr),
    )
    try:
        yield bar
    finally:
        bar.close()
