"""A SavedModel from encoded pictures to named categories, which TensorFlow loads without this project.

Decoding, resizing, the cut, preprocessing, the mean over a product's pictures
and the category tree are all in the graph.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from export import parity
from export.parity import Best, Products
from model import aggregation
from pipeline import decode
from pipeline.input import InputConfig
from pipeline.taxonomy import Taxonomy

PRODUCTS = "products"
_PATH_SEPARATOR = " > "
_IMAGES = tf.TensorSpec((None,), tf.string, name="image_bytes")
_PRODUCT = tf.TensorSpec((None,), tf.int32, name="product")
_JPEG, _PNG, _GIF, _BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"


class Answers(NamedTuple):
    """The outputs of every signature, by name; a row for each product.

    Attributes:
      category_ids: Best categories, best first, int64 of shape (products, top_k).
      category_names: Name of each, UTF-8, of the same shape.
      category_paths: Its path from level 1 down, UTF-8, of the same shape.
      probabilities: Its probability, float32 of the same shape.
      readable_images: Pictures that could be read, int32 of shape (products,);
        where it is 0, the answers are those of the prior.
    """

    category_ids: tf.Tensor
    category_names: tf.Tensor
    category_paths: tf.Tensor
    probabilities: tf.Tensor
    readable_images: tf.Tensor


def write(
    path: str, classifier: keras.Model, tree: Taxonomy, *, prior: np.ndarray, config: InputConfig, top_k: int
) -> None:
    """Writes a SavedModel with the signatures of `Service`.

    Args:
      path: A new folder.
      classifier: Model from pictures to logits.
      tree: The categories, in the order of the logits.
      prior: Probability of each category where no picture can be read.
      config: How pictures were cut for the classifier.
      top_k: Number of categories to name for each product.
    """
    service = Service(classifier, tree, prior=prior, config=config, top_k=top_k)
    signatures = {"serving_default": service.classify, PRODUCTS: service.classify_products}
    tf.saved_model.save(service, path, signatures=signatures)


class Service(tf.Module):
    """The graph that is saved, see `write` for its arguments."""

    def __init__(
        self, classifier: keras.Model, tree: Taxonomy, *, prior: np.ndarray, config: InputConfig, top_k: int
    ) -> None:
        super().__init__()
        self._classifier = classifier
        self._weights = [variable.value for variable in classifier.variables]  # What TensorFlow saves.
        self._config = config
        self._top_k = min(top_k, tree.num_categories)
        self._prior = np.asarray(prior, np.float32)
        names = [path[-1] for path in tree.paths]
        paths = [_PATH_SEPARATOR.join(path) for path in tree.paths]
        self._columns = (np.array(tree.category_ids, np.int64), np.array(names, object), np.array(paths, object))

    @tf.function(input_signature=[_IMAGES])  # type: ignore[untyped-decorator]
    def classify(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers for each picture by itself."""
        return self._answers(image_bytes, tf.range(tf.size(image_bytes)), tf.size(image_bytes))

    @tf.function(input_signature=[_IMAGES, _PRODUCT])  # type: ignore[untyped-decorator]
    def classify_products(self, image_bytes: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers for products: `product` numbers the product of each picture, from 0."""
        with tf.control_dependencies(_checks(image_bytes, product)):
            count = tf.reduce_max(tf.concat([product, [-1]], axis=0)) + 1
        return self._answers(image_bytes, product, count)

    def _answers(self, image_bytes: tf.Tensor, owners: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        pictures, rows = _readable(image_bytes, self._config)
        scores = tf.nn.softmax(tf.cast(self._classifier(pictures, training=False), tf.float32))
        owners = tf.gather(tf.concat([owners, [count]], axis=0), rows)  # The row after the last is nobody's.
        means, readable = aggregation.product_probabilities(scores, owners, products=count, prior=self._prior)
        best, labels = tf.math.top_k(means, self._top_k)
        ids, names, paths = (tf.gather(tf.constant(values), labels) for values in self._columns)
        return Answers(ids, names, paths, best, readable)._asdict()


def _checks(image_bytes: tf.Tensor, product: tf.Tensor) -> list[tf.Operation]:
    """Returns checks which also bound the memory that a request can ask for."""
    return [
        tf.debugging.assert_equal(
            tf.size(product), tf.size(image_bytes), message="expected one number of a product for each picture"
        ),
        tf.debugging.assert_non_negative(product, message="expected products numbered from 0"),
        tf.debugging.assert_less(
            product, tf.size(product), message="expected products numbered from 0, at most one for each picture"
        ),
    ]


def _readable(image_bytes: tf.Tensor, config: InputConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes what can be decoded.

    Only a dataset can go on after an operation that fails, so the pictures of
    a request pass through one.

    Args:
      image_bytes: Encoded pictures, string of shape (images,).
      config: How pictures are cut.

    Returns:
      Pictures, uint8 of shape (readable, image_size, image_size, 3), and which
      row each was in, int64 of shape (readable,). Where none is readable, a
      black one in the row after the last, for networks fail on no picture.
    """
    size, count = config.image_size, tf.size(image_bytes, out_type=tf.int64)
    black = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3), tf.uint8)))
    decoded = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(lambda row, data: (row, _picture(data, config)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .concatenate(black)
        .batch(count + 1)
    )
    rows, pictures = decoded.get_single_element()
    kept = tf.maximum(tf.size(rows) - 1, 1)
    return pictures[:kept], rows[:kept]


def _picture(data: tf.Tensor, config: InputConfig) -> tf.Tensor:
    """Decodes a picture to the pixels of `pipeline.decode`, and cuts out its middle."""
    height, width = _dimensions(data)
    bound = tf.debugging.assert_less_equal(height * width, tf.constant(decode.MAX_PIXELS, tf.int64))
    with tf.control_dependencies([bound]):
        picture = tf.io.decode_image(data, channels=3, expand_animations=False)
    picture.set_shape((None, None, 3))
    size = (config.decode_size, config.decode_size)
    same = tf.reduce_all(tf.equal(tf.shape(picture)[:2], size))
    picture = tf.cond(same, lambda: picture, lambda: decode.resized(picture, *size))
    return tf.ensure_shape(picture[config.middle, config.middle], (config.image_size, config.image_size, 3))


def _dimensions(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width from the header, int64; fails on what is no picture."""
    jpeg, png, gif, bmp = (_begins(data, prefix) for prefix in (_JPEG, _PNG, _GIF, _BMP))
    known = tf.debugging.assert_equal(jpeg | png | gif | bmp, True)
    with tf.control_dependencies([known]):
        found = tf.case(
            [
                (jpeg, lambda: tf.cast(tf.image.extract_jpeg_shape(data)[:2], tf.int64)),
                (png, lambda: _numbers(data, at=16, dtype=tf.int32, little_endian=False)[::-1]),
                (gif, lambda: _numbers(data, at=6, dtype=tf.uint16, little_endian=True)[::-1]),
            ],
            default=lambda: _numbers(data, at=18, dtype=tf.int32, little_endian=True)[::-1],
        )
    return found[0], found[1]


def _begins(data: tf.Tensor, prefix: bytes) -> tf.Tensor:
    long_enough = tf.strings.length(data) >= len(prefix)
    return tf.cond(long_enough, lambda: tf.strings.substr(data, 0, len(prefix)) == prefix, lambda: False)


def _numbers(data: tf.Tensor, *, at: int, dtype: tf.DType, little_endian: bool) -> tf.Tensor:
    """Returns the sizes of the two numbers at a position."""
    field = tf.strings.substr(data, at, 2 * dtype.size)
    numbers = tf.io.decode_raw(field, dtype, little_endian=little_endian)
    return tf.abs(tf.cast(tf.ensure_shape(numbers, (2,)), tf.int64))


def answers(path: str) -> Callable[[Products], Best]:
    """Returns the function from products to the answers of a written model."""
    loaded = tf.saved_model.load(path)
    classify = loaded.signatures[PRODUCTS]

    def answer(products: Products) -> Best:
        encoded, owners = parity.flat(products)
        found = classify(image_bytes=tf.constant(encoded, tf.string), product=tf.constant(owners))
        return Best(found["category_ids"].numpy(), found["probabilities"].numpy())

    return answer
