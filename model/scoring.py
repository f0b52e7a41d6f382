"""Answers for whole products, computed on the accelerator: views, images, every level, best few.

Only the answers leave the device, a few numbers a product instead of one for
each category. Everything is written in Keras's operations, so it runs on any of
its backends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from model.aggregation import CENTER, GEOMETRIC, MEAN, WAYS, image_scores, product_probabilities
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

_LEAST_PROBABILITY = 1e-30  # Of what one classifier rules out; the logarithm of 0 would have others no say.


class Best(NamedTuple):
    """The most probable categories of each product of a batch.

    Attributes:
      labels: Best first, int32 of shape (products, top_k).
      probabilities: float32 of the same shape.
    """

    labels: np.ndarray
    probabilities: np.ndarray


class Scores(NamedTuple):
    """What a model says of a batch of products.

    Attributes:
      image_labels: Most probable node of each image at each level of the tree,
        int32 of shape (images, levels); no column where levels were not asked for.
      product_labels: The same for each product, (products, levels).
      top_labels: Most probable categories of each product, best first, int32 of
        shape (products, top_k).
      top_probabilities: Their probabilities, float32 of the same shape.
      num_images: Number of readable images of each product, int32 of shape
        (products,). Where it is 0, the answers are those of the prior.
      image_top_labels: Most probable categories of each image, best first,
        int32 of shape (images, top_k); no column where levels were not asked for.
      members: Where several classifiers were averaged, what each says by itself.
    """

    image_labels: np.ndarray
    product_labels: np.ndarray
    top_labels: np.ndarray
    top_probabilities: np.ndarray
    num_images: np.ndarray
    image_top_labels: np.ndarray = np.empty((0, 0), np.int32)
    members: tuple[Best, ...] = ()


class ProductScorer:
    """Scores batches of whole products with one or more classifiers of single pictures.

    The probability of a category is its mean over the product's images and
    their views (or what `aggregate` says); that of a node is the sum over the
    categories below it. Of several classifiers the mean counts, or the
    geometric mean where `aggregate` is that.

    Args:
      classifier: Model from pictures to logits, or several with names of their
        own. Each takes the middle of the pictures, at its own size.
      tree: The categories, in the order of the logits.
      prior: Probability of each category where no image can be read, float of
        shape (categories,).
      capacity: Number of products in a batch.
      top_k: Number of categories to name for each product.
      views: Ways to look at an image, of `aggregation.VIEWS`.
      aggregate: One of `aggregation.AGGREGATES`.
      image_size: Height and width of the pictures; by default those of the
        first classifier.
      levels: Whether to answer for images and for the levels of the tree, too.
    """

    def __init__(
        self,
        classifier: keras.Model | Sequence[keras.Model],
        tree: Taxonomy,
        *,
        prior: np.ndarray,
        capacity: int,
        top_k: int = 5,
        views: Sequence[str] = (CENTER,),
        aggregate: str = MEAN,
        image_size: int | None = None,
        levels: bool = True,
    ) -> None:
        classifiers = list(classifier) if isinstance(classifier, Sequence) else [classifier]
        shape = (image_size, image_size, 3) if image_size else classifiers[0].input_shape[1:]
        images = keras.Input(shape, dtype="uint8", name="images")
        owners = keras.Input((), dtype="int32", name="owners")
        found = [image_scores(model, images, views=views, aggregate=aggregate) for model in classifiers]
        products = _Products(capacity, prior, aggregate)
        each, counts = zip(*(products([scores, owners]) for scores in found), strict=True)
        average, top = _Average(aggregate), _TopK(min(top_k, tree.num_categories))
        together = average(list(each))
        outputs = [*top(together), counts[0]]
        if len(each) > 1:
            outputs += [best for probabilities in each for best in top(probabilities)]
        if levels:
            by_image = average([_Probabilities(aggregate)(scores) for scores in found])
            outputs += [*map(_Levels(tree), (together, by_image)), top(by_image)[0]]
        self._model = keras.Model([images, owners], outputs)
        self._members = len(each) if len(each) > 1 else 0

    def score(self, batch: ProductBatch) -> Scores:
        """Returns the scores of a batch; padding is left out."""
        products, owners = int(batch.products), np.asarray(batch.owners)
        outputs = map(np.asarray, self._model.predict_on_batch([np.asarray(batch.images), owners]))
        labels, probabilities, num_images = (next(outputs)[:products] for _ in range(3))
        members = tuple(Best(next(outputs)[:products], next(outputs)[:products]) for _ in range(self._members))
        by_product = next(outputs, np.empty((products, 0), np.int32))[:products]
        by_image, image_top_labels = (next(outputs, np.empty((len(owners), 0), np.int32)) for _ in range(2))
        return Scores(by_image, by_product, labels, probabilities, num_images, image_top_labels, members)


class _Products(layers.Layer):
    """The scores of the images of each product, joined; the prior where there is none."""

    def __init__(self, capacity: int, prior: np.ndarray, aggregate: str) -> None:
        super().__init__(dtype="float32")
        self._capacity, self._aggregate = capacity, aggregate
        self._prior = np.asarray(prior, np.float32)

    def call(self, inputs):  # type: ignore[no-untyped-def]
        scores, owners = inputs
        return product_probabilities(
            scores, owners, products=self._capacity, prior=self._prior, aggregate=self._aggregate
        )


class _Probabilities(layers.Layer):
    """The scores of images as probabilities."""

    def __init__(self, aggregate: str) -> None:
        super().__init__(dtype="float32")
        self._way = WAYS[aggregate]

    def call(self, scores):  # type: ignore[no-untyped-def]
        return self._way.to_probabilities(scores)


class _Average(layers.Layer):
    """The probabilities that one or several classifiers give, averaged."""

    def __init__(self, aggregate: str) -> None:
        super().__init__(dtype="float32")
        self._geometric = aggregate == GEOMETRIC

    def call(self, probabilities):  # type: ignore[no-untyped-def]
        if len(probabilities) == 1:
            return probabilities[0]
        stacked = ops.stack(probabilities)
        if not self._geometric:
            return ops.mean(stacked, axis=0)
        return ops.softmax(ops.mean(ops.log(ops.maximum(stacked, _LEAST_PROBABILITY)), axis=0))


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
