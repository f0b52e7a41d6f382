"""The training loop: stages, epochs, checkpoints, validation, logs."""

import json
import time
from typing import Any

import keras
from tensorboard.summary import Writer

from model import checkpoint, evaluator, metrics, optimization, optimizers, stages
from model.checkpoint import Position
from model.run import Run
from pipeline import input as input_pipeline
from pipeline import schema
from pipeline.console import progress, say
from pipeline.manifest import Manifest


def train(run: Run, data: Manifest) -> None:
    """Trains a run to its end, from wherever it stands.

    Args:
      run: The run; its newest checkpoint is where training goes on.
      data: The dataset that the run was begun with.
    """
    config = run.config
    steps = input_pipeline.steps_per_epoch(data, config.input)
    plan = config.plan
    model, position = _restore(run, plan, steps)
    with_validation = bool(data.splits.get(schema.VALIDATION))
    for epoch in range(position.epoch, stages.total_epochs(plan)):
        stage, first = stages.of_epoch(plan, epoch)
        if epoch == first and position.step == 0:
            optimization.enter_stage(run, model, stage, steps)
        record = _train_epoch(run, model, data, Position(epoch, position.step, position.total_steps), steps)
        position = Position(epoch + 1, 0, record["total_steps"])
        if with_validation:
            with optimizers.averaged(model):
                record["validation"] = evaluator.evaluate(run, model, data)
        checkpoint.save(run.checkpoints, model, position)
        _log(run, record)
        say(_line(record, stages.total_epochs(plan)))


def _restore(run: Run, plan: tuple[stages.Stage, ...], steps: int) -> tuple[keras.Model, Position]:
    """Returns the model as the newest checkpoint left it, and how far it has come."""
    keras.utils.set_random_seed(run.config.input.seed)
    path = checkpoint.newest(run.checkpoints)
    model = run.build(pretrained=path is None)
    if path is None:
        return model, Position()
    position = checkpoint.position(path)
    written_in = position.epoch if position.step else position.epoch - 1
    optimization.enter_stage(run, model, stages.of_epoch(plan, written_in)[0], steps)
    checkpoint.restore(path, model)
    say(f"Continuing {run.folder} at epoch {position.epoch + 1}, batch {position.step + 1}.")
    return model, position


def _train_epoch(run: Run, model: keras.Model, data: Manifest, position: Position, steps: int) -> dict[str, Any]:
    config = run.config
    dataset = input_pipeline.train(data, config.input, epoch=position.epoch, first_step=position.step)
    begun = time.monotonic()
    with progress(f"epoch {position.epoch + 1}", total=steps, unit=" batches", initial=position.step) as bar:
        saver = _Saver(run, position, bar, config.checkpoint_seconds)
        history = model.fit(
            dataset,
            initial_epoch=position.epoch,
            epochs=position.epoch + 1,
            steps_per_epoch=steps - position.step,
            shuffle=False,
            verbose=0,
            callbacks=[saver],
        )
    seconds = time.monotonic() - begun
    return {
        "epoch": position.epoch + 1,
        "total_steps": position.total_steps + steps - position.step,
        "loss": history.history["loss"][-1],
        "accuracy": history.history["accuracy"][-1],
        "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
        "images_per_second": (steps - position.step) * config.input.batch_size / seconds,
        "seconds": seconds,
    }


class _Saver(keras.callbacks.Callback):
    """Moves the bar, and saves a checkpoint from time to time."""

    def __init__(self, run: Run, position: Position, bar: Any, seconds: float) -> None:
        super().__init__()
        self._run, self._position, self._bar, self._seconds = run, position, bar, seconds
        self._saved = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each batch; `batch` counts from the first one of this call of fit."""
        done = batch + 1
        self._bar.update(self._position.step + done - self._bar.n)
        if logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)
        last = done == self.params["steps"]  # The end of an epoch is saved with its validation.
        if not last and time.monotonic() - self._saved >= self._seconds:
            self._save(done)

    def _save(self, done: int) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        begun = self._position
        checkpoint.save(
            self._run.checkpoints,
            self.model,
            Position(begun.epoch, begun.step + done, begun.total_steps + done),
        )
        self._saved = time.monotonic()


def _log(run: Run, record: dict[str, Any]) -> None:
    with open(run.metrics, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    writer = Writer(run.logs)
    for name in ("loss", "accuracy", "learning_rate", "images_per_second"):
        writer.add_scalar(f"train/{name}", record[name], record["total_steps"])
    for group, report in record.get("validation", {}).items():
        if group not in (metrics.ALL, metrics.NEVER_SEEN):
            continue
        for kind in ("product_accuracy", "image_accuracy"):
            for level, share in enumerate(report[kind], start=1):
                writer.add_scalar(f"validation_{group}/{kind}_level{level}", share, record["total_steps"])
    writer.close()


def _line(record: dict[str, Any], epochs: int) -> str:
    line = (
        f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}  train accuracy {record['accuracy']:.4f}"
        f"  {record['images_per_second']:.0f} images/s"
    )
    if "validation" in record:
        found = record["validation"][metrics.ALL]
        line += (
            f"  validation accuracy by product {found['product_accuracy'][-1]:.4f}"
            f", by image {found['image_accuracy'][-1]:.4f}"
        )
    return line
