r"""Draws the validation accuracy of runs, epoch by epoch, and prints what each reached.

    python -m tools.compare --runs runs/gradual,runs/at-once --output unfreezing.svg

Runs that differ in nothing but their seed or fold are drawn in one colour.
--labels names the runs in order; the same label makes them one group, whose
mean is printed. By default a label is what the runs' options differ in.
"""

import os
from collections.abc import Sequence

from absl import flags

from pipeline import console
from tools import comparison

_RUNS = flags.DEFINE_list("runs", None, "Folders of runs, comma-separated.", required=True)
_OUTPUT = flags.DEFINE_string("output", "comparison.svg", "The picture; its ending decides its format, .svg or .png.")
_LABELS = flags.DEFINE_list("labels", None, "Names of the runs, in their order; by default what they differ in.")


def main(_: Sequence[str]) -> None:
    """Compares the runs that the flags name."""
    runs = comparison.load(_RUNS.value, labels=_LABELS.value)
    os.makedirs(os.path.dirname(_OUTPUT.value) or ".", exist_ok=True)
    comparison.draw(runs, _OUTPUT.value)
    console.say(comparison.table(runs))
    console.say(f"Wrote {_OUTPUT.value}.")


if __name__ == "__main__":
    console.run(main)
