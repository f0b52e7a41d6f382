"""Rates of loaders that take turns, each in a process of its own that is held to some cores."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from pipeline.console import UserError

_PATIENCE_S = 10


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every loader is to do.

    Attributes:
      folder: A dataset of shards.
      dump: The BSON file that it was made of.
      scratch: Folder for a copy of the data in the loader's own form.
      batch_size: Images in a batch.
      decode_size: Height and width of the pictures, in pixels.
      image_size: Height and width of what is cut out of them.
      shuffle_images: Size of a shuffle buffer, in images.
      cores: Number of cores, for loaders that are told.
    """

    folder: str
    dump: str
    scratch: str
    batch_size: int = 256
    decode_size: int = 180
    image_size: int = 160
    shuffle_images: int = 2048
    cores: int = 1


# Prepares once, and returns what yields the number of images of each batch of a pass over the data.
Loader = Callable[[Work], Callable[[], Iterator[int]]]


def best_rates(loaders: Mapping[str, Loader], work: Work, *, rounds: int) -> dict[str, float]:
    """Returns the highest number of images a second of each loader, from its first batch on.

    A loader whose package is not installed is left out; one that fails has the rate 0.

    Args:
      loaders: What to measure.
      work: What they do.
      rounds: How often each takes its turn.
    """
    best: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_process(loader, work)) for name, loader in loaders.items()}
        for _ in range(rounds):
            for name, connection in running.items():
                rate = _ask(connection)
                if rate is not None:
                    best[name] = max(best.get(name, 0.0), rate)
    return best


@contextlib.contextmanager
def _process(loader: Loader, work: Work) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(loader, work, theirs), daemon=False)
    with _held_to(work.cores):  # A child keeps to its parent's cores.
        process.start()
    theirs.close()
    try:
        with contextlib.suppress(EOFError):  # It may die of it.
            ours.recv()  # It is ready: loaders are prepared one after another.
        yield ours
    finally:
        ours.close()
        process.join(_PATIENCE_S)  # Threads of a library may not want to end.
        process.kill()


@contextlib.contextmanager
def _held_to(cores: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    if cores > len(before):
        raise UserError(f"--cores names {cores}, and there are {len(before)} here.")
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _ask(connection: Connection) -> float | None:
    try:
        connection.send("pass")
        rate: float | None = connection.recv()
    except (EOFError, ConnectionError):
        return 0.0  # It died, and said why on standard error.
    return rate


def _serve(loader: Loader, work: Work, connection: Connection) -> None:
    """Measures a pass over the data whenever it is asked to, in a process of its own."""
    try:
        batches = loader(work)
    except ImportError:
        batches = None
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while connection.recv():
            connection.send(_rate(batches()) if batches else None)


def _rate(batches: Iterator[int]) -> float:
    next(batches)
    begun = time.perf_counter()
    images = sum(batches)
    return images / (time.perf_counter() - begun)
