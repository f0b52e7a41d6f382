r"""Predicts the category of every product of a test set.

    python -m export.predict --run runs/first --data data/test-shards --output submission.csv

Writes rows of _id,category_id, every product once, in the order of ids. The
category is the most probable one on average over the product's images. Each
finished shard is kept beside the output until the submission is complete, so
the same command continues an interrupted prediction.
"""

from collections.abc import Sequence

from absl import flags

from export import predictor, submission
from model.run import Run
from pipeline import console, files, schema
from pipeline.manifest import Manifest

_RUN = flags.DEFINE_string("run", None, "Folder of a run, a --workdir of model.train.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_OUTPUT = flags.DEFINE_string("output", "submission.csv", "The CSV to write.")
_SPLIT = flags.DEFINE_enum("split", schema.TEST, schema.SPLITS, "The split to predict.")


def main(_: Sequence[str]) -> None:
    """Predicts the split that the flags name."""
    run = Run.load(_RUN.value)
    data = Manifest.load(_DATA.value)
    folder = f"{_OUTPUT.value}.parts"
    parts = predictor.predict(run, data, split=_SPLIT.value, folder=folder)
    written = submission.write(_OUTPUT.value, parts, data, split=_SPLIT.value)
    files.remove_tree(folder)
    if written.unreadable:
        console.say(
            f"{written.unreadable_products:,} products have no readable image and got the most frequent category; "
            f"they are listed in {written.unreadable}."
        )
    console.say(f"Wrote {written.path}: {written.products:,} products.")


if __name__ == "__main__":
    console.run(main)
