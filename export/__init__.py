"""From a checkpoint to answers: prediction and the submission."""
