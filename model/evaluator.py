"""Measures a classifier on the validation split, product by product."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from model import aggregation
from model.metrics import ALL, Accuracy
from model.run import Run
from model.scoring import ProductScorer
from pipeline import product_batches, schema
from pipeline.console import progress
from pipeline.input import reading
from pipeline.manifest import Manifest


def scorer(
    run: Run,
    classifier: keras.Model,
    *,
    views: Sequence[str] = (aggregation.CENTER,),
    aggregate: str = aggregation.MEAN,
) -> ProductScorer:
    """Returns what answers for whole products with a classifier of a run; it follows the classifier's weights."""
    capacity = run.config.input.batch_size
    return ProductScorer(classifier, run.tree, prior=run.prior, capacity=capacity, views=views, aggregate=aggregate)


def evaluate(
    run: Run,
    classifier: keras.Model,
    data: Manifest,
    *,
    label: str = "validating",
    views: Sequence[str] = (aggregation.CENTER,),
    aggregate: str = aggregation.MEAN,
) -> dict[str, Any]:
    """Returns the accuracy of a classifier on every validation product, see `model.metrics`.

    Args:
      run: The run that the classifier is of.
      classifier: Model from pictures to logits.
      data: A dataset with a validation split and the run's category tree.
      label: What to call it on the progress bar.
      views: Ways to look at an image, of `aggregation.VIEWS`.
      aggregate: How images and views are joined, one of `aggregation.AGGREGATES`.
    """
    run.check_tree(data)
    scored_by = scorer(run, classifier, views=views, aggregate=aggregate)
    return checked_report(count(run, scored_by, data, label=label), run, data)


def count(
    run: Run, scored_by: ProductScorer, data: Manifest, *, part: tuple[int, int] = (0, 1), label: str = "validating"
) -> Accuracy:
    """Adds up the answers for a part of the validation split.

    Args:
      run: The run that is measured.
      scored_by: What `scorer` returned.
      data: A dataset with a validation split.
      part: Number of the part from 0, and how many parts there are; a part is
        every so many shards.
      label: What to call it on the progress bar.
    """
    index, parts = part
    shards = data.shards(schema.VALIDATION)
    chosen = None if parts == 1 else range(index, len(shards), parts)
    accuracy = Accuracy(run.tree, data.seen_in_train(), run.train_products)
    bar_of = progress(label, total=sum(_kept(run, data)[index::parts]), unit=" products")
    with bar_of as bar, reading():
        for batch in product_batches.products(data, run.config.input, split=schema.VALIDATION, shard=chosen):
            scores = scored_by.score(batch)
            accuracy.add(batch, scores)
            bar.update(len(scores.num_images))
    return accuracy


def _kept(run: Run, data: Manifest) -> list[int]:
    """Returns the number of products to measure of each validation shard."""
    shards = range(len(data.shards(schema.VALIDATION)))
    masks = product_batches.kept(data, run.config.input, split=schema.VALIDATION, shards=shards)
    return [int(mask.sum()) for mask in masks]


def checked_report(accuracy: Accuracy, run: Run, data: Manifest) -> dict[str, Any]:
    """Returns the report of a whole validation split, or of the categories that the run keeps to.

    Raises:
      RuntimeError: Not every product was counted once.
    """
    report = accuracy.report()
    found, expected = report[ALL]["products"], sum(_kept(run, data))
    if found != expected:
        raise RuntimeError(f"{found:,} products were counted; expected all {expected:,}, each once.")
    return report


def most_frequent_share(run: Run) -> float:
    """Returns the accuracy of always naming the most frequent category of train, on train."""
    return float(np.max(run.train_products) / max(1, run.train_products.sum()))
