"""Answers for whole products, computed on the accelerator: views, images, every level, best few.

Only the answers leave the device, a few numbers a product instead of one for
each category. Everything is written in Keras's operations, so it runs on any of
its backends.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from pipeline.console import UserError
from pipeline.product_batches import ProductBatch
from pipeline.taxonomy import Taxonomy

CENTER, FLIP = "center", "flip"
VIEWS = (CENTER, FLIP)
MEAN, GEOMETRIC, MAX = "mean", "geometric", "max"
AGGREGATES = (MEAN, GEOMETRIC, MAX)
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
      views: Ways to look at an image, of `VIEWS`.
      aggregate: One of `AGGREGATES`.
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


def image_scores(
    classifier: keras.Model, images: Any, *, views: Sequence[str] = (CENTER,), aggregate: str = MEAN
) -> Any:
    """Returns what a classifier says of pictures, in the form that `product_probabilities` takes.

    Args:
      classifier: Model from pictures to logits.
      images: uint8 of shape (images, height, width, 3), as large as the
        classifier's input or larger; it sees the middle.
      views: Ways to look at an image, of `VIEWS`.
      aggregate: One of `AGGREGATES`; also joins the views.

    Returns:
      float32 of shape (images, categories): probabilities (mean), the largest
      of each over the views (max), or mean logarithms (geometric).

    Raises:
      UserError: There is no such view or aggregate.
    """
    check_options(views, aggregate)
    size = classifier.input_shape[1] if len(classifier.input_shape) == 4 else None
    seen = _Middle(size)(images) if size and size != images.shape[1] else images
    pictures = {CENTER: lambda: seen, FLIP: lambda: _Flip()(seen)}
    return _Views(aggregate)([classifier(pictures[view](), training=False) for view in views])


def product_probabilities(scores: Any, owners: Any, *, products: Any, prior: Any, aggregate: str = MEAN) -> Any:
    """Joins the scores of images to probabilities of products.

    Args:
      scores: What `image_scores` gave, with the same `aggregate`.
      owners: Row of each image's product, int32 of shape (images,); padding and
        unreadable images have the row `products`.
      products: Number of products.
      prior: Probabilities where a product has no image, float32 of shape (categories,).
      aggregate: One of `AGGREGATES`.

    Returns:
      Probabilities, float32 of shape (products, categories), and the number of
      images of each product, int32 of shape (products,).
    """
    rows = products + 1  # The last collects padding and unreadable images.
    counts = ops.segment_sum(ops.ones_like(owners), owners, num_segments=rows)[:products]
    some = ops.expand_dims(counts > 0, -1)
    if aggregate == MAX:
        largest = ops.segment_max(scores, owners, num_segments=rows)[:products]
        joined = ops.where(some, largest, 1.0)
    else:
        divisor = ops.cast(ops.expand_dims(ops.maximum(counts, 1), -1), "float32")
        joined = ops.segment_sum(scores, owners, num_segments=rows)[:products] / divisor
    return ops.where(some, _WAYS[aggregate].to_probabilities(joined), prior), counts


def check_options(views: Sequence[str], aggregate: str) -> None:
    """Checks that views and aggregate are what this module knows.

    Raises:
      UserError: They are not.
    """
    if not views or set(views) - set(VIEWS) or len(set(views)) != len(views):
        raise UserError(f"--views is {','.join(views)!r}; expected one or more of {', '.join(VIEWS)}, each once.")
    if aggregate not in AGGREGATES:
        raise UserError(f"--aggregate is {aggregate!r}; expected one of {', '.join(AGGREGATES)}.")


class _Way(NamedTuple):
    """A way to join several answers.

    Attributes:
      from_logits: Gives what can be joined.
      join: Joins along the first axis.
      to_probabilities: Makes probabilities of what was joined.
    """

    from_logits: Callable[[Any], Any]
    join: Callable[[Any], Any]
    to_probabilities: Callable[[Any], Any]


def _shares(values: Any) -> Any:
    return values / ops.sum(values, axis=-1, keepdims=True)


_WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        MEAN: _Way(ops.softmax, lambda values: ops.mean(values, axis=0), lambda values: values),
        GEOMETRIC: _Way(ops.log_softmax, lambda values: ops.mean(values, axis=0), ops.softmax),
        MAX: _Way(ops.softmax, lambda values: ops.max(values, axis=0), _shares),
    }
)


class _Middle(layers.Layer):
    """The middle of pictures, as `pipeline.input` cuts it."""

    def __init__(self, size: int) -> None:
        super().__init__(dtype="uint8")
        self._size = size

    def call(self, images):  # type: ignore[no-untyped-def]
        begin = (images.shape[1] - self._size) // 2
        return images[:, begin : begin + self._size, begin : begin + self._size]


class _Flip(layers.Layer):
    """Pictures mirrored left to right."""

    def __init__(self) -> None:
        super().__init__(dtype="uint8")

    def call(self, images):  # type: ignore[no-untyped-def]
        return ops.flip(images, axis=2)


class _Views(layers.Layer):
    """The logits of the views of each image, joined."""

    def __init__(self, aggregate: str) -> None:
        super().__init__(dtype="float32")
        self._way = _WAYS[aggregate]

    def call(self, logits):  # type: ignore[no-untyped-def]
        values = [self._way.from_logits(ops.cast(view, "float32")) for view in logits]
        return values[0] if len(values) == 1 else self._way.join(ops.stack(values))


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
        self._way = _WAYS[aggregate]

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
