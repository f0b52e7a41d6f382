"""Tables of figures that were taken in one run, and how to take them."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A table in Markdown.

    Attributes:
      title: What was measured.
      columns: Names of the columns.
      rows: Cells of each row.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def text(self) -> str:
        """Returns the title, the machine and the table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"\n{self.title}\n({_machine()})\n\n{table}"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def best_seconds(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, prepare: Callable[[], object]
) -> dict[str, float]:
    """Returns the shortest time of each call in seconds; they take turns, so that all see the same machine.

    Args:
      calls: What to measure.
      rounds: How often.
      prepare: Called before each call, and not measured.
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            prepare()
            begun = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best
