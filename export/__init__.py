"""From a checkpoint to answers: prediction, scores, ensembles and the submission."""

import model  # noqa: F401  # Before TensorFlow, whose notices it keeps off the terminal.
