"""The training loop: stages, epochs, checkpoints, validation, logs."""

import math
import time
from typing import Any

import keras
import numpy as np

from model import card, checkpoint, evaluator, journal, locks, metrics, optimization, optimizers, stages, transfer
from model.checkpoint import Position
from model.clock import Clock
from model.devices import ONE, Devices
from model.run import Run, best_steps, epochs_since_best
from pipeline import files, schema
from pipeline.console import UserError, progress, say
from pipeline.input import Part, TrainInput, reading
from pipeline.manifest import Manifest
from pipeline.odd_images import ImageReport


def train(run: Run, data: Manifest, devices: Devices = ONE) -> None:
    """Trains a run to its end, from wherever it stands.

    Args:
      run: The run; its newest checkpoint is where training goes on.
      data: The dataset that the run was begun with.
      devices: Where it trains; each process of several calls this.

    Raises:
      UserError: Another process trains this run, the loss is no number any
        more, the disk is full, or the batch cannot be shared by the devices.
    """
    devices.check_batch(run.config.input.batch_size)
    if devices.processes > 1 and run.config.optimization.ema:
        raise UserError("--ema keeps averages that one process saves alone; train in one process, or with --ema=0.")
    if not devices.writes:
        _Training(run, data, devices).go_on()
        return
    with locks.held(run.folder):
        checkpoint.sweep(run.checkpoints)
        _Training(run, data, devices).go_on()


class _Training:
    """A run in training.

    Attributes:
      history: A record of each finished epoch.
      sums: Sums of Keras's metrics over the batches of the current epoch that
        an earlier process did; its seconds, and those that it waited for input.
    """

    def __init__(self, run: Run, data: Manifest, devices: Devices) -> None:
        self.run, self.data, self.devices = run, data, devices
        self._odd_images = ImageReport()
        self.input = TrainInput(data, run.config.input, part=Part(*devices.part), report=self._odd_images)
        self.steps = self.input.steps
        self.plan = run.config.plan
        self.history: list[dict[str, Any]] = []
        self.sums: list[float] = []
        self.model, self.position = self._restore()
        self._validator = _Validator(run, self.model, data, devices) if data.splits.get(schema.VALIDATION) else None

    def _restore(self) -> tuple[keras.Model, Position]:
        """Returns the model as the newest checkpoint left it, and how far it has come."""
        run = self.run
        keras.utils.set_random_seed(run.config.input.seed)
        path = checkpoint.newest(run.checkpoints)
        with self.devices.scope():
            if path is None:
                return transfer.first_model(run), Position()
            model = run.build(pretrained=False)
            position = checkpoint.position(path)
            written_in = position.epoch if position.step else position.epoch - 1
            self._enter(model, stages.of_epoch(self.plan, written_in)[0])
        checkpoint.restore(path, model)
        notes = checkpoint.notes(path)
        self.history, self.sums = notes["history"], notes["sums"]
        self._tell(f"Continuing {run.folder} at epoch {position.epoch + 1}, batch {position.step + 1}.")
        return model, position

    def _enter(self, model: keras.Model, stage: int) -> None:
        optimization.enter_stage(self.run, model, stage, self.steps)

    def _tell(self, line: str) -> None:
        if self.devices.writes:
            say(line)

    def go_on(self) -> None:
        """Trains until the last epoch is done."""
        self._write_logs()  # An interruption may have come between the last checkpoint and them.
        for epoch in range(self.position.epoch, stages.total_epochs(self.plan)):
            if self._is_over():
                return
            stage, first = stages.of_epoch(self.plan, epoch)
            if epoch == first and self.position.step == 0:
                with self.devices.scope():
                    self._enter(self.model, stage)
            record = self._train_epoch()
            if self._validator:
                record["validation"] = self._validator.report()
            self.history.append(record)
            self.position, self.sums = Position(epoch + 1, 0, record["total_steps"]), []
            self.save(self.position, self.sums)
            self._write_logs()
            self._tell(_line(record, stages.total_epochs(self.plan)))
            if self._odd_images.counts:
                files.write_json(self.run.odd_images, self._odd_images.to_json())
                self._tell(
                    f"Pictures so far: {self._odd_images.summary()}; their products are in {self.run.odd_images}."
                )

    def _is_over(self) -> bool:
        """Tells whether the next epoch is one too many; it follows from the history, so a run that continues agrees."""
        patience, since = self.run.config.patience, epochs_since_best(self.history)
        over = bool(patience) and self.position.step == 0 and since >= patience
        if over:
            self._tell(
                f"Ended after epoch {len(self.history)}: the last {since} did not raise the validation accuracy by "
                f"product (--patience={patience}). The best checkpoint is kept; --checkpoint=best uses it."
            )
        return over

    def _train_epoch(self) -> dict[str, Any]:
        config, position = self.run.config, self.position
        label = f"epoch {position.epoch + 1}"
        bar_of = progress(label, total=self.steps, unit=" batches", initial=position.step)
        with bar_of as bar, reading():
            clock = Clock()
            self.model.fit(
                self.input.epoch(position.epoch, first_step=position.step),
                initial_epoch=position.epoch,
                epochs=position.epoch + 1,
                steps_per_epoch=self.steps - position.step,
                shuffle=False,
                verbose=0,
                callbacks=[clock, _Watch(self, clock, bar)],
            )
        seconds, waited, *sums = _added(self.sums, [clock.seconds, clock.waited, *_metric_sums(self.model)])
        return {
            "epoch": position.epoch + 1,
            "total_steps": position.total_steps + self.steps - position.step,
            "loss": sums[0] / sums[1],
            "accuracy": sums[2] / sums[3],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "images_per_second": self.steps * config.input.batch_size / seconds,
            "seconds": seconds,
            "waiting": waited / seconds,
        }

    def save(self, position: Position, sums: list[float]) -> None:
        """Saves a checkpoint, if this process is the one that does."""
        if self.devices.writes:
            # Keras makes a variable while it saves, which the other processes would have to take part in.
            with self.devices.alone():
                checkpoint.save(
                    self.run.checkpoints,
                    self.model,
                    position,
                    notes={"history": self.history, "sums": sums},
                    keep=self.run.config.keep_checkpoints,
                    keep_also=best_steps(self.history),
                )

    def _write_logs(self) -> None:
        if self.devices.writes and self.history:
            journal.write(self.run, self.history)
            card.write(self.run, self.data, self.history, self.devices)


class _Validator:
    """Measures the model of a run in training; processes share the products, and have models of their own for it."""

    def __init__(self, run: Run, model: keras.Model, data: Manifest, devices: Devices) -> None:
        run.check_tree(data)
        self._run, self._model, self._data, self._devices = run, model, data, devices
        with devices.alone():
            # What is spread over several processes cannot answer for one of them.
            self._own = model if devices.processes == 1 else run.build(pretrained=False)
            self._scorer = evaluator.scorer(run, self._own)

    def report(self) -> dict[str, Any]:
        """Returns the accuracy on all products."""
        with optimizers.averaged(self._model), self._devices.alone():
            if self._own is not self._model:
                self._own.set_weights(self._model.get_weights())
            accuracy = evaluator.count(self._run, self._scorer, self._data, part=self._devices.part)
        accuracy.set_counts(self._devices.gather(accuracy.counts()))
        return evaluator.checked_report(accuracy, self._run, self._data)


class _Watch(keras.callbacks.Callback):
    """Moves the bar, saves a checkpoint from time to time, and ends what makes no sense to go on with."""

    def __init__(self, training: _Training, clock: Clock, bar: Any) -> None:
        super().__init__()
        self._training, self._clock, self._bar = training, clock, bar
        self._saved = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each batch; `batch` counts from the first one of this call of fit."""
        done, logs = batch + 1, logs or {}
        begun = self._training.position
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} since batch {begun.step + done} of epoch {begun.epoch + 1}. No checkpoint "
                "was saved since; train again with a lower --learning_rate or a longer --warmup, and another --workdir."
            )
        self._bar.update(begun.step + done - self._bar.n)
        self._bar.set_postfix(
            loss=f"{logs['loss']:.3f}",
            accuracy=f"{logs['accuracy']:.3f}",
            waiting=f"{self._clock.share:.1%}",
            refresh=False,
        )
        last = done == self.params["steps"]  # The end of an epoch is saved with its validation.
        if not last and time.monotonic() - self._saved >= self._training.run.config.checkpoint_seconds:
            self._save(done)

    def _save(self, done: int) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        begun, clock = self._training.position, self._clock
        self._training.save(
            Position(begun.epoch, begun.step + done, begun.total_steps + done),
            _added(self._training.sums, [clock.seconds, clock.waited, *_metric_sums(self.model)]),
        )
        self._saved = time.monotonic()


def _metric_sums(model: keras.Model) -> list[float]:
    """Returns total and count of each of Keras's metrics."""
    return [float(keras.ops.convert_to_numpy(variable)) for variable in model.metrics_variables]


def _added(before: list[float], now: list[float]) -> list[float]:
    return [float(total) for total in np.add(before, now)] if before else now


def _line(record: dict[str, Any], epochs: int) -> str:
    line = (
        f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}  train accuracy {record['accuracy']:.4f}"
        f"  {record['images_per_second']:.0f} images/s, {record['waiting']:.1%} waiting for input"
    )
    if "validation" in record:
        found = record["validation"][metrics.ALL]
        line += (
            f"  validation accuracy by product {found['product_accuracy'][-1]:.4f}"
            f", by image {found['image_accuracy'][-1]:.4f}"
        )
    return line
