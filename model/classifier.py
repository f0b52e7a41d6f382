"""A classifier of single pictures: backbone, head, and what of it trains."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from model import backbones, stages
from model.config import ModelConfig

_BACKBONE, _HEAD = "backbone", "head"


class Classifier(keras.Model):
    """A model from pictures to logits, with what only training needs.

    Attributes:
      groups: Groups of layers of the backbone, see `model.backbones.Backbone`.
      augmentation: Changes batches before each step of training, see
        `model.augment.Augmentation`; None leaves them.
    """

    groups: Mapping[str, int] = {}
    augmentation: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None

    def train_step(self, *arguments: Any) -> Any:
        """Trains on an augmented batch; under JAX the state of training comes before the batch."""
        *state, data = arguments
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if self.augmentation is not None:
            step = state[0][2][0] if state else self.optimizer.variables[0]  # The first counts the batches of the run.
            images, labels = self.augmentation(images, labels, step)
        return super().train_step(*state, (images, labels, weights))


def build(config: ModelConfig, *, image_size: int, num_categories: int, pretrained: bool = True) -> Classifier:
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
        x = backbone.network(backbone.preparation(inputs))
        x = layers.Dropout(config.dropout, name="dropout")(x)
        logits = layers.Dense(num_categories, dtype="float32", name=_HEAD)(x)
        model = Classifier(inputs, logits, name="classifier")
        model.groups = backbone.groups
        return model


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def freeze(model: Classifier, trainable: str) -> None:
    """Sets which layers train; the model must be compiled afterwards.

    Frozen batch normalisation uses its moving statistics, as Keras does.

    Args:
      model: A classifier of `build`.
      trainable: "head", "all", or a group of layers of the backbone: it and all
        above it train.

    Raises:
      UserError: The backbone has no such group.
    """
    network = model.get_layer(_BACKBONE)
    stages.check(trainable, tuple(model.groups))
    first = {stages.ALL: 0, stages.HEAD: len(network.layers), **model.groups}[trainable]
    for number, layer in enumerate(network.layers):
        layer.trainable = number >= first


def depths(model: Classifier) -> dict[str, int]:
    """Returns how many groups below the head each variable is, by its path: 0 for the head's own."""
    found = {variable.path: 0 for variable in model.variables}
    firsts = list(model.groups.values())
    for number, layer in enumerate(model.get_layer(_BACKBONE).layers):
        depth = sum(first > number for first in firsts) + 1
        found |= {variable.path: depth for variable in layer.variables}
    return found


def transfer(source: Classifier, target: Classifier, *, with_head: bool) -> None:
    """Copies the backbone's weights from one classifier to another of the same backbone, and the head's if wanted."""
    for name in (_BACKBONE, _HEAD)[: 1 + with_head]:
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())
