"""From score stores to a submission."""

from collections.abc import Sequence
from dataclasses import dataclass

from export import combine, contribution, submission
from export.scores import ScoreStore
from export.submission import Submission
from pipeline.console import UserError, say


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """What to combine.

    Attributes:
      scores: Folders of scores of the split to answer for.
      labels: Folders of scores of a labelled split, of the same members in the
        same order; none where nothing is to be measured.
      output: The CSV to write.
      method: One of `combine.METHODS`.
    """

    scores: tuple[str, ...]
    labels: tuple[str, ...] = ()
    output: str = "submission.csv"
    method: str = combine.MEAN

    def __post_init__(self) -> None:
        if self.method == combine.FITTED and not self.labels:
            raise UserError("--method=fitted weighs members by validation; expected their scores of it in --labels.")
        if self.labels and len(self.labels) != len(self.scores):
            raise UserError(
                f"--labels names {len(self.labels)} folders and --scores {len(self.scores)}; expected the same members."
            )


def run(config: EnsembleConfig) -> Submission:
    """Combines scores into a submission, and says what each member adds where there are labels.

    Raises:
      UserError: The scores do not belong together; see the message.
    """
    stores = _load(config.scores)
    weights = _weights(config, stores) if config.labels else None
    found = combine.combine(stores, method=config.method, weights=weights)
    return submission.write(config.output, found, stores[0].tree(), products=sum(stores[0].records))


def _load(folders: Sequence[str]) -> list[ScoreStore]:
    stores = [ScoreStore.load(folder) for folder in folders]
    combine.check_alike(stores)
    return stores


def _weights(config: EnsembleConfig, stores: Sequence[ScoreStore]) -> list[float]:
    """Shows what each member adds on validation; returns the weights of the members."""
    labelled = _load(config.labels)
    for store, other in zip(stores, labelled, strict=True):
        for name in ("runs", "taxonomy"):
            if store.content[name] != other.content[name]:
                raise UserError(
                    f"{store.folder} and {other.folder} have other {name}; expected --labels of the same members as "
                    "--scores, in the same order."
                )
    measured = contribution.measure(labelled, method=config.method)
    say(measured.table(config.scores))
    return measured.weights
