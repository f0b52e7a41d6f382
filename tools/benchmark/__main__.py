r"""Measures a stage beside its limit and its peers, in one run, and prints a table.

    python -m tools.benchmark shard --gigabytes 0.4,2
    python -m tools.benchmark predict
    python -m tools.benchmark ensemble

The figures of a table belong together: they were taken in turns on the same
machine, and the best of several rounds counts. Compare ratios, not machines.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence

from absl import flags

from pipeline import console
from tools.benchmark import shard
from tools.benchmark.table import Table

_FOLDER = flags.DEFINE_string("folder", tempfile.gettempdir(), "Where files are made, on the disk to be measured.")
_GIGABYTES = flags.DEFINE_list("gigabytes", ["2"], "Sizes of the input in GB, comma-separated.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of which the best counts.")

_SUBJECTS = ("shard", "predict", "ensemble")


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark that is named on the command line."""
    if len(argv) != 2 or argv[1] not in _SUBJECTS:
        raise console.UserError(f"{' '.join(argv[1:]) or 'nothing'} is named; expected one of {', '.join(_SUBJECTS)}.")
    try:
        sizes = [round(float(size) * 1e9) for size in _GIGABYTES.value]
    except ValueError:
        raise console.UserError(
            f"--gigabytes is {','.join(_GIGABYTES.value)}; expected numbers, as in 0.4,2."
        ) from None
    with tempfile.TemporaryDirectory(prefix="aisle-benchmark-", dir=_FOLDER.value) as folder:
        for table in _tables(argv[1], folder, sizes):
            console.say(table.text())


def _tables(subject: str, folder: str, sizes: Sequence[int]) -> Iterator[Table]:
    if subject == "predict":
        from tools.benchmark import predict  # Not for processes that draw pictures: TensorFlow takes seconds.

        yield from predict.measure(folder, rounds=_ROUNDS.value)
    if subject == "ensemble":
        from tools.benchmark import ensemble

        yield from ensemble.measure(folder)
    for size in sizes if subject == "shard" else ():
        yield shard.measure(os.path.join(folder, "train.bson"), size, rounds=_ROUNDS.value)


if __name__ == "__main__":
    console.run(main, flags_parser=console.parse_flags_and_arguments)
