"""How weights move: the optimizer, its schedule, and what a stage of unfreezing sets up."""

from typing import Any

import keras

from model import classifier, losses, stages
from model.config import TrainConfig


def enter_stage(model: keras.Model, stage: stages.Stage, config: TrainConfig, steps: int) -> None:
    """Freezes, and compiles with a new optimizer whose schedule spans the stage.

    Args:
      model: A classifier of `model.classifier.build`.
      stage: What trains, and by how much less than at the peak of the rate.
      config: The options of the run.
      steps: Number of batches in an epoch.
    """
    classifier.freeze(model, stage.trainable)
    total = steps * stage.epochs
    warmup = round(total * config.warmup)
    peak = config.learning_rate * stage.rate
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak, total - warmup, warmup_target=peak if warmup else None, warmup_steps=warmup
    )
    optimizer = _optimizer(config, schedule)
    model.compile(
        optimizer=optimizer,
        loss=losses.SmoothedCrossEntropy(config.label_smoothing),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    optimizer.build(model.trainable_variables)


def _optimizer(config: TrainConfig, schedule: Any) -> keras.optimizers.Optimizer:
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
