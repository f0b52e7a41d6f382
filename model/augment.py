"""Augmentation of training pictures, on the device: bytes and labels in, bytes and labels out.

Everything is drawn from the seed of the run and the number of the batch, so a
resumed run sees what it would have seen, and nothing has to be saved. All of it
is `keras.ops`, so it runs on any backend and under XLA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from model import options

_QUANTILES = 4096
_ERASED_AREA = (0.02, 0.2)  # Shares of the picture, as in Zhong et al., 2020 (arXiv:1708.04896), but never above half.


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training pictures are changed at random.

    Attributes:
      flip: Mirror pictures at random, half of them.
      zoom: Cut out a part whose sides are between 1 - zoom and 1 of the
        picture's, at a random place, and enlarge it; in [0, 1).
      stretch: Stretch width against height by a factor between 1 / (1 +
        stretch) and 1 + stretch.
      translate: Move by up to this share of the picture; edges repeat.
      rotate: Turn by up to so many degrees.
      colour: Change brightness, contrast and saturation by up to this share.
      erase: Share of the pictures in which a rectangle is painted over (random
        erasing, Zhong et al., 2020, arXiv:1708.04896).
      mixup: Blend pairs of pictures and their labels, by a share from
        Beta(mixup, mixup) (Zhang et al., 2018, arXiv:1710.09412); 0 is off.
      cutmix: Paste a rectangle of another picture, with its share of the label,
        its area from Beta(cutmix, cutmix) (Yun et al., 2019, arXiv:1905.04899);
        0 is off. With both, each picture has one of them.
      mixed: Share of the pictures that mixup and cutmix touch.
      augment_below: Change only pictures of categories with fewer train
        products than this, against imbalance; 0 changes all.
    """

    flip: bool = True
    zoom: float = 0.0
    stretch: float = 0.0
    translate: float = 0.0
    rotate: float = 0.0
    colour: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 1.0
    augment_below: int = 0

    def __post_init__(self) -> None:
        options.check_range(self, "zoom", "translate", "colour")
        options.check_range(self, "erase", "mixed", below=1 + 1e-9)
        options.check_range(self, "stretch", "rotate", "mixup", "cutmix", "augment_below", below=float("inf"))


class Augmentation:
    """Changes batches as an `AugmentConfig` says.

    Args:
      config: What to do.
      seed: Seed of the run.
      train_products: Number of products of each category, int of shape
        (categories,).
    """

    def __init__(self, config: AugmentConfig, *, seed: int, train_products: np.ndarray) -> None:
        self._config = config
        self._seed = seed
        self._rare = train_products < config.augment_below
        self._shares = [_beta_quantiles(alpha) for alpha in (config.mixup, config.cutmix) if alpha]
        self._warps = any((config.zoom, config.stretch, config.translate, config.rotate))
        many = self._warps or self._shares or config.colour or config.erase
        self._compiled = _compiled(self._augmented) if many else self._augmented

    def __call__(self, images: Any, labels: Any, step: Any) -> tuple[Any, Any]:
        """Returns a batch as it is trained on.

        Args:
          images: uint8 of shape (batch, height, width, 3).
          labels: int32 of shape (batch,).
          step: Number of the batch in the run, an integer scalar.

        Returns:
          Images of the same shape and dtype, and labels: the same, or where
          pictures are mixed float32 of shape (batch, 3): label, label of the
          other picture, and share of that one, at most half.
        """
        return self._compiled(images, labels, ops.cast(step, "uint32"))

    def _augmented(self, images: Any, labels: Any, step: Any) -> tuple[Any, Any]:
        config, draws = self._config, _Draws(self._seed, step)
        x = _flipped(images, draws) if config.flip else images
        x = ops.cast(_warped(x, config, draws) if self._warps else x, "float32")
        if config.colour:
            x = _recoloured(x, config.colour, draws)
        if config.erase:
            x = _erased(x, config.erase, draws)
        own = None
        if config.augment_below:
            own = ops.logical_not(ops.take(ops.convert_to_tensor(self._rare), labels))
            x = ops.where(_per_image(own), ops.cast(images, "float32"), x)
        if self._shares:
            x, labels = self._mixed(x, labels, own, draws)
        return ops.cast(ops.clip(ops.round(x), 0, 255), "uint8"), labels

    def _mixed(self, x: Any, labels: Any, untouched: Any, draws: "_Draws") -> tuple[Any, Any]:
        """Mixes each picture with the one before it in the batch, whose order is random already."""
        config, batch = self._config, ops.shape(x)[0]
        shares = [
            ops.take(ops.convert_to_tensor(table), ops.cast(draws.uniform((batch,), 0, _QUANTILES), "int32"))
            for table in self._shares
        ]
        area, cuts = shares[-1], draws.uniform((batch,)) < (0.5 if config.mixup else 1.0)
        boxes = _boxes(area, ops.shape(x)[1:3], draws)
        boxed = ops.mean(boxes, axis=(1, 2, 3))  # A rectangle at the border is cut off.
        mixes = draws.uniform((batch,)) < config.mixed
        if untouched is not None:
            mixes = ops.logical_and(mixes, ops.logical_not(untouched))
        if not config.cutmix:
            cuts = ops.zeros_like(cuts)
        weight = ops.where(_per_image(cuts), boxes, _per_image(shares[0]))
        weight = weight * ops.cast(_per_image(mixes), "float32")
        share = ops.where(cuts, boxed, shares[0]) * ops.cast(mixes, "float32")
        x = x + weight * (ops.roll(x, 1, axis=0) - x)
        return x, ops.stack(
            [ops.cast(labels, "float32"), ops.cast(ops.roll(labels, 1, axis=0), "float32"), share], axis=-1
        )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function under TensorFlow, where its many small operations took 20 times as long one by one.

    JAX compiles the whole step anyway.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


class _Draws(keras.random.SeedGenerator):
    """A seed generator without a variable: every seed follows from the run's seed, the batch, and how many came before.

    `keras.random` takes a number or a `SeedGenerator`, and the number of a
    batch is a tensor.
    """

    def __init__(self, seed: int, step: Any) -> None:
        self._seed, self._step, self._number = seed, step, 0

    def next(self, ordered: bool = True) -> Any:
        self._number += 1
        mixed = self._step * np.uint32(64) + np.uint32(self._number)
        return ops.stack([ops.convert_to_tensor(self._seed % 2**31, "uint32"), mixed])

    def uniform(self, shape: Any, low: float = 0.0, high: float = 1.0) -> Any:
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self)


def _beta_quantiles(alpha: float) -> np.ndarray:
    """Returns shares as Beta(alpha, alpha) gives them, folded to at most half: float32, sorted.

    A table, since no backend's Beta compiles under XLA.
    """
    drawn = np.random.default_rng(0).beta(alpha, alpha, _QUANTILES)
    return np.sort(np.minimum(drawn, 1 - drawn)).astype(np.float32)


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))


def _flipped(images: Any, draws: _Draws) -> Any:
    return ops.where(draws.uniform((ops.shape(images)[0], 1, 1, 1)) < 0.5, ops.flip(images, axis=2), images)


def _warped(images: Any, config: AugmentConfig, draws: _Draws) -> Any:
    """Turns, stretches, enlarges and moves, in one bilinear resampling; edges repeat."""
    batch, (height, width) = ops.shape(images)[0], images.shape[1:3]
    column = (batch, 1, 1)
    size = draws.uniform(column, 1 - config.zoom, 1)
    stretch = ops.exp(draws.uniform(column, -np.log1p(config.stretch), np.log1p(config.stretch)) / 2)
    angle = draws.uniform(column, -1, 1) * np.float32(np.deg2rad(config.rotate))
    room = (1 - size) / 2 + config.translate
    down, right = (draws.uniform(column, -1, 1) * room * side for side in (height, width))
    rows = ops.reshape(ops.arange(height, dtype="float32") - (height - 1) / 2, (1, -1, 1))
    columns = ops.reshape(ops.arange(width, dtype="float32") - (width - 1) / 2, (1, 1, -1))
    y = size * stretch * (ops.cos(angle) * rows - ops.sin(angle) * columns) + down + (height - 1) / 2
    x = size / stretch * (ops.sin(angle) * rows + ops.cos(angle) * columns) + right + (width - 1) / 2
    return _bilinear(images, ops.clip(y, 0, height - 1), ops.clip(x, 0, width - 1))


def _bilinear(images: Any, y: Any, x: Any) -> Any:
    """Returns pictures at fractional places: float32 of shape (batch, *, *, 3)."""
    batch, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
    top = ops.clip(ops.floor(y), 0, height - 2)
    left = ops.clip(ops.floor(x), 0, width - 2)
    below, beside = ops.expand_dims(y - top, -1), ops.expand_dims(x - left, -1)
    first = ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (-1, 1, 1))
    corner = first + ops.cast(top, "int32") * width + ops.cast(left, "int32")
    pixels = ops.reshape(images, (-1, channels))

    def at(offset: int) -> Any:
        return ops.cast(ops.take(pixels, corner + offset, axis=0), "float32")

    upper = at(0) * (1 - beside) + at(1) * beside
    lower = at(width) * (1 - beside) + at(width + 1) * beside
    return upper * (1 - below) + lower * below


def _recoloured(x: Any, strength: float, draws: _Draws) -> Any:
    column = (ops.shape(x)[0], 1, 1, 1)
    brightness, contrast, saturation = (draws.uniform(column, 1 - strength, 1 + strength) for _ in range(3))
    grey = ops.mean(x, axis=-1, keepdims=True)
    mean = ops.mean(grey, axis=(1, 2), keepdims=True)
    return brightness * (mean + contrast * (grey + saturation * (x - grey) - mean))


def _erased(x: Any, share: float, draws: _Draws) -> Any:
    batch = ops.shape(x)[0]
    area = draws.uniform((batch,), *_ERASED_AREA)
    boxes = _boxes(area, ops.shape(x)[1:3], draws)
    chosen = ops.cast(draws.uniform((batch, 1, 1, 1)) < share, "float32")
    paint = draws.uniform((batch, 1, 1, x.shape[-1]), 0, 255)
    return x + boxes * chosen * (paint - x)


def _boxes(area: Any, size: Any, draws: _Draws) -> Any:
    """Returns masks of rectangles at random places: 1 inside, float32 of shape (batch, height, width, 1).

    Args:
      area: Share of the picture inside, where the border does not cut it off:
        (batch,).
      size: Height and width of the picture.
      draws: Where randomness comes from.
    """

    def inside(length: Any) -> Any:
        centre = draws.uniform((ops.shape(area)[0], 1)) * ops.cast(length, "float32")
        half = ops.expand_dims(ops.sqrt(area), -1) * ops.cast(length, "float32") / 2
        places = ops.expand_dims(ops.arange(length, dtype="float32") + 0.5, 0)
        return ops.cast(ops.abs(places - centre) < half, "float32")

    rows, columns = inside(size[0]), inside(size[1])
    return ops.expand_dims(ops.expand_dims(rows, 2) * ops.expand_dims(columns, 1), -1)
