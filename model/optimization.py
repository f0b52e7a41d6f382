"""What a stage of unfreezing sets up: what trains, how fast, and by which loss."""

import keras

from model import classifier, losses, optimizers, stages
from model.augment import Augmentation
from model.optimizers import Pace
from model.run import Run


def enter_stage(run: Run, model: keras.Model, number: int, steps: int) -> None:
    """Freezes, and compiles with a schedule that spans the stage.

    What the optimizer of the stage before knows of weights that train on is
    carried over to the new one.

    Args:
      run: The run.
      model: Its classifier.
      number: Number of the stage, from 0.
      steps: Number of batches in an epoch.
    """
    config = run.config
    born = _born(model, config.plan, number, steps / config.optimization.accumulate)
    stage = config.plan[number]
    schedule = optimizers.StageSchedule(
        config.optimization,
        peak=config.optimization.learning_rate * stage.rate,
        first=steps * stages.total_epochs(config.plan[:number]),
        steps=steps * stage.epochs,
    )
    depth = classifier.depths(model)
    variables = model.trainable_variables
    paces = [
        Pace(config.optimization.layer_decay ** depth[item.path], optimizers.decays(item), born[item.path])
        for item in variables
    ]
    optimizer = optimizers.build(config.optimization, schedule, variables, paces)
    if getattr(model, "optimizer", None):
        optimizers.carry_over(model.optimizer, optimizer)
    if model.augmentation is None:  # It takes seconds to compile.
        model.augmentation = Augmentation(config.augment, seed=config.input.seed, train_products=run.train_products)
    model.compile(
        optimizer=optimizer,
        loss=losses.build(config.loss, run.prior),
        weighted_metrics=[keras.metrics.MeanMetricWrapper(losses.accuracy, name="accuracy")],
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit],
    )


def _born(model: keras.Model, plan: tuple[stages.Stage, ...], number: int, updates: float) -> dict[str, int]:
    """Freezes for a stage, and returns the number of updates before each trainable variable began to train."""
    born: dict[str, int] = {}
    for before, stage in enumerate(plan[: number + 1]):
        now = int(updates * stages.total_epochs(plan[:before]))
        classifier.freeze(model, stage.trainable)
        born = {item.path: born.get(item.path, now) for item in model.trainable_variables}
    return born
