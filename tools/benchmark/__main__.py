r"""Measures a stage beside its limit and its peers, in one run, and prints tables.

    python -m tools.benchmark shard --gigabytes 0.4,2
    python -m tools.benchmark input --cores 1,2
    python -m tools.benchmark train
    python -m tools.benchmark train --model simple_cnn.flags
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
from tools.benchmark import input as input_benchmark
from tools.benchmark import shard
from tools.benchmark.table import Table

_FOLDER = flags.DEFINE_string("folder", tempfile.gettempdir(), "Where files are made, on the disk to be measured.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of which the best counts.")
_GIGABYTES = flags.DEFINE_list("gigabytes", ["2"], "shard: sizes of the input in GB, comma-separated.")
_CORES = flags.DEFINE_list("cores", ["1"], "input: numbers of cores that loaders are held to, comma-separated.")
_PEERS = flags.DEFINE_bool("peers", False, "input: measure other projects' loaders, see tools/benchmark/peers.txt.")
_PRODUCTS = flags.DEFINE_integer("products", 12_000, "input: products of the catalogue that is drawn.")
_PROCESSOR_TIME = flags.DEFINE_bool(
    "processor_time", False, "input: count the time of processors, for a machine that does other work too."
)
_MODEL = flags.DEFINE_list("model", [], "train, input: flagfiles of networks to feed, such as xception.flags.")


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark that is named on the command line."""
    if len(argv) != 2 or argv[1] not in _SUBJECTS:
        raise console.UserError(f"{' '.join(argv[1:]) or 'nothing'} is named; expected one of {', '.join(_SUBJECTS)}.")
    with tempfile.TemporaryDirectory(prefix="aisle-benchmark-", dir=_FOLDER.value) as folder:
        for table in _SUBJECTS[argv[1]](folder):
            console.say(table.text())


def _numbers(name: str, values: Sequence[str]) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:
        raise console.UserError(f"--{name} is {','.join(values)}; expected numbers, as in 0.4,2.") from None


def _shard(folder: str) -> Iterator[Table]:
    for size in _numbers("gigabytes", _GIGABYTES.value):
        yield shard.measure(os.path.join(folder, "train.bson"), round(size * 1e9), rounds=_ROUNDS.value)


def _input(folder: str) -> Iterator[Table]:
    work = input_benchmark.catalogue(folder, products=_PRODUCTS.value)
    yield input_benchmark.rates(
        work,
        cores=[int(count) for count in _numbers("cores", _CORES.value)],
        rounds=_ROUNDS.value,
        with_peers=_PEERS.value,
        processor_time=_PROCESSOR_TIME.value,
    )
    yield input_benchmark.stages(work)
    yield input_benchmark.shuffle_quality(work)
    if _MODEL.value:
        yield from _train(folder)


def _train(folder: str) -> Iterator[Table]:
    from tools.benchmark import train

    yield train.measure(folder, flagfiles=_MODEL.value or train.FLAGFILES, rounds=_ROUNDS.value)


def _predict(folder: str) -> Iterator[Table]:
    from tools.benchmark import predict  # Not for processes that draw pictures: TensorFlow takes seconds.

    yield from predict.measure(folder, rounds=_ROUNDS.value)


def _ensemble(folder: str) -> Iterator[Table]:
    from tools.benchmark import ensemble

    yield from ensemble.measure(folder)


_SUBJECTS = {"shard": _shard, "input": _input, "train": _train, "predict": _predict, "ensemble": _ensemble}

if __name__ == "__main__":
    console.run(main, flags_parser=console.parse_flags_and_arguments)
