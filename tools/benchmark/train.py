"""Training from shards beside the same step on one batch in memory, and what share of it waits for input."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from model import flagfile, optimization
from model.clock import Clock
from model.config import TrainConfig
from model.run import Run
from pipeline import shard_job
from pipeline.input import TrainInput
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue
from tools.benchmark.table import Table
from tools.synthetic_catalogue import CatalogueConfig

_PRODUCTS, _CATEGORIES = 1500, 100
FLAGFILES = ("simple_cnn.flags", "xception.flags")
_SHUFFLE_IMAGES = 1024
_SECONDS, _MOST_STEPS, _LEAST_STEPS = 10, 60, 6  # Timed at once.


@dataclass
class _Case:
    """A network in training.

    Attributes:
      model: It, compiled.
      config: Its options.
      input: What it is fed with.
      kept: A batch in memory.
      steps: Number of batches that are timed at once.
    """

    model: keras.Model
    config: TrainConfig
    input: TrainInput
    kept: tuple[tf.Tensor, ...]
    steps: int


def measure(folder: str, *, flagfiles: Sequence[str], rounds: int) -> Table:
    """Trains networks on made-up products of 180x180 pixels, fed and from memory in turns.

    Where the share of waiting is above a few percent the input is the
    bottleneck, else the network.

    Args:
      folder: Where files are made.
      flagfiles: Of the networks; weights are random, and all layers train.
      rounds: Rounds, of which the best of each kind counts.
    """
    data = _dataset(folder)
    table = Table(
        f"Training, {keras.backend.backend()} backend, best of {rounds}",
        ["network", "one batch in memory, images/s", "fed, images/s", "fed / in memory", "share of waiting"],
    )
    for name in flagfiles:
        case = _case(os.path.join(folder, f"run-{name}".replace(os.sep, "-")), data, flagfile.read(name))
        _fit(case, fed=True)  # Compiles.
        memory, fed, waiting = 0.0, 0.0, 1.0
        for _ in range(rounds):
            memory = max(memory, _fit(case, fed=False)[0])
            rate, share = _fit(case, fed=True)
            fed, waiting = max((fed, waiting), (rate, share), key=lambda pair: pair[0])
        config = case.config.input
        title = f"{name}, {config.image_size} px, batches of {config.batch_size}"
        table.rows.append([title, f"{memory:.1f}", f"{fed:.1f}", f"{fed / memory:.3f}", f"{waiting:.1%}"])
    return table


def _dataset(folder: str) -> Manifest:
    tree = synthetic_catalogue.categories_of(None, _CATEGORIES, seed=0)
    synthetic_catalogue.write(
        CatalogueConfig(output=folder, products=_PRODUCTS, test_products=0, tree=tree, overwrite=True)
    )
    return shard_job.run(
        ShardConfig(
            inputs=(os.path.join(folder, synthetic_catalogue.TRAIN),),
            output=os.path.join(folder, "shards"),
            validation_fraction=0,
        )
    )


def _case(folder: str, data: Manifest, config: TrainConfig) -> _Case:
    config = replace(
        config,
        model=replace(config.model, weights="none", init_from=None),
        input=replace(config.input, shuffle_images=_SHUFFLE_IMAGES),
        stages="all:1",
    )
    keras.utils.set_random_seed(0)
    run = Run.begin(folder, config, data)
    model = run.build(pretrained=False)
    train_input = TrainInput(data, config.input)
    optimization.enter_stage(run, model, 0, train_input.steps)
    kept = next(iter(train_input.epoch(0)))
    case = _Case(model, config, train_input, kept, _LEAST_STEPS)
    rate, _ = _fit(case, fed=False)
    most = min(_MOST_STEPS, train_input.steps - 1)
    case.steps = max(_LEAST_STEPS, min(most, round(_SECONDS * rate / config.input.batch_size)))
    return case


def _fit(case: _Case, *, fed: bool) -> tuple[float, float]:
    """Returns images/s of some steps, and their share of waiting."""
    dataset = tf.data.Dataset.from_tensors(case.kept).repeat()
    if fed:
        dataset = case.input.epoch(0)
    clock = Clock()
    steady = _Steady(clock)
    case.model.fit(dataset, steps_per_epoch=case.steps + 1, verbose=0, callbacks=[clock, steady])
    return case.steps * case.config.input.batch_size / steady.seconds, steady.waited / steady.seconds


class _Steady(keras.callbacks.Callback):
    """Times all steps but the first.

    Attributes:
      seconds: What they took.
      waited: What of it the fetching of batches took.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each batch."""
        if batch == 0:
            self._begun, self._waited = time.perf_counter(), self._clock.waited
        self.seconds = time.perf_counter() - self._begun
        self.waited = self._clock.waited - self._waited
