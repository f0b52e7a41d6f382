r"""Fits the temperature at which a run's probabilities mean what they say.

    python -m tools.calibrate --run runs/first --data data/train-shards

Writes calibration.json into the run's folder, which export.predict, export.save
and export.report apply from then on, unless they get --nocalibrated. It belongs
to one checkpoint, the newest or, with --checkpoint=best, the best; after more
training, calibrate again. One number is fitted to the validation split, so what
the report says of that split afterwards is a little too good.
"""

from collections.abc import Sequence

from absl import flags

from export import calibration
from model.run import CHOICES, NEWEST, Run
from pipeline import console
from pipeline.manifest import Manifest

_RUN = flags.DEFINE_string("run", None, "Folder of a run, a --workdir of model.train.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", NEWEST, CHOICES, "The newest, or the best on the validation products.")


def main(_: Sequence[str]) -> None:
    """Calibrates the run that the flags name."""
    run = Run.load(_RUN.value)
    found = calibration.fit(run, Manifest.load(_DATA.value).hold_out(run.config.fold), _CHECKPOINT.value)
    path = found.save(run)
    console.say(f"temperature {found.temperature:.3f}, fitted on {found.products:,} products")
    for title, (before, after) in (
        ("negative log-likelihood", found.negative_log_likelihood),
        ("expected calibration error", found.expected_calibration_error),
    ):
        console.say(f"{title:<27} {before:.4f} -> {after:.4f}")
    console.say(f"Wrote {path}. Next: python -m export.save --run {run.folder} --output MODEL")


if __name__ == "__main__":
    console.run(main)
