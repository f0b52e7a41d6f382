"""Views of images, and images of a product, joined to probabilities.

Written in Keras's operations: prediction, evaluation and an exported graph
join in the same way, on any backend.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from pipeline.console import UserError

CENTER, FLIP = "center", "flip"
VIEWS = (CENTER, FLIP)
MEAN, GEOMETRIC, MAX = "mean", "geometric", "max"
AGGREGATES = (MEAN, GEOMETRIC, MAX)


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
    return ops.where(some, WAYS[aggregate].to_probabilities(joined), prior), counts


def check_options(views: Sequence[str], aggregate: str) -> None:
    """Checks that views and aggregate are what this module knows.

    Raises:
      UserError: They are not.
    """
    if not views or set(views) - set(VIEWS) or len(set(views)) != len(views):
        raise UserError(f"--views is {','.join(views)!r}; expected one or more of {', '.join(VIEWS)}, each once.")
    if aggregate not in AGGREGATES:
        raise UserError(f"--aggregate is {aggregate!r}; expected one of {', '.join(AGGREGATES)}.")


class Way(NamedTuple):
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


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        MEAN: Way(ops.softmax, lambda values: ops.mean(values, axis=0), lambda values: values),
        GEOMETRIC: Way(ops.log_softmax, lambda values: ops.mean(values, axis=0), ops.softmax),
        MAX: Way(ops.softmax, lambda values: ops.max(values, axis=0), _shares),
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
        self._way = WAYS[aggregate]

    def call(self, logits):  # type: ignore[no-untyped-def]
        values = [self._way.from_logits(ops.cast(view, "float32")) for view in logits]
        return values[0] if len(values) == 1 else self._way.join(ops.stack(values))
