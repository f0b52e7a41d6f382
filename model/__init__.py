"""From batches to a checkpoint: backbones, training, evaluation."""
