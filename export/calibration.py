"""Temperature scaling: one number that makes probabilities mean what they say.

The logits are divided by a temperature before the softmax (Guo et al., 2017,
arXiv:1706.04599). The order of a single picture's categories stays as it is;
that of a product, whose pictures are averaged, may change where it was close.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import layers

from model.run import Run
from pipeline import files

_FILE_NAME = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it was fitted on.

    Attributes:
      temperature: What logits are divided by, above 0.
      checkpoint: Name of the checkpoint that it belongs to.
      data: Fingerprint of the dataset.
      products: Number of validation products that it was fitted on.
      negative_log_likelihood: Mean over products at temperature 1, and at this one.
      expected_calibration_error: The same of the error, in [0, 1].
    """

    temperature: float
    checkpoint: str
    data: str
    products: int
    negative_log_likelihood: tuple[float, float]
    expected_calibration_error: tuple[float, float]

    def save(self, run: Run) -> str:
        """Writes it into the run's folder and returns the path."""
        path = os.path.join(run.folder, _FILE_NAME)
        files.write_json(path, asdict(self))
        return path


def temperature_of(run: Run, checkpoint: str) -> float:
    """Returns the temperature that was fitted for a checkpoint of a run, or 1 where none was."""
    path = os.path.join(run.folder, _FILE_NAME)
    content: dict[str, Any] = files.read_json(path) if files.exists(path) else {}
    fitted = content.get("checkpoint") == os.path.basename(checkpoint)
    return float(content["temperature"]) if fitted else 1.0


def scaled(classifier: keras.Model, temperature: float) -> keras.Model:
    """Returns a classifier whose logits are divided by a temperature."""
    if temperature == 1:
        return classifier
    logits = layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(classifier.output)
    return keras.Model(classifier.input, logits, name=classifier.name)
