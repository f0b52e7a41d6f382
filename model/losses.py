"""The loss that classifiers learn by, and what it can do about imbalance."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from model import options


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training minimises.

    Attributes:
      label_smoothing: Probability spread over all categories, in [0, 1).
      class_weights: Power of a category's frequency by which its pictures weigh
        less: 0 weighs all alike, 0.5 by the inverse root, 1 by the inverse.
      logit_adjustment: Factor on the log of a category's frequency that is
        added to its logit in training only (Menon et al., 2020,
        arXiv:2007.07314); 0 is off, 1 aims at the mean accuracy of categories.
    """

    label_smoothing: float = 0.0
    class_weights: float = 0.0
    logit_adjustment: float = 0.0

    def __post_init__(self) -> None:
        options.check_range(self, "label_smoothing")
        options.check_range(self, "class_weights", "logit_adjustment", below=float("inf"))


def build(config: LossConfig, prior: np.ndarray) -> "SmoothedCrossEntropy":
    """Builds the loss.

    Args:
      config: What it is.
      prior: Share of each category among the train products, above 0, float of
        shape (categories,).
    """
    weights = prior**-config.class_weights
    return SmoothedCrossEntropy(
        config.label_smoothing,
        weights=weights / (weights * prior).sum() if config.class_weights else None,
        adjustment=config.logit_adjustment * np.log(prior) if config.logit_adjustment else None,
    )


class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross entropy of logits with integer labels, or with two of them and a share.

    Label smoothing as in Szegedy et al., 2016 (arXiv:1512.00567), section 7,
    which Keras offers for one-hot labels only: 5,270 numbers a picture. For the
    same reason a mixed picture has two labels.

    Args:
      smoothing: Probability spread over all categories, in [0, 1).
      weights: Weight of the pictures of each category, (categories,); or None.
      adjustment: Added to the logits, (categories,); or None.
    """

    def __init__(
        self, smoothing: float = 0.0, *, weights: np.ndarray | None = None, adjustment: np.ndarray | None = None
    ) -> None:
        super().__init__(name="loss")
        self._smoothing = smoothing
        self._weights = None if weights is None else weights.astype(np.float32)
        self._adjustment = None if adjustment is None else adjustment.astype(np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each picture: float32 of shape (batch,).

        Args:
          y_true: Labels of shape (batch,) or (batch, 1), or of
            `model.augment.Augmentation`, (batch, 3).
          y_pred: Logits of shape (batch, categories).
        """
        logits = ops.cast(y_pred, "float32")
        if self._adjustment is not None:
            logits = logits + self._adjustment
        log_total = ops.logsumexp(logits, axis=-1)
        uniform = log_total - ops.mean(logits, axis=-1) if self._smoothing else 0.0

        def of_label(label: Any) -> Any:
            label = ops.cast(ops.reshape(label, (-1, 1)), "int32")
            loss = log_total - ops.take_along_axis(logits, label, axis=-1)[:, 0]
            loss = (1 - self._smoothing) * loss + self._smoothing * uniform
            return loss if self._weights is None else loss * ops.take(self._weights, label[:, 0])

        if not _is_mixed(y_true):
            return of_label(y_true)
        share = ops.cast(y_true[:, 2], "float32")
        return (1 - share) * of_label(y_true[:, 0]) + share * of_label(y_true[:, 1])


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Returns 1 where the greatest logit is that of the label, or of the greater one of two: float32, (batch,)."""
    label = y_true[:, 0] if _is_mixed(y_true) else ops.reshape(y_true, (-1,))
    return ops.cast(ops.equal(ops.argmax(y_pred, axis=-1), ops.cast(label, "int32")), "float32")


def _is_mixed(y_true: Any) -> bool:
    return len(y_true.shape) == 2 and y_true.shape[1] == 3
