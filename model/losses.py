"""The loss that classifiers learn by."""

from typing import Any

import keras
from keras import ops


class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross entropy of logits with integer labels, with label smoothing.

    Label smoothing as in Szegedy et al., 2016 (arXiv:1512.00567), section 7,
    which Keras offers for one-hot labels only: 5,270 numbers a picture.

    Args:
      smoothing: Probability spread over all categories, in [0, 1).
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(name="loss")
        self._smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each picture: float32 of shape (batch,)."""
        logits = ops.cast(y_pred, "float32")
        log_total = ops.logsumexp(logits, axis=-1)
        labels = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
        chosen = ops.take_along_axis(logits, labels, axis=-1)[:, 0]
        loss = log_total - chosen
        if self._smoothing:
            uniform = log_total - ops.mean(logits, axis=-1)
            loss = (1 - self._smoothing) * loss + self._smoothing * uniform
        return loss
