"""Prediction as a Beam job over shards: on many machines, or on several GPUs of this one.

A task is the number of a shard. Each worker process loads the weights once,
reads shards from the file system and writes its answers there; no image and no
answer passes through Beam.
"""

import fcntl
import itertools
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO

import apache_beam as beam
from apache_beam.utils.shared import Shared

from export.predictor import PredictConfig, Predictor
from export.scores import Stores
from pipeline.console import UserError
from pipeline.engines import Engine

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_GPUS = "/proc/driver/nvidia/gpus"


def run(config: PredictConfig, stores: Stores, shards: Mapping[int, int], engine: Engine) -> None:
    """Has workers predict shards, and write the answers into the stores.

    Args:
      config: The options.
      stores: Where the answers go, on a file system that all workers share.
      shards: Numbers of the shards, with their sizes in bytes.
      engine: Where the job runs.

    Raises:
      UserError: A task failed; the message is that of the failure.
    """
    engine.map(
        PredictShards(config, stores),
        list(shards),
        receipts=stores.together.receipts,
        label="predicting shards",
        sizes=list(shards.values()),
        bytes_per_process=1,  # A process for each core, since nothing takes longer than prediction.
    )


class PredictShards(beam.PTransform):
    """Predicts the shards of the given numbers."""

    def __init__(self, config: PredictConfig, stores: Stores) -> None:
        super().__init__()
        self._config, self._stores = config, stores

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Called by Beam with a collection of numbers of shards."""
        return shards | "PredictShard" >> beam.ParDo(_PredictShard(self._config, self._stores))


class _PredictShard(beam.DoFn):
    def __init__(self, config: PredictConfig, stores: Stores) -> None:
        self._config, self._stores = config, stores
        self._shared = Shared()  # One for each process, whatever the number of its threads.

    def process(self, shard: int) -> Iterator[int]:
        self._shared.acquire(lambda: _Worker(self._config, self._stores)).predict(shard)
        yield shard


class _Worker:
    """What a process keeps from one shard to the next."""

    def __init__(self, config: PredictConfig, stores: Stores) -> None:
        self._claim = claim_gpu()  # Held until the process ends.
        self._predictor = Predictor(config)
        self._stores = stores
        self._lock = threading.Lock()
        if self._predictor.identities != stores.together.content["runs"]:
            raise UserError(
                f"the checkpoint of {', '.join(config.runs)}, or its temperature, has changed since the job began; run "
                "it again."
            )

    def predict(self, shard: int) -> None:
        with self._lock:
            for number, answers in self._predictor.predict([shard]):
                self._stores.write(number, answers)


def claim_gpu() -> IO[bytes] | None:
    """Makes this process see one GPU only: the first that no other process of the host has claimed.

    Must be called before a device is used. Where there are more processes than
    GPUs, they share them evenly.

    Returns:
      A file that holds the claim as long as it is open; None without a GPU.
    """
    listed = os.environ.get(VISIBLE_DEVICES)
    gpus = listed.split(",") if listed is not None else _all_gpus()
    if not any(gpus):
        return None
    for number in itertools.count():
        path = os.path.join(tempfile.gettempdir(), f"aisle-gpu-{os.getuid()}-{number}.lock")
        file = open(path, "wb")  # noqa: SIM115 -- stays open as long as the claim lasts.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            os.environ[VISIBLE_DEVICES] = gpus[number % len(gpus)]
            return file
    raise AssertionError("unreachable")


def _all_gpus() -> list[str]:
    return [str(number) for number, _ in enumerate(os.listdir(_GPUS))] if os.path.isdir(_GPUS) else []
