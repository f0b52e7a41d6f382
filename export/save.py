r"""Exports a run's classifier for the use of other programs.

    python -m export.save --run runs/first --output models/products

Writes models/products/1: a SavedModel that takes encoded pictures, one or many
a product, and returns the ids, names, paths and probabilities of the best
categories. TensorFlow Serving and export.serve take the folder as it is; the
next export becomes version 2. --format=onnx writes the network alone, from
pixels to probabilities. Either is compared with export.predict on a few
pictures before it becomes visible. README.md in the folder says how to call it.
"""

from collections.abc import Sequence

from absl import flags

from export import exporting
from export.exporting import SaveConfig
from model.run import Run
from pipeline import console
from pipeline.manifest import Manifest

_RUN = flags.DEFINE_string("run", None, "Folder of a run, a --workdir of model.train.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the model; each export adds a version.", required=True)
_FORMAT = flags.DEFINE_enum("format", exporting.SAVED_MODEL, exporting.FORMATS, "What to write.")
_TOP_K = flags.DEFINE_integer("top_k", 5, "Number of categories that the SavedModel names for each product.")
_CALIBRATED = flags.DEFINE_bool("calibrated", True, "Apply the temperature that tools.calibrate fitted, if it did.")
_DATA = flags.DEFINE_string("data", None, "Dataset whose pictures check the export; by default some are drawn.")


def main(_: Sequence[str]) -> None:
    """Exports the run that the flags name."""
    run = Run.load(_RUN.value)
    data = Manifest.load(_DATA.value).hold_out(run.config.fold) if _DATA.value else None
    config = SaveConfig(output=_OUTPUT.value, format=_FORMAT.value, top_k=_TOP_K.value, calibrated=_CALIBRATED.value)
    done = exporting.export(run, config, data=data)
    console.say(
        f"Same best category as export.predict for all of {done.difference.products} products; greatest difference of "
        f"a probability: {done.difference.probability:.1e}."
    )
    if done.temperature != 1:
        console.say(f"Probabilities are calibrated with temperature {done.temperature:.3f}.")
    console.say(f"Wrote {done.path}.")
    if config.format == exporting.SAVED_MODEL:
        console.say(f"Next: python -m export.serve --model {config.output}")


if __name__ == "__main__":
    console.run(main)
