"""Local worker processes of a Beam pipeline: one that dies ends the command, and their chatter is kept aside."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator

import psutil

from pipeline.console import fail, native_stderr_to

_WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"
_WORKER_THREAD = "run_worker"  # Beam's, of which each waits for one worker, and raises where that ends with a failure.


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watches over the worker processes that a pipeline in the body starts.

    Beam would wait for ever for one that died. What they print, a page for each
    at every start, goes to a file, which stays only where a worker died.
    """
    before = threading.excepthook
    with _output_aside() as output:

        def notice(failure: threading.ExceptHookArgs) -> None:
            if failure.thread and failure.thread.name == _WORKER_THREAD:
                _abandon(output)
            before(failure)

        threading.excepthook = notice
        try:
            yield
        finally:
            threading.excepthook = before


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


def _abandon(output: str) -> None:
    """Ends this process and the other workers; Beam's threads wait for the dead one and cannot be interrupted."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _WORKER_MODULE in child.cmdline():
                child.kill()
    with contextlib.suppress(SystemExit):
        fail(
            f"a worker process died, killed from outside or for lack of memory; its last words are in {output}. "
            "Nothing is lost: the same command continues, and --direct_num_workers=1 or a smaller --shard_bytes takes "
            "less memory."
        )
    os._exit(1)
