r"""Trains a classifier on a dataset of shards.

    python -m model.train --flagfile=simple_cnn.flags --data data/train-shards --workdir runs/first

A flagfile holds the flags of an experiment; flags after it override it. Bare
names are looked up in model/flags/: simple_cnn.flags, xception.flags. The
working folder keeps options, checkpoints, logs and a card with curves, card.md;
the same command again continues the run where it stopped.
"""

from collections.abc import Sequence

from absl import flags

from model import devices, flagfile, options, trainer
from model.config import TrainConfig
from model.run import Run
from pipeline import console
from pipeline.manifest import Manifest

_DATA = flags.DEFINE_string("data", None, "Folder of pipeline.shard, or several, comma-separated.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_DEVICES = flags.DEFINE_integer("devices", 0, "Devices of this host that share each batch; 0 takes all accelerators.")
_config = options.define(TrainConfig)


def main(_: Sequence[str]) -> None:
    """Trains the run that the flags describe."""
    config = _config()
    data = Manifest.load(_DATA.value).hold_out(config.fold)
    where = devices.open_devices(_DEVICES.value)
    run = where.in_turn(lambda: Run.begin(_WORKDIR.value, config, data))
    trainer.train(run, data, where)
    if where.writes:
        console.say(f"Wrote {run.folder}. Next: {run.next_command()}")


if __name__ == "__main__":
    console.run(main, flags_parser=flagfile.parse)
