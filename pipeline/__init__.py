"""From BSON to batches: the shard job, the shard directory, the input."""

import logging
import os

# TensorFlow's notices about its own build, at every start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

# Beam warns of an optional package at import, before a command could ask it not to.
logging.getLogger().addFilter(lambda record: "apitools not found" not in str(record.msg))
