"""Backbones: from pixels to features.

Each comes with the preparation of pixels that its weights expect, which runs on
the accelerator, and with its groups of layers, which unfreezing goes by.
"""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
from keras import layers

from model import simple_cnn
from pipeline.console import UserError


class Backbone(NamedTuple):
    """A network and what comes before it.

    Attributes:
      preparation: Layer from values 0 to 255 to what the network expects.
      network: Model from pictures, float of shape (batch, image_size,
        image_size, 3), to features of shape (batch, features).
      groups: Groups of layers from the bottom up, each with the number of its
        first layer; a group ends where the next begins.
    """

    preparation: layers.Layer
    network: keras.Model
    groups: Mapping[str, int]


class _Kind(NamedTuple):
    """How one kind of backbone is made.

    Attributes:
      make: Function from image_size and weights to the network.
      mode: How pixels are prepared, as `keras.applications` names it; None where the network does it.
      groups: Groups from the bottom up, each with the beginning of the name of
        its first layer, or "after " and the name of the layer before it. What
        comes before the first is in the first.
    """

    make: Callable[[int, str | None], keras.Model]
    mode: str | None
    groups: Mapping[str, str]


def build(name: str, *, image_size: int, weights: str) -> Backbone:
    """Builds a backbone.

    Args:
      name: One of `NAMES`.
      image_size: Height and width of the pictures in pixels.
      weights: "none", "imagenet", or the path of a weights file: .weights.h5,
        .h5 or .keras; of the last, nothing but weights is read.

    Raises:
      UserError: There is no such backbone, no such file, or the weights do
        not fit or cannot be downloaded.
    """
    kind = _kind(name)
    try:
        network = kind.make(image_size, "imagenet" if weights == "imagenet" else None)
        if weights not in ("none", "imagenet"):
            with warnings.catch_warnings():  # Of a file that does not fit, the exception says enough.
                warnings.filterwarnings("ignore", message="Skipping nested container")
                network.load_weights(weights)
    except Exception as error:  # Keras raises bare Exceptions for a failed download.
        reason = " ".join(str(error).split())
        raise UserError(
            f"--weights={weights} cannot be used for {name}: {reason[:300]}. Expected none, imagenet (needs the "
            "network), or the path of a .weights.h5, .h5 or .keras file of this backbone."
        ) from error
    return Backbone(Preparation(kind.mode, name="preparation"), network, _first_layers(network, kind.groups))


def groups(name: str) -> tuple[str, ...]:
    """Returns the names of a backbone's groups of layers, from the bottom up.

    Raises:
      UserError: There is no such backbone.
    """
    return tuple(_kind(name).groups)


def _kind(name: str) -> _Kind:
    if name not in _KINDS:
        raise UserError(f"--backbone is {name!r}; expected one of {', '.join(NAMES)}.")
    return _KINDS[name]


def _first_layers(network: keras.Model, named: Mapping[str, str]) -> dict[str, int]:
    names = [layer.name for layer in network.layers]
    found = {}
    for group, first in named.items():
        if first.startswith("after "):
            found[group] = names.index(first.removeprefix("after ")) + 1
        else:
            found[group] = next(number for number, name in enumerate(names) if name.startswith(first))
    return found | {next(iter(found)): 0}


class Preparation(layers.Layer):
    """Scales pixels as a network's weights expect it: "tf" to [-1, 1], "caffe" to BGR around ImageNet's mean."""

    def __init__(self, mode: str | None, **options: Any) -> None:
        super().__init__(**options)
        self._mode = mode

    def call(self, inputs: Any) -> Any:
        """Returns pixels in the dtype of the computation."""
        pixels = keras.ops.cast(inputs, "float32")  # bfloat16 has 8 digits, as many as a pixel; their mean has more.
        if self._mode:
            pixels = keras.applications.imagenet_utils.preprocess_input(pixels, mode=self._mode)
        return keras.ops.cast(pixels, self.compute_dtype)


def _published(name: str, **options: Any) -> Callable[[int, str | None], keras.Model]:
    """Returns a function that makes a network of `keras.applications`."""

    def make(image_size: int, weights: str | None) -> keras.Model:
        return getattr(keras.applications, name)(
            include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling="avg", **options
        )

    return make


def _numbered(group: str, numbers: range, first: str) -> dict[str, str]:
    return {group.format(number): first.format(number) for number in numbers}


_EFFICIENTNET_GROUPS = {"stem": "stem_conv"} | _numbered("block{}", range(1, 7), "block{}a_") | {"top": "top_conv"}
_CONVNEXT_GROUPS = {"stage0": "convnext_tiny_stem"} | {
    f"stage{number}": f"convnext_tiny_downsampling_block_{number - 1}" for number in range(1, 4)
}


def _mobilenet_groups(blocks: int) -> dict[str, str]:
    first = {"stem": "conv", "block0": "expanded_conv_depthwise"}
    return first | _numbered("block{}", range(1, blocks), "expanded_conv_{}_") | {"top": "conv_1"}


# Sources: He et al., 2016 (arXiv:1512.03385), Simonyan and Zisserman, 2015 (arXiv:1409.1556), Chollet, 2017
# (arXiv:1610.02357), Szegedy et al., 2016 (arXiv:1512.00567), Tan and Le, 2021 (arXiv:2104.00298), Liu et al., 2022
# (arXiv:2201.03545), Howard et al., 2019 (arXiv:1905.02244). The last three prepare pixels themselves.
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "simple_cnn": _Kind(simple_cnn.build, "tf", simple_cnn.GROUPS),
        "tutorial_cnn": _Kind(simple_cnn.build_tutorial, None, {"block1": "block1", "dense": "dense"}),
        "resnet50": _Kind(_published("ResNet50"), "caffe", _numbered("conv{}", range(1, 6), "conv{}_")),
        "vgg16": _Kind(_published("VGG16"), "caffe", _numbered("block{}", range(1, 6), "block{}_")),
        "vgg19": _Kind(_published("VGG19"), "caffe", _numbered("block{}", range(1, 6), "block{}_")),
        "xception": _Kind(_published("Xception"), "tf", _numbered("block{}", range(1, 15), "block{}_")),
        "inception_v3": _Kind(
            _published("InceptionV3"),
            "tf",
            {"stem": ""} | {f"mixed{number}": f"after mixed{number - 1}" for number in range(1, 11)},
        ),
        "efficientnet_v2_b0": _Kind(_published("EfficientNetV2B0"), None, _EFFICIENTNET_GROUPS),
        "efficientnet_v2_s": _Kind(_published("EfficientNetV2S"), None, _EFFICIENTNET_GROUPS),
        "convnext_tiny": _Kind(_published("ConvNeXtTiny"), None, _CONVNEXT_GROUPS),
        "mobilenet_v3_small": _Kind(_published("MobileNetV3Small"), None, _mobilenet_groups(11)),
        "mobilenet_v3_large": _Kind(_published("MobileNetV3Large"), None, _mobilenet_groups(15)),
    }
)
NAMES = tuple(_KINDS)
"""Every backbone that there is."""
