"""Local worker processes of a Beam pipeline: one that dies ends the command, and their chatter is kept aside."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator

import psutil

from pipeline.console import fail, native_stderr_to

_POLL_SECONDS = 0.5
_SECONDS_TO_END = 60
_WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"


@contextlib.contextmanager
def watched(done: Callable[[], bool]) -> Iterator[None]:
    """Watches over the worker processes that a pipeline in the body starts.

    Beam would wait for ever for one that died. What they print, a page for each
    at every start, goes to a file, which stays only where a worker died.

    Args:
      done: Tells whether all work is done. Workers end then, some seconds apart
        where they hold TensorFlow.
    """
    seen: dict[int, psutil.Process] = {}
    finished = threading.Event()
    with _output_aside() as output:

        def look() -> None:
            _note_workers(seen)
            dead = [pid for pid, process in seen.items() if not _alive(process)]
            if dead and not finished.wait(_SECONDS_TO_END if done() else _POLL_SECONDS):
                _abandon(seen, dead[0], output)

        with every(_POLL_SECONDS, look, finished):
            yield


@contextlib.contextmanager
def every(seconds: float, call: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Calls again and again, in a thread, while the body runs."""

    def loop() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _output_aside() -> Iterator[str]:
    """Sends what child processes print on standard error to a file, and yields its path."""
    with tempfile.NamedTemporaryFile(prefix="aisle-workers-", suffix=".log") as file, native_stderr_to(file.name):
        yield file.name


def _note_workers(seen: dict[int, psutil.Process]) -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _WORKER_MODULE in child.cmdline():
                seen.setdefault(child.pid, child)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _abandon(workers: dict[int, psutil.Process], dead: int, output: str) -> None:
    for worker in workers.values():
        with contextlib.suppress(psutil.Error):
            worker.kill()
    with contextlib.suppress(SystemExit):
        fail(
            f"worker process {dead} died, killed from outside or for lack of memory; its last words are in {output}. "
            "Nothing is lost: the same command continues, and --direct_num_workers=1 or a smaller --shard_bytes takes "
            "less memory."
        )
    os._exit(1)  # Beam's threads wait for the dead worker and cannot be interrupted.
