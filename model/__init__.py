"""From batches to a checkpoint: backbones, training, evaluation."""

import pipeline  # noqa: F401 - Before Keras, whose notices it silences.
