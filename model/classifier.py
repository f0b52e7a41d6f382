"""A classifier of single pictures: backbone, head, and what of it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import layers

from model import backbones, stages
from model.config import ModelConfig
from pipeline.console import UserError

_BACKBONE, _HEAD = "backbone", "head"


def build(config: ModelConfig, *, image_size: int, num_categories: int, pretrained: bool = True) -> keras.Model:
    """Builds a classifier.

    Args:
      config: The network.
      image_size: Height and width of the pictures in pixels.
      num_categories: Number of classes.
      pretrained: False leaves the backbone's weights random, for a model whose
        weights a checkpoint will replace.

    Returns:
      A model from pictures (uint8, shape (batch, image_size, image_size, 3))
      to logits (float32, shape (batch, num_categories)).
    """
    with _precision(config.precision):
        weights = config.weights if pretrained else "none"
        backbone = backbones.build(config.backbone, image_size=image_size, weights=weights)
        backbone.network.name = _BACKBONE
        inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
        x = backbone.preparation(inputs)
        if config.flip:
            x = layers.RandomFlip("horizontal", name="flip")(x)
        x = backbone.network(x)
        x = layers.Dropout(config.dropout, name="dropout")(x)
        logits = layers.Dense(num_categories, dtype="float32", name=_HEAD)(x)
        return keras.Model(inputs, logits, name="classifier")


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def freeze(model: keras.Model, trainable: str) -> None:
    """Sets which layers train; the model must be compiled afterwards.

    Frozen batch normalisation uses its moving statistics, as Keras does.

    Args:
      model: A classifier of `build`.
      trainable: "head", "all", or the prefix of a layer of the backbone: that
        layer and all after it train.

    Raises:
      UserError: The backbone has no such layer.
    """
    network = model.get_layer(_BACKBONE)
    names = [layer.name for layer in network.layers]
    if trainable == stages.ALL:
        first = 0
    elif trainable == stages.HEAD:
        first = len(names)
    else:
        matching = [number for number, name in enumerate(names) if name.startswith(trainable)]
        if not matching:
            raise UserError(
                f"--stages names {trainable!r}, and no layer of this backbone begins so; expected head, all, or the "
                f"beginning of a layer's name, such as {names[-2]}."
            )
        first = matching[0]
    for number, layer in enumerate(network.layers):
        layer.trainable = number >= first
