"""An ONNX model from pixels to probabilities, for runtimes without TensorFlow."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from export import parity
from export.parity import Best, Products
from model.run import Run
from pipeline import files, product_batches
from pipeline.console import UserError

_FILE_NAME = "model.onnx"


def write(path: str, classifier: keras.Model) -> None:
    """Writes `model.onnx`, from pictures (uint8) to probabilities (float32, (images, categories)).

    Args:
      path: A new folder.
      classifier: Model from pictures to logits.
    """
    _require()
    images = keras.Input(classifier.input_shape[1:], dtype="uint8", name="images")
    logits = classifier(images, training=False)
    model = keras.Model(images, layers.Activation("softmax", dtype="float32", name="probabilities")(logits))
    model(np.zeros((1, *classifier.input_shape[1:]), np.uint8))  # Keras exports what has been called.
    files.make_folder(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Of Keras about NumPy.
        model.export(os.path.join(path, _FILE_NAME), format="onnx", verbose=False)


def answers(path: str, run: Run, *, top_k: int) -> Callable[[Products], Best]:
    """Returns the function from products to the answers of a written model."""
    session = _require().InferenceSession(os.path.join(path, _FILE_NAME), providers=["CPUExecutionProvider"])
    [images] = session.get_inputs()

    def answer(products: Products) -> Best:
        encoded, owners = parity.flat(products)
        pictures, readable = product_batches.decode_middle(encoded, run.config.input)
        [probabilities] = session.run(None, {images.name: pictures})
        own = [probabilities[readable & (owners == product)] for product in range(len(products))]
        means = np.array([rows.mean(axis=0) if len(rows) else run.prior for rows in own])
        best = np.argsort(-means, axis=1, kind="stable")[:, :top_k]
        return Best(np.array(run.tree.category_ids)[best], np.take_along_axis(means, best, axis=1))

    return answer


def _require() -> Any:
    try:
        import onnxruntime
        import tf2onnx  # noqa: F401  # What Keras exports with.
    except ImportError as error:
        raise UserError(
            f"--format=onnx needs a package that is not there ({error}): pip install 'aisle[onnx]'."
        ) from None
    return onnxruntime
