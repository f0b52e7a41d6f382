r"""Writes a report on a run as one HTML page.

    python -m export.report --run runs/first --data data/train-shards --output report.html

On the validation split: accuracy by level of the tree and by frequency of the
category, how far probabilities can be trusted, what it costs to answer only
where they are high, the most confused pairs, the worst categories, the worst
errors with their pictures, and what could not be read.
"""

from collections.abc import Sequence

from absl import flags

from export import reporting
from model.run import Run
from pipeline import console
from pipeline.manifest import Manifest

_RUN = flags.DEFINE_string("run", None, "Folder of a run, a --workdir of model.train.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_OUTPUT = flags.DEFINE_string("output", "report.html", "The page to write.")
_CALIBRATED = flags.DEFINE_bool("calibrated", True, "Apply the temperature that tools.calibrate fitted, if it did.")


def main(_: Sequence[str]) -> None:
    """Reports on the run that the flags name."""
    run = Run.load(_RUN.value)
    data = Manifest.load(_DATA.value).hold_out(run.config.fold)
    report = reporting.write(_OUTPUT.value, run, data, calibrated=_CALIBRATED.value)
    console.say(
        f"Wrote {report.path}: accuracy {report.accuracy:.4f} of {report.products:,} products, "
        f"expected calibration error {report.calibration_error:.4f}."
    )


if __name__ == "__main__":
    console.run(main)
