"""From a checkpoint to answers: prediction, scores, ensembles, the submission, exported models, a server, a report."""

import model  # noqa: F401  # Before TensorFlow, whose notices it keeps off the terminal.
