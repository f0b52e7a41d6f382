r"""Searches for better flags of model.train.

    python -m model.tune --flagfile=simple_cnn.flags --data data/train-shards --workdir runs/tuning \
        --space 'learning_rate=log:1e-4..1e-2,dropout=0.0..0.5,optimizer=adamw|sgd' --trials 20

All other flags are those of model.train and hold for every trial; fewer epochs
or less data make trials shorter, for example --stages=all:3. Each trial is an
ordinary run in WORKDIR/trials, with a card of its own. trials.md is the table,
trials.png the picture. The same command again continues an interrupted search.
"""

from collections.abc import Sequence

from absl import flags

from model import flagfile, tuning
from model.tuning import TuningConfig
from pipeline import console

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the search.", required=True)
_SPACE = flags.DEFINE_string(
    "space", None, "FLAG=LOW..HIGH, FLAG=log:LOW..HIGH or FLAG=A|B|C, comma-separated.", required=True
)
_TRIALS = flags.DEFINE_integer("trials", 20, "Number of trials in all; a larger one continues a finished search.")
_PRUNE = flags.DEFINE_bool("prune", True, "End trials early that are worse than the median of those before.")
_TUNING_SEED = flags.DEFINE_integer("tuning_seed", 0, "Determines what is proposed; --seed is that of each run.")


def main(argv: Sequence[str]) -> None:
    """Searches as the flags say."""
    config = TuningConfig(
        folder=_WORKDIR.value,
        space=_SPACE.value,
        flags=tuple(argv[1:]),
        trials=_TRIALS.value,
        prune=_PRUNE.value,
        seed=_TUNING_SEED.value,
    )
    console.say(f"Wrote {tuning.tune(config)}.")


if __name__ == "__main__":
    console.run(main, flags_parser=flagfile.parse_known)
