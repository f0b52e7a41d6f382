"""The weights that a run begins with: random, published, or those of another run."""

import keras

from model import classifier
from model.run import Run
from pipeline.console import say


def first_model(run: Run) -> keras.Model:
    """Builds the classifier of a run that begins.

    Of another run the weights of the newest checkpoint are taken, those of the
    last layer where the categories are the same.
    """
    source = run.config.model.init_from
    if not source:
        return run.build(pretrained=True)
    model = run.build(pretrained=False)
    _copy(Run.load(source), run, model)
    return model


def _copy(source: Run, run: Run, model: keras.Model) -> None:
    with_head = source.tree.fingerprint == run.tree.fingerprint
    trained, path = source.trained()
    classifier.transfer(trained, model, with_head=with_head)
    kept = (
        "with its last layer: the categories are the same" if with_head else "with a new last layer: other categories"
    )
    say(f"Beginning with the weights of {path}, {kept}.")
