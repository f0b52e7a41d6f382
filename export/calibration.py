"""Temperature scaling: one number that makes probabilities mean what they say.

The logits are divided by a temperature before the softmax (Guo et al., 2017,
arXiv:1706.04599). The order of a single picture's categories stays as it is;
that of a product, whose pictures are averaged, may change where it was close.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from export import reliability
from model.run import NEWEST, Run
from pipeline import files, product_batches, schema
from pipeline.console import UserError, progress
from pipeline.input import reading
from pipeline.manifest import Manifest

_FILE_NAME = "calibration.json"
_TEMPERATURES = tuple(2 ** (step / 16) for step in range(-32, 49))  # A quarter to eight, 4 % apart; 1 among them.
_AT_ONE = 32
_LEAST = 1e-12  # Probability, below which a logarithm goes no further.


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


class Trained(NamedTuple):
    """A classifier with the weights of a checkpoint.

    Attributes:
      classifier: Model from pictures to logits, divided by the temperature.
      checkpoint: Path of the checkpoint.
      temperature: That which was fitted for it; 1 where none was.
    """

    classifier: keras.Model
    checkpoint: str
    temperature: float


def trained(run: Run, checkpoint: str = NEWEST, *, calibrated: bool = True) -> Trained:
    """Returns the classifier of a run.

    Args:
      run: The run.
      checkpoint: Which one, of `model.run.CHOICES`.
      calibrated: Whether to apply the temperature.

    Raises:
      UserError: The run has no checkpoint.
    """
    classifier, path = run.trained(checkpoint)
    temperature = _temperature(run, path) if calibrated else 1.0
    return Trained(scaled(classifier, temperature), path, temperature)


def _temperature(run: Run, checkpoint: str) -> float:
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


def fit(run: Run, data: Manifest, checkpoint: str = NEWEST) -> Calibration:
    """Finds the temperature at which the true categories of validation are likeliest.

    All temperatures are tried in one pass, on the device, so that memory does
    not grow with the number of products. Products without a readable image
    are left out.

    Args:
      run: A run with a checkpoint.
      data: A dataset with a validation split and the run's category tree.
      checkpoint: Which one, of `model.run.CHOICES`.

    Raises:
      UserError: The run has no checkpoint, the data does not fit it, or no
        product has a readable image.
    """
    run.check_tree(data)
    classifier, path = run.trained(checkpoint)
    config = run.config.input
    tried = _tried(classifier, config.batch_size)
    tallies = [_Tally() for _ in _TEMPERATURES]
    total = sum(shard.records for shard in data.shards(schema.VALIDATION))
    with progress("calibrating", total=total, unit=" products") as bar, reading():
        for batch in product_batches.products(data, config, split=schema.VALIDATION):
            inputs = [np.asarray(values) for values in (batch.images, batch.owners, batch.labels)]
            answers, counts = (np.asarray(output) for output in tried.predict_on_batch(inputs))
            rows = np.flatnonzero(counts)
            for tally, answer in zip(tallies, answers, strict=True):
                tally.add(*answer[:, rows])
            bar.update(int(batch.products))
    return _best(tallies, checkpoint=os.path.basename(path), data=data)


def _tried(classifier: keras.Model, capacity: int) -> keras.Model:
    """Returns a model of images, owners and labels, see `_Trial`."""
    images = keras.Input(classifier.input_shape[1:], dtype="uint8")
    owners, labels = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    logits = classifier(images, training=False)
    return keras.Model([images, owners, labels], _Trial(capacity)([logits, owners, labels]))


class _Trial(layers.Layer):
    """Answers for products at every temperature.

    Returns float32 of shape (temperatures, 3, products): the probability of the
    true category, that of the answer, and 1 where the answer is right; and the
    number of readable images of each product.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(dtype="float32")
        self._capacity = capacity

    def call(self, inputs):  # type: ignore[no-untyped-def]
        logits, owners, labels = inputs
        counts = _sums(ops.ones_like(owners), owners, self._capacity)
        divisor = ops.cast(ops.expand_dims(ops.maximum(counts, 1), -1), "float32")
        column = ops.expand_dims(ops.maximum(labels, 0), -1)  # Padding has no label, and is left out later.
        answers = []
        for temperature in _TEMPERATURES:
            means = _sums(ops.softmax(logits / temperature), owners, self._capacity) / divisor
            true = ops.take_along_axis(means, column, axis=1)[:, 0]
            right = ops.cast(ops.equal(ops.cast(ops.argmax(means, axis=1), "int32"), labels), "float32")
            answers.append(ops.stack([true, ops.max(means, axis=1), right]))
        return ops.stack(answers), counts


def _sums(values: Any, owners: Any, capacity: int) -> Any:
    """Returns the sums over the images of each product."""
    return ops.segment_sum(values, owners, num_segments=capacity + 1)[:capacity]  # The last row is of no product.


class _Tally:
    """Sums over products at one temperature."""

    def __init__(self) -> None:
        self.products = 0
        self.surprise = 0.0
        self.bins: list[reliability.Bin] = []

    def add(self, true: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> None:
        self.products += len(true)
        self.surprise -= float(np.log(np.maximum(true.astype(np.float64), _LEAST)).sum())
        self.bins = reliability.merged(self.bins, reliability.bins(confidence, right))

    @property
    def negative_log_likelihood(self) -> float:
        return self.surprise / self.products


def _best(tallies: list[_Tally], *, checkpoint: str, data: Manifest) -> Calibration:
    before = tallies[_AT_ONE]
    if not before.products:
        raise UserError(f"no validation product of {data.folder} has a readable image; there is nothing to fit to.")
    best = min(range(len(tallies)), key=lambda number: tallies[number].negative_log_likelihood)
    after = tallies[best]
    return Calibration(
        temperature=_TEMPERATURES[best],
        checkpoint=checkpoint,
        data=data.fingerprint,
        products=before.products,
        negative_log_likelihood=(before.negative_log_likelihood, after.negative_log_likelihood),
        expected_calibration_error=(
            reliability.expected_calibration_error(before.bins),
            reliability.expected_calibration_error(after.bins),
        ),
    )
