"""Answers for whole products, computed on the accelerator: softmax, mean, every level, best few.

Only the answers leave the device, a few numbers a product instead of one for
each category.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from pipeline.input import ProductBatch
from pipeline.taxonomy import Taxonomy


class Scores(NamedTuple):
    """What a model says of a batch of products.

    Attributes:
      image_labels: Most probable node of each image at each level of the tree,
        int32 of shape (images, levels).
      product_labels: The same for each product, (products, levels).
      top_labels: Most probable categories of each product, best first, int32 of
        shape (products, top_k).
      top_probabilities: Their probabilities, float32 of the same shape.
      num_images: Number of readable images of each product, int32 of shape
        (products,). Where it is 0, the answers are those of the prior.
      image_top_labels: Most probable categories of each image, (images, top_k).
    """

    image_labels: np.ndarray
    product_labels: np.ndarray
    top_labels: np.ndarray
    top_probabilities: np.ndarray
    num_images: np.ndarray
    image_top_labels: np.ndarray


class ProductScorer:
    """Scores batches of whole products with a classifier of single pictures.

    The probability of a category is its mean over the product's images; that of
    a node is the sum over the categories below it.

    Args:
      classifier: Model from pictures to logits.
      tree: The categories, in the order of the logits.
      prior: Probability of each category where no image can be read, float of
        shape (categories,).
      capacity: Number of products in a batch.
      top_k: Number of categories to name for each product.
    """

    def __init__(
        self, classifier: keras.Model, tree: Taxonomy, *, prior: np.ndarray, capacity: int, top_k: int = 5
    ) -> None:
        images = keras.Input(classifier.input_shape[1:], dtype="uint8", name="images")
        owners = keras.Input((), dtype="int32", name="owners")
        logits = classifier(images, training=False)
        probabilities = layers.Activation("softmax", dtype="float32")(logits)
        means, counts = _ProductMean(capacity, prior)([probabilities, owners])
        levels = _Levels(tree)
        top = _TopK(min(top_k, tree.num_categories))
        outputs = [levels(probabilities), top(probabilities)[0], levels(means), *top(means), counts]
        self._model = keras.Model([images, owners], outputs)

    def score(self, batch: ProductBatch) -> Scores:
        """Returns the scores of a batch; padding is left out."""
        owners = np.asarray(batch.owners)
        outputs = self._model.predict_on_batch([np.asarray(batch.images), owners])
        image_labels, image_top_labels, labels, top_labels, top_probabilities, counts = map(np.asarray, outputs)
        rows = slice(int(batch.products))
        return Scores(
            image_labels, labels[rows], top_labels[rows], top_probabilities[rows], counts[rows], image_top_labels
        )


class _ProductMean(layers.Layer):
    """Means over each product's images; the prior where there is none."""

    def __init__(self, capacity: int, prior: np.ndarray) -> None:
        super().__init__(dtype="float32")
        self._capacity = capacity
        self._prior = np.asarray(prior, np.float32)

    def call(self, inputs):  # type: ignore[no-untyped-def]
        probabilities, owners = inputs
        rows = self._capacity + 1  # The last collects padding and unreadable images.
        sums = ops.segment_sum(probabilities, owners, num_segments=rows)[: self._capacity]
        counts = ops.segment_sum(ops.ones_like(owners), owners, num_segments=rows)[: self._capacity]
        some = ops.expand_dims(counts > 0, -1)
        divisor = ops.cast(ops.expand_dims(ops.maximum(counts, 1), -1), "float32")
        return ops.where(some, sums / divisor, self._prior), counts


class _Levels(layers.Layer):
    """The most probable node at every level."""

    def __init__(self, tree: Taxonomy) -> None:
        super().__init__(dtype="float32")
        self._members = [
            np.eye(len(tree.nodes(level)), dtype=np.float32)[tree.ancestors(level)]
            for level in range(1, tree.num_levels)
        ]

    def call(self, probabilities):  # type: ignore[no-untyped-def]
        upper = [ops.argmax(ops.matmul(probabilities, members), axis=-1) for members in self._members]
        labels = [*upper, ops.argmax(probabilities, axis=-1)]
        return ops.stack([ops.cast(label, "int32") for label in labels], axis=-1)


class _TopK(layers.Layer):
    def __init__(self, top_k: int) -> None:
        super().__init__(dtype="float32")
        self._top_k = top_k

    def call(self, probabilities):  # type: ignore[no-untyped-def]
        values, labels = ops.top_k(probabilities, self._top_k)
        return ops.cast(labels, "int32"), values
