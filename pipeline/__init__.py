"""From BSON to batches: the shard job, the shard directory, the input."""

import logging

# Beam warns of an optional package at import, before a command could ask it not to.
logging.getLogger().addFilter(lambda record: "apitools not found" not in str(record.msg))
