"""Backbones: from pixels to features.

Each comes with the preparation of pixels that its weights expect, which runs on
the accelerator.
"""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import keras
from keras import layers

from pipeline.console import UserError

_SIMPLE_CNN_WIDTHS = (32, 64, 128, 256)


class Backbone(NamedTuple):
    """A network and what comes before it.

    Attributes:
      preparation: Layer from values 0 to 255 to what the network expects.
      network: Model from pictures, float of shape (batch, image_size,
        image_size, 3), to features of shape (batch, features).
    """

    preparation: layers.Layer
    network: keras.Model


def build(name: str, *, image_size: int, weights: str) -> Backbone:
    """Builds a backbone.

    Args:
      name: One of `NAMES`.
      image_size: Height and width of the pictures in pixels.
      weights: "none", "imagenet", or the path of a weights file.

    Raises:
      UserError: There is no such backbone, no such file, or the weights do
        not fit or cannot be downloaded.
    """
    if name not in _BUILDERS:
        raise UserError(f"--backbone is {name!r}; expected one of {', '.join(NAMES)}.")
    try:
        backbone = _BUILDERS[name](image_size, "imagenet" if weights == "imagenet" else None)
        if weights not in ("none", "imagenet"):
            with warnings.catch_warnings():  # Of a file that does not fit, the exception says enough.
                warnings.filterwarnings("ignore", message="Skipping nested container")
                backbone.network.load_weights(weights)
    except Exception as error:  # Keras raises bare Exceptions for a failed download.
        reason = " ".join(str(error).split())
        raise UserError(
            f"--weights={weights} cannot be used for {name}: {reason[:300]}. Expected none, imagenet (needs the "
            "network), or the path of a .weights.h5 file of this backbone."
        ) from error
    return backbone


def _simple_cnn(image_size: int, weights: str | None) -> Backbone:
    """A small residual network that trains from scratch on a CPU.

    Residual blocks (He et al., 2015, arXiv:1512.03385) on maps that a stem of
    stride 4 has made small: on two cores it trains 1.7 times as fast as three
    plain convolutions from full size, and each picture teaches it more.
    """
    if weights:
        raise ValueError("there are no published weights of simple_cnn")
    inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(inputs, _SIMPLE_CNN_WIDTHS[0], kernel=7, stride=4, name="stem")
    for number, width in enumerate(_SIMPLE_CNN_WIDTHS, start=1):
        if number > 1:
            x = _convolution(x, width, kernel=3, stride=2, name=f"block{number}_down")
        shortcut = x
        x = _convolution(x, width, kernel=3, stride=1, name=f"block{number}_keep")
        x = layers.Add(name=f"block{number}_add")([x, shortcut])
    outputs = layers.GlobalAveragePooling2D(name="pool")(x)
    return Backbone(_to_unit_range(), keras.Model(inputs, outputs, name="simple_cnn"))


def _convolution(x: keras.KerasTensor, width: int, *, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _xception(image_size: int, weights: str | None) -> Backbone:
    """Xception (Chollet, 2017, arXiv:1610.02357)."""
    network = keras.applications.Xception(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling="avg"
    )
    return Backbone(_to_unit_range(), network)


def _to_unit_range() -> layers.Layer:
    """Returns the preparation to values in [-1, 1]."""
    return layers.Rescaling(1 / 127.5, offset=-1, name="preparation")


_BUILDERS: Mapping[str, Callable[[int, str | None], Backbone]] = MappingProxyType(
    {"simple_cnn": _simple_cnn, "xception": _xception}
)
NAMES = tuple(_BUILDERS)
