r"""Predicts the category of every product of a test set.

    python -m export.predict --run runs/first --data data/test-shards --output submission.csv

Writes rows of _id,category_id, every product once, in the order of ids. The
category is the most probable one on average over the product's images, and
over their views and several runs where they are asked for:

    python -m export.predict --run runs/first --run runs/second --data data/test-shards --views=center,flip

Each finished shard is kept beside the output until the submission is complete,
so the same command continues an interrupted prediction. --scores keeps the best
categories with their probabilities, for python -m export.ensemble.

Options of Apache Beam (--runner=..., --direct_num_workers=...) may follow; then
the shards are predicted by a Beam job, on many machines or GPUs.
"""

from collections.abc import Sequence

from absl import flags

from export import prediction
from export.predictor import PredictConfig
from model import aggregation
from model.run import CHOICES, NEWEST
from pipeline import console, schema

_RUN = flags.DEFINE_multi_string("run", None, "Folder of a run, a --workdir of model.train; repeat it to average runs.")
_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_OUTPUT = flags.DEFINE_string("output", "submission.csv", "The CSV to write.")
_SPLIT = flags.DEFINE_enum("split", schema.TEST, schema.SPLITS, "The split to predict.")
_VIEWS = flags.DEFINE_list("views", [aggregation.CENTER], f"Ways to look at an image: {', '.join(aggregation.VIEWS)}.")
_AGGREGATE = flags.DEFINE_enum(
    "aggregate", aggregation.MEAN, aggregation.AGGREGATES, "How the images of a product and their views are joined."
)
_TOP_K = flags.DEFINE_integer("top_k", 10, "Number of categories that --scores keeps for each product.")
_SCORES = flags.DEFINE_string("scores", None, "Folder to keep the scores in; of several runs, in a subfolder each.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images in a batch; by default one that suits the device, halved where memory runs out."
)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", NEWEST, CHOICES, "The newest, or the best on the validation products.")
_CALIBRATED = flags.DEFINE_bool("calibrated", True, "Apply the temperature that tools.calibrate fitted, if it did.")
flags.mark_flag_as_required("run")


def main(argv: Sequence[str]) -> None:
    """Predicts the split that the flags name."""
    config = PredictConfig(
        runs=tuple(_RUN.value),
        data=_DATA.value,
        output=_OUTPUT.value,
        split=_SPLIT.value,
        views=tuple(_VIEWS.value),
        aggregate=_AGGREGATE.value,
        top_k=_TOP_K.value,
        scores=_SCORES.value,
        batch_size=_BATCH_SIZE.value,
        checkpoint=_CHECKPOINT.value,
        calibrated=_CALIBRATED.value,
    )
    console.say(prediction.run(config, argv[1:]).summary())


if __name__ == "__main__":
    console.run(main, flags_parser=console.parse_known_flags)
