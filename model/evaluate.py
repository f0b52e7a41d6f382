r"""Measures a run on the validation split of a dataset.

    python -m model.evaluate --run runs/first --data data/train-shards

Prints accuracy by product and by image, at every level of the category tree;
on all products, on those whose images train does not hold, and by the number of
products that train has of a category. Every product counts once. The whole
report is written as JSON into the run's folder.

--views and --aggregate are those of python -m export.predict, to see here what
they change there.
"""

import os
from collections.abc import Sequence

from absl import flags

from model import aggregation, evaluator, metrics
from model.run import CHOICES, NEWEST, Run
from pipeline import console, files
from pipeline.manifest import Manifest

_RUN = flags.DEFINE_string("run", None, "Folder of a run, a --workdir of model.train.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", NEWEST, CHOICES, "The newest, or the best on the validation products.")
_VIEWS = flags.DEFINE_list("views", [aggregation.CENTER], f"Ways to look at an image: {', '.join(aggregation.VIEWS)}.")
_AGGREGATE = flags.DEFINE_enum(
    "aggregate", aggregation.MEAN, aggregation.AGGREGATES, "How the images of a product and their views are joined."
)


def main(_: Sequence[str]) -> None:
    """Evaluates the run that the flags name."""
    run = Run.load(_RUN.value)
    data = Manifest.load(_DATA.value).hold_out(run.config.fold)
    classifier, checkpoint = run.trained(_CHECKPOINT.value)
    options = {"views": _VIEWS.value, "aggregate": _AGGREGATE.value}
    report = evaluator.evaluate(run, classifier, data, **options)
    report |= {"checkpoint": checkpoint, "data": data.folder} | options
    path = os.path.join(run.folder, "evaluation.json")
    files.write_json(path, report)
    console.say(metrics.table(report))
    console.say(f"always the most frequent category: {evaluator.most_frequent_share(run):.4f}")
    console.say(f"Wrote {path}. Next: {run.next_command()}")


if __name__ == "__main__":
    console.run(main)
