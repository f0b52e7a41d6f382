r"""Trains a classifier on a dataset of shards.

    python -m model.train --flagfile=simple_cnn.flags --data data/train-shards --workdir runs/first

A flagfile holds the flags of an experiment; flags after it override it. Bare
names are looked up in model/flags/: simple_cnn.flags, xception.flags. The
working folder keeps options, checkpoints, TensorBoard logs and metrics.jsonl;
the same command again continues the run where it stopped.
"""

from collections.abc import Sequence

from absl import flags

from model import flagfile, options, trainer
from model.config import TrainConfig
from model.run import Run
from pipeline import console
from pipeline.manifest import Manifest

_DATA = flags.DEFINE_string("data", None, "Folder of pipeline.shard, or several, comma-separated.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_config = options.define(TrainConfig)


def main(_: Sequence[str]) -> None:
    """Trains the run that the flags describe."""
    config = _config()
    data = Manifest.load(_DATA.value).hold_out(config.fold)
    run = Run.begin(_WORKDIR.value, config, data)
    trainer.train(run, data)
    console.say(
        f"Wrote {run.folder}. Next: python -m export.predict --run {run.folder} --data TEST --output submission.csv"
    )


if __name__ == "__main__":
    console.run(main, flags_parser=flagfile.parse)
