"""From batches to a checkpoint: backbones, training, evaluation."""

import os

from pipeline.console import native_stderr_to

with native_stderr_to(os.devnull):  # Notices about the processor, which TensorFlow prints at any log level.
    import tensorflow  # noqa: F401
