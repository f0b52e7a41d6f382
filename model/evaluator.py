"""Measures a classifier on the validation split, product by product."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from model import scoring
from model.metrics import Accuracy
from model.run import Run
from model.scoring import ProductScorer
from pipeline import product_batches, schema
from pipeline.console import progress
from pipeline.manifest import Manifest


def evaluate(
    run: Run,
    classifier: keras.Model,
    data: Manifest,
    *,
    label: str = "validating",
    views: Sequence[str] = (scoring.CENTER,),
    aggregate: str = scoring.MEAN,
) -> dict[str, Any]:
    """Returns the accuracy of a classifier on every validation product, see `model.metrics`.

    Args:
      run: The run that the classifier is of.
      classifier: Model from pictures to logits.
      data: A dataset with a validation split and the run's category tree.
      label: What to call it on the progress bar.
      views: Ways to look at an image, of `scoring.VIEWS`.
      aggregate: How images and views are joined, one of `scoring.AGGREGATES`.
    """
    run.check_tree(data)
    config = run.config.input
    scorer = ProductScorer(
        classifier, run.tree, prior=run.prior, capacity=config.batch_size, views=views, aggregate=aggregate
    )
    total = sum(shard.records for shard in data.shards(schema.VALIDATION))
    accuracy = Accuracy(run.tree, data.seen_in_train())
    with progress(label, total=total, unit=" products") as bar:
        for batch in product_batches.products(data, config, split=schema.VALIDATION):
            scores = scorer.score(batch)
            accuracy.add(batch, scores)
            bar.update(len(scores.num_images))
    return accuracy.report()


def most_frequent_share(run: Run) -> float:
    """Returns the accuracy of always naming the most frequent category of train, on train."""
    return float(np.max(run.train_products) / max(1, run.train_products.sum()))
