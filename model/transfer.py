"""Begins a run with the weights of another."""

from typing import TYPE_CHECKING

import keras

from model import checkpoint, classifier
from model.config import ModelConfig
from pipeline.console import UserError, say

if TYPE_CHECKING:
    from model.run import Run


def check_source(source: "Run", config: ModelConfig) -> None:
    """Checks that a run can begin with the weights of another.

    Raises:
      UserError: The source has no checkpoint, or another backbone.
    """
    theirs, ours = source.config.model.backbone, config.backbone
    if theirs != ours:
        raise UserError(
            f"--init_from={source.folder} is a run of {theirs}, and this is one of {ours}; "
            f"give --backbone={theirs}, or another run."
        )
    if checkpoint.newest(source.checkpoints) is None:
        raise UserError(f"--init_from={source.folder} has no checkpoint yet; train it first.")


def begin_from(source: "Run", run: "Run", model: keras.Model) -> None:
    """Copies the weights of a run's newest checkpoint, those of the last layer where the categories are the same.

    Args:
      source: The run whose weights are taken.
      run: The run that begins.
      model: Its classifier.
    """
    with_head = source.tree.fingerprint == run.tree.fingerprint
    trained, path = source.trained()
    classifier.transfer(trained, model, with_head=with_head)
    kept = (
        "with its last layer: the categories are the same" if with_head else "with a new last layer: other categories"
    )
    say(f"Beginning with the weights of {path}, {kept}.")
