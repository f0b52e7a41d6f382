"""Where a run trains: one device, all devices of a host, or several hosts.

On one host the devices share each batch, under TensorFlow by MirroredStrategy
and under JAX by its data parallelism. Several hosts train under JAX alone,
since Keras 3 does not support several under TensorFlow (keras#20585). The
batches are the same whatever the number of devices.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from pipeline.console import UserError

_ADDRESSES, _SLURM_TASKS = "KERAS_DISTRIBUTION_JOB_ADDRESSES", "SLURM_STEP_NUM_TASKS"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Devices:
    """The devices that train, and this process's place among those that drive them.

    Attributes:
      process: Number of this process, from 0. The first one writes.
      processes: How many there are.
      count: Number of devices of all processes together.
      kind: What they are, such as "cpu" or "NVIDIA H100".
      strategy: MirroredStrategy over several devices of TensorFlow, or None.
    """

    process: int = 0
    processes: int = 1
    count: int = 1
    kind: str = "cpu"
    strategy: Any = None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes checkpoints and logs, and prints."""
        return self.process == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which part of each batch this process feeds: its number, and how many there are."""
        return self.process, self.processes

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the context in which models and optimizers are made."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def check_batch(self, batch_size: int) -> None:
        """Checks that every device gets as many images of a batch.

        Raises:
          UserError: The batch cannot be shared equally.
        """
        if batch_size % self.count:
            raise UserError(
                f"--batch_size={batch_size} cannot be shared by {self.count} devices; expected a multiple of "
                f"{self.count}, since it counts the images of all devices together."
            )

    def in_turn(self, call: Callable[[], _Result]) -> _Result:
        """Returns the result of a call that the writing process makes first, and the others when it is done."""
        if not self.writes:
            self._wait()
        result = call()
        if self.writes:
            self._wait()
        return result

    def _wait(self) -> None:
        if self.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("turn")

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in order; each is plain JSON."""
        if self.processes == 1:
            return [value]
        from jax.experimental import multihost_utils

        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.asarray(multihost_utils.process_allgather(np.array([len(content)], np.int32))).ravel()
        padded = np.zeros(lengths.max(), np.uint8)
        padded[: len(content)] = content
        rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(self.processes, -1)
        return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Makes models of this process alone, for work that each process does on its own."""
        before = keras.distribution.distribution() if self.processes > 1 else None
        if before is None:
            yield
            return
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)


ONE = Devices()


def open_devices(wanted: int) -> Devices:
    """Takes devices, before anything else uses one.

    Joins the other processes of a SLURM step, or those that Keras's variables
    KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID name.

    Args:
      wanted: Number of devices of this process; 0 for all its accelerators.
        Without an accelerator the processor stands for so many devices.

    Raises:
      UserError: There are fewer, or several hosts are asked of TensorFlow.
    """
    if wanted < 0:
        raise UserError(f"--devices is {wanted}; expected 0 for all accelerators of this host, or a number of them.")
    several = _ADDRESSES in os.environ or int(os.environ.get(_SLURM_TASKS, "1")) > 1
    if keras.backend.backend() == "jax":
        return _open_jax(wanted, several)
    if several:
        raise UserError("several processes train under JAX alone; set KERAS_BACKEND=jax, or start one process.")
    return _open_tensorflow(wanted)


def _open_tensorflow(wanted: int) -> Devices:
    accelerators = tf.config.list_physical_devices("GPU")
    count = _checked(wanted, len(accelerators))
    if accelerators:
        tf.config.set_visible_devices(accelerators[:count], "GPU")
        for accelerator in accelerators[:count]:
            tf.config.experimental.set_memory_growth(accelerator, True)
        kind = tf.config.experimental.get_device_details(accelerators[0]).get("device_name", "gpu")
    else:
        kind = "cpu"
        [processor] = tf.config.list_physical_devices("CPU")
        if count > 1:
            tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    if count == 1:
        return Devices(kind=kind)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)  # It tells of every variable that it reduces.
    names = [device.name for device in tf.config.list_logical_devices("GPU" if accelerators else "CPU")]
    return Devices(count=count, kind=kind, strategy=tf.distribute.MirroredStrategy(names))


def _open_jax(wanted: int, several: bool) -> Devices:
    import jax

    logging.getLogger("jax").setLevel(logging.WARNING)  # It tells of every kind of device that is not there.
    tf.config.set_visible_devices([], "GPU")  # TensorFlow reads the data, and would take all memory.
    if wanted > 1:
        # Says nothing of accelerators.
        jax.config.update("jax_num_cpu_devices", wanted)  # type: ignore[no-untyped-call]
    if several:
        keras.utils.set_random_seed(0)  # Else Keras draws one together; the run's own comes later.
        keras.distribution.initialize()
    local = jax.local_devices()
    count = _checked(wanted, 0 if local[0].platform == "cpu" else len(local))
    chosen = [device for process in range(jax.process_count()) for device in _of_process(jax.devices(), process, count)]
    if len(chosen) > 1:
        names = [f"{device.platform}:{device.id}" for device in chosen]
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)  # The input gives each its part.
        )
    return Devices(
        process=jax.process_index(), processes=jax.process_count(), count=len(chosen), kind=local[0].device_kind
    )


def _of_process(devices: list[Any], process: int, count: int) -> list[Any]:
    return [device for device in devices if device.process_index == process][:count]


def _checked(wanted: int, accelerators: int) -> int:
    """Returns how many devices to take."""
    if accelerators and wanted > accelerators:
        raise UserError(f"--devices is {wanted}, and this host has {accelerators} accelerators; expected no more.")
    return wanted or accelerators or 1
