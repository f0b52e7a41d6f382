"""Rates of loaders that take turns, each in a process of its own that is held to some cores."""

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil

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


def best_rates(
    loaders: Mapping[str, Loader], work: Work, *, rounds: int, processor_time: bool = False
) -> dict[str, float]:
    """Returns the highest number of images a second of each loader.

    A loader whose package is not installed is left out; one that fails has the rate 0.

    Args:
      loaders: What to measure.
      work: What they do.
      rounds: How often each takes its turn.
      processor_time: Count seconds of the processors that a loader's threads and
        processes spend, which other work on the machine hardly touches.
    """
    best: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(_process(loader, work, processor_time)) for name, loader in loaders.items()
        }
        for _ in range(rounds):
            for name, connection in running.items():
                rate = _ask(connection)
                if rate is not None:
                    best[name] = max(best.get(name, 0.0), rate)
    return best


@contextlib.contextmanager
def _process(loader: Loader, work: Work, processor_time: bool) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    arguments = (loader, work, theirs, processor_time)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments, daemon=False)
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


def _serve(loader: Loader, work: Work, connection: Connection, processor_time: bool) -> None:
    """Measures a pass over the data whenever it is asked to, in a process of its own."""
    multiprocessing.set_start_method("fork", force=True)  # Of a library's workers; here it would be "spawn".
    try:
        _answer(loader, work, connection, processor_time)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # Threads that a library has begun could keep it from an end.


def _answer(loader: Loader, work: Work, connection: Connection, processor_time: bool) -> None:
    try:
        batches = loader(work)
    except ImportError:
        batches = None
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while connection.recv():
            connection.send(_rate(batches(), processor_time) if batches else None)


def _rate(batches: Iterator[int], processor_time: bool) -> float:
    """Returns images a second between two batches, both an eighth of all away from an end of the pass.

    What a loader had made ahead at the first of them it has also made ahead at
    the second, so that reading ahead is no gain in itself.
    """
    counts = [next(batches)]
    clock = _processor_clock() if processor_time else time.perf_counter
    times = [clock()]
    for images in batches:
        times.append(clock())
        counts.append(images)
    first, last = len(counts) // 8, len(counts) - 1 - len(counts) // 8
    return sum(counts[first + 1 : last + 1]) / (times[last] - times[first])


def _processor_clock() -> Callable[[], float]:
    """Returns a clock of what this process and those that it has started by now have spent on processors."""
    workers = psutil.Process().children(recursive=True)
    return lambda: time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)
