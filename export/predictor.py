"""Streams shards through the classifiers of one or more runs; answers come shard by shard.

Memory does not grow with the number of products: a few batches are in memory
at a time, and the answers of a shard.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import xxhash

from export import calibration, scores
from export.scores import Answers, Part
from model import aggregation
from model.run import NEWEST, Run
from model.scoring import Best, ProductScorer, Scores
from pipeline import product_batches, schema
from pipeline.console import UserError, say
from pipeline.input import InputConfig, reading
from pipeline.manifest import Manifest, Records
from pipeline.selection import SelectionConfig

_CPU_BATCH, _GPU_BATCH = 128, 512  # Larger ones are no faster on a CPU, which cannot tell that memory ran out.
_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What to predict, and how.

    Attributes:
      runs: Folders of the runs, whose probabilities are averaged.
      data: Folder of the dataset.
      output: The CSV to write.
      split: Name of the split.
      views: Ways to look at an image, of `aggregation.VIEWS`.
      aggregate: How images and views are joined, one of `aggregation.AGGREGATES`.
      top_k: Number of categories that are kept for each product.
      scores: Folder to keep the scores of each run in; None for none.
      batch_size: Images in a batch; None for one that suits the device.
      checkpoint: Which checkpoint of each run, one of `model.run.CHOICES`.
      calibrated: Whether to apply the temperatures that tools.calibrate fitted.
    """

    runs: tuple[str, ...]
    data: str
    output: str = "submission.csv"
    split: str = schema.TEST
    views: tuple[str, ...] = (aggregation.CENTER,)
    aggregate: str = aggregation.MEAN
    top_k: int = 10
    scores: str | None = None
    batch_size: int | None = None
    checkpoint: str = NEWEST
    calibrated: bool = True

    def __post_init__(self) -> None:
        aggregation.check_options(self.views, self.aggregate)
        if self.top_k < 1:
            raise UserError(f"--top_k is {self.top_k}; expected 1 or more.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"--batch_size is {self.batch_size}; expected 1 or more, or none to have it found.")
        if len(set(self.runs)) != len(self.runs):
            raise UserError(f"--run names a run twice: {', '.join(self.runs)}.")

    @property
    def kept(self) -> int:
        """Number of categories that are kept for each product: the submission needs one."""
        return self.top_k if self.scores else 1

    def load_runs(self) -> list[Run]:
        """Opens the folders of the runs, without their weights."""
        return [Run.load(folder) for folder in self.runs]

    def load_data(self) -> Manifest:
        """Opens the dataset; of one with folds, as the runs have seen it."""
        data = Manifest.load(self.data)
        folds = {run.config.fold for run in self.load_runs()}
        if not data.details["folds"]:
            return data
        if len(folds) > 1:
            raise UserError(f"the runs hold out different folds of {self.data}: {folds}; predict each by itself.")
        return data.hold_out(*folds)


def share_a_pass(runs: Sequence[Run]) -> bool:
    """Tells whether runs can be averaged on the device, in one pass over the shards.

    Raises:
      UserError: They cannot be averaged at all, since their categories differ.
    """
    for run in runs:
        if run.tree.fingerprint != runs[0].tree.fingerprint:
            raise UserError(
                f"{run.folder} and {runs[0].folder} have another category tree; expected runs that were trained on "
                "the same --categories. Predict each by itself."
            )
    return len({run.config.input.decode_size for run in runs}) == 1


class Predictor:
    """Predicts shards, one after another, with runs that share a pass; loads the weights once.

    Args:
      config: The options.

    Attributes:
      data: The dataset.
      tree: The categories, in the order of the labels.
      identities: For each run, what its answers follow from, as plain values.
      batch_size: Images in a batch.

    Raises:
      UserError: A run has no checkpoint, or the data have no such split.
    """

    def __init__(self, config: PredictConfig) -> None:
        runs = config.load_runs()
        self._config = config
        self.data = config.load_data()
        self._shards = self.data.shards(config.split)
        self.tree = runs[0].tree
        loaded = [calibration.trained(run, config.checkpoint, calibrated=config.calibrated) for run in runs]
        self._classifiers = [item.classifier for item in loaded]
        self.identities = [
            {"checkpoint": item.checkpoint, "weights": _digest(item.classifier), "temperature": item.temperature}
            for item in loaded
        ]
        for number, classifier in enumerate(self._classifiers):
            classifier.name = f"run{number}"  # Keras joins no two models of one name.
        self._prior = np.mean([run.prior for run in runs], axis=0)
        self._input = _common_input([run.config.input for run in runs])
        self.batch_size = config.batch_size or _sensible_batch_size()
        self._scorer = self._new_scorer()
        self._unfinished = 0

    def predict(self, shards: Sequence[int], tell: Callable[[int], object] = int) -> Iterator[tuple[int, Answers]]:
        """Yields the number and the answers of each shard.

        Where the device runs out of memory, the batch is halved, and the shard
        begun anew.

        Args:
          shards: Numbers of the shards.
          tell: Called with the number of products of each batch that is done;
            with a negative one where a shard is begun anew.

        Raises:
          UserError: Memory does not suffice even for one image at a time, or a
            shard is damaged.
        """
        waiting = list(shards)
        while waiting:
            try:
                with reading():
                    for answers in self._stream(tuple(waiting), tell):
                        yield waiting.pop(0), answers
            except Exception as error:  # Each backend has its own kind.
                if not _is_out_of_memory(error):
                    raise
                tell(-self._unfinished)
                self._halve(error)

    def _new_scorer(self) -> ProductScorer:
        return ProductScorer(
            self._classifiers,
            self.tree,
            prior=self._prior,
            capacity=self.batch_size,
            top_k=self._config.kept,
            views=self._config.views,
            aggregate=self._config.aggregate,
            image_size=self._input.image_size,
            levels=False,
        )

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise UserError(f"the device has no memory even for one image at a time: {error}") from error
        self.batch_size //= 2
        say(f"The device ran out of memory; going on with batches of {self.batch_size} images.")
        self._scorer = self._new_scorer()

    def _stream(self, shards: Sequence[int], tell: Callable[[int], object]) -> Iterator[Answers]:
        """Yields the answers of shards, while the next ones are already being read."""
        config = replace(self._input, batch_size=self.batch_size)
        batches = iter(product_batches.products(self.data, config, split=self._config.split, shard=shards))
        for shard in shards:
            table = self.data.records(self._config.split, shard)
            self._unfinished = 0
            found: list[Scores] = []
            while self._unfinished < len(table.product_id) and (batch := next(batches, None)) is not None:
                scored = self._scorer.score(batch)
                found.append(scored)
                self._unfinished += len(scored.num_images)
                tell(len(scored.num_images))
            yield self._answers(table, found)

    def _answers(self, table: Records, found: Sequence[Scores]) -> Answers:
        num_images = np.concatenate([scored.num_images for scored in found])

        def part(best: Sequence[Best]) -> Part:
            labels, probabilities = map(np.concatenate, zip(*best, strict=True))
            kept = scores.compact(labels, probabilities, self.tree.num_categories)
            return Part(table.product_id, table.category_id, num_images, *kept)

        together = part([Best(scored.top_labels, scored.top_probabilities) for scored in found])
        members = tuple(part(best) for best in zip(*(scored.members for scored in found), strict=True))
        return Answers(together, members or (together,))


def _common_input(inputs: Sequence[InputConfig]) -> InputConfig:
    """Returns how to cut pictures for all; where sizes differ, each classifier cuts its own out of the whole.

    Whatever was chosen to train on, every product is answered for.
    """
    sizes = {config.image_size for config in inputs}
    whole = replace(inputs[0], selection=SelectionConfig())
    return whole if len(sizes) == 1 else replace(whole, image_size=whole.decode_size)


def _digest(classifier: keras.Model) -> str:
    digest = xxhash.xxh3_128()
    for weight in classifier.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()


def _sensible_batch_size() -> int:
    return _GPU_BATCH if keras.distribution.list_devices("gpu") else _CPU_BATCH


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}"
    return any(sign in text for sign in _OUT_OF_MEMORY)
