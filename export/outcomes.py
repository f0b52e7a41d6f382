"""What a run answers for every validation product, one row each."""

from typing import Any, NamedTuple

import keras
import numpy as np

from model.metrics import Accuracy
from model.run import Run
from model.scoring import ProductScorer
from pipeline import product_batches, schema
from pipeline.console import progress
from pipeline.input import InputConfig, reading
from pipeline.manifest import Manifest


class Outcomes(NamedTuple):
    """Answers beside the truth, in the order of the records; 28 bytes a product.

    Attributes:
      product_id: int64 of shape (products,).
      label: Label of the true category, int32 of shape (products,).
      predicted: Label of the most probable one, int32 of shape (products,).
      confidence: Its probability, float32 of shape (products,).
      readable: Number of images that could be read, int32 of shape (products,).
      images: Number of images, int32 of shape (products,).
    """

    product_id: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    readable: np.ndarray
    images: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether the answer is the truth, bool of shape (products,)."""
        return np.asarray(self.label == self.predicted)


def collect(run: Run, classifier: keras.Model, data: Manifest) -> tuple[Outcomes, dict[str, Any]]:
    """Answers for every validation product.

    Args:
      run: The run that the classifier is of.
      classifier: Model from pictures to logits.
      data: A dataset with a validation split and the run's category tree.

    Returns:
      The outcomes, and the report of `model.metrics.Accuracy`.
    """
    run.check_tree(data)
    config = run.config.input
    scorer = ProductScorer(classifier, run.tree, prior=run.prior, capacity=config.batch_size)
    images = _num_images(data, config)
    accuracy = Accuracy(run.tree, data.seen_in_train(), run.train_products)
    rows = []
    with progress("validating", total=len(images), unit=" products") as bar, reading():
        for batch in product_batches.products(data, config, split=schema.VALIDATION):
            scores = scorer.score(batch)
            count = len(scores.num_images)
            accuracy.add(batch, scores)
            truth = (np.asarray(batch.product_ids)[:count], np.asarray(batch.labels)[:count])
            rows.append((*truth, scores.top_labels[:, 0], scores.top_probabilities[:, 0], scores.num_images))
            bar.update(count)
    columns = [*map(np.concatenate, zip(*rows, strict=True)), images]
    return Outcomes(*columns), accuracy.report()


def _num_images(data: Manifest, config: InputConfig) -> np.ndarray:
    """Returns the number of images, readable or not, of each product that is measured."""
    shards = range(len(data.shards(schema.VALIDATION)))
    masks = product_batches.kept(data, config, split=schema.VALIDATION, shards=shards)
    tables = [data.records(schema.VALIDATION, shard).num_images for shard in shards]
    return np.concatenate([counts[mask] for counts, mask in zip(tables, masks, strict=True)])
