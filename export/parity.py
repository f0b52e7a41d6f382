"""Does an exported model answer as prediction does? Both are asked about the same encoded pictures."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import keras
import numpy as np
import simplejpeg

from export import pictures
from model.run import Run
from model.scoring import ProductScorer
from pipeline import input as input_pipeline
from pipeline import product_batches, schema
from pipeline.manifest import Manifest
from pipeline.product_batches import ProductBatch

TOLERANCE = 1e-5
_PRODUCTS = 16
_SIZES = ((180, 180), (120, 200), (301, 77))
_COARSE = 6

Products = Sequence[Sequence[bytes]]


class Best(NamedTuple):
    """The best categories of each product.

    Attributes:
      category_ids: Best first, int64 of shape (products, top_k).
      probabilities: float32 of the same shape.
    """

    category_ids: np.ndarray
    probabilities: np.ndarray


class Difference(NamedTuple):
    """How far two models are apart.

    Attributes:
      products: Number of products that they were compared on.
      other_category: Products whose best category differs.
      probability: Greatest difference of a probability among the best.
    """

    products: int
    other_category: int
    probability: float

    @property
    def tolerable(self) -> bool:
        """Whether it can be due to rounding alone."""
        return not self.other_category and self.probability <= TOLERANCE


def compare(model: Callable[[Products], Best], reference: Callable[[Products], Best], products: Products) -> Difference:
    """Compares the answers of two models."""
    ours, theirs = model(products), reference(products)
    other = (ours.category_ids[:, 0] != theirs.category_ids[:, 0]) & ~_tied(theirs)
    apart = np.abs(ours.probabilities - theirs.probabilities).max(initial=0)
    return Difference(len(products), int(other.sum()), float(apart))


def _tied(best: Best) -> np.ndarray:
    """Tells where the first two are so close that rounding decides which is named first."""
    if best.probabilities.shape[1] < 2:
        return np.zeros(len(best.probabilities), np.bool_)
    return np.asarray(best.probabilities[:, 0] - best.probabilities[:, 1] <= TOLERANCE)


def predicted(run: Run, classifier: keras.Model, *, top_k: int) -> Callable[[Products], Best]:
    """Returns the function from products to answers by the way of `export.predict`."""
    category_ids = np.array(run.tree.category_ids, np.int64)

    def answer(products: Products) -> Best:
        scorer = ProductScorer(classifier, run.tree, prior=run.prior, capacity=len(products), top_k=top_k)
        scores = scorer.score(_batch(products, run.config.input))
        return Best(category_ids[scores.top_labels], scores.top_probabilities)

    return answer


def _batch(products: Products, config: input_pipeline.InputConfig) -> ProductBatch:
    count = len(products)
    encoded, owners = flat(products)
    images, readable = product_batches.decode_middle(encoded, config)
    return ProductBatch(
        images=images,
        owners=np.where(readable, owners, count).astype(np.int32),
        product_ids=np.arange(count),
        labels=np.full(count, schema.NO_CATEGORY, np.int32),
        products=np.array(count, np.int32),
    )


def flat(products: Products) -> tuple[list[bytes], np.ndarray]:
    """Returns the pictures of all products in one list, and the number of the product of each, int32."""
    encoded = [picture for own in products for picture in own]
    return encoded, np.repeat(np.arange(len(products), dtype=np.int32), [len(own) for own in products])


def sample(data: Manifest) -> list[list[bytes]]:
    """Returns the pictures of a few products of a dataset, of any split."""
    split = schema.TEST if schema.TEST in data.splits else schema.VALIDATION
    ids = islice((int(number) for number in data.records(split, 0).product_id), _PRODUCTS)
    return [own for own in pictures.of_products(data, split=split, product_ids=ids).values() if own]


def draw() -> list[list[bytes]]:
    """Returns drawn products of one to three pictures of several sizes, and two with unreadable ones."""
    numbers = np.random.default_rng(0)
    drawn = [[_blurs(numbers, *_SIZES[view]) for view in range(1 + product % 3)] for product in range(_PRODUCTS)]
    return [*drawn, [b"no picture"], [b"no picture", drawn[1][1], b""]]


def _blurs(numbers: np.random.Generator, height: int, width: int) -> bytes:
    coarse = numbers.integers(0, 256, (_COARSE, _COARSE, 3)).astype(np.uint8)
    rows, columns = np.arange(height) * _COARSE // height, np.arange(width) * _COARSE // width
    picture = np.ascontiguousarray(coarse[rows][:, columns])
    return bytes(simplejpeg.encode_jpeg(picture, quality=90, colorspace="RGB", colorsubsampling="420"))
