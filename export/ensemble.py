r"""Combines the scores of several predictions into one submission.

    python -m export.ensemble --scores scores/first,scores/second --output submission.csv

The scores are folders that python -m export.predict --scores has written for
the same test set; no picture is looked at again. With scores of the validation
split in --labels (of the same members in the same order), it also shows what
each member adds, and --method=fitted weighs members by them:

    python -m export.ensemble --scores scores/first,scores/second --labels validation/first,validation/second \
        --method fitted --output submission.csv
"""

from collections.abc import Sequence

from absl import flags

from export import combine, ensembling
from pipeline import console

_SCORES = flags.DEFINE_list("scores", None, "Folders of scores, comma-separated.", required=True)
_LABELS = flags.DEFINE_list("labels", [], "Folders of scores of the validation split, of the same members.")
_OUTPUT = flags.DEFINE_string("output", "submission.csv", "The CSV to write.")
_METHOD = flags.DEFINE_enum(
    "method", combine.MEAN, combine.METHODS, "How members are joined; fitted is a mean with weights of validation."
)


def main(_: Sequence[str]) -> None:
    """Combines the scores that the flags name."""
    config = ensembling.EnsembleConfig(
        scores=tuple(_SCORES.value), labels=tuple(_LABELS.value), output=_OUTPUT.value, method=_METHOD.value
    )
    console.say(ensembling.run(config).summary())


if __name__ == "__main__":
    console.run(main)
