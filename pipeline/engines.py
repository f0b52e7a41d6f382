"""Runs a map over small elements as a Beam pipeline, on this machine or any runner."""

import argparse
import contextlib
import difflib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import files
from pipeline.console import UserError, fail, progress

# Without a name Beam would look for a runner to download.
LOCAL_RUNNER = "FnApiRunner"
_POLL_SECONDS = 0.5
_WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"
_LAST_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.*?)(?: \[while running .*)?$", re.M)


class Engine:
    """Where pipelines run, as Beam's own options say.

    Args:
      options: Beam's options as they stand on the command line. Without
        --runner everything runs on this machine, on all its cores.

    Raises:
      UserError: An option is not known to Beam.
    """

    def __init__(self, options: Sequence[str]) -> None:
        _refuse_unknown(options)
        self._options = list(options)

    def map(
        self, verb: beam.PTransform, elements: Sequence[Any], *, receipts: str, label: str, sizes: Sequence[int]
    ) -> None:
        """Applies a transform to every element; returns when all are done.

        Args:
          verb: Takes a collection of the elements.
          elements: Small values.
          receipts: Folder in which each element leaves one file when it is done.
          label: What is being done, for the progress bar.
          sizes: Bytes of work of each element.

        Raises:
          UserError: A task failed; the message is that of the failure.
        """
        if not elements:
            return
        options = self._with_local_defaults(sum(sizes), len(elements))
        with _show_progress(label, receipts, sizes), _watch_workers():
            try:
                with beam.Pipeline(options=options) as pipeline:
                    _ = pipeline | "Elements" >> beam.Create(list(elements)) | verb
            except Exception as error:
                raise _unwrapped(error) from error

    def _with_local_defaults(self, work_bytes: int, elements: int) -> PipelineOptions:
        given = PipelineOptions(self._options).get_all_options(drop_default=True)
        if given.get("runner") is not None:
            return PipelineOptions(self._options)
        workers = min(os.cpu_count() or 1, elements) if work_bytes >= _PARALLEL_BYTES else 1
        mode = "multi_processing" if workers > 1 else "in_memory"
        defaults = [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        return PipelineOptions([f"--runner={LOCAL_RUNNER}", *defaults, *self._options])


_PARALLEL_BYTES = 256 << 20  # Less is done before a second process has started.


def _refuse_unknown(options: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for kind in (PipelineOptions, *PipelineOptions.__subclasses__()):
        with contextlib.suppress(argparse.ArgumentError, AttributeError):
            kind._add_argparse_args(parser)  # Beam offers no public way to list its options.
    _, unknown = parser.parse_known_args(list(options))
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"{unknown[0]} is neither a flag of this command nor an option of Beam.{hint}")


def _unwrapped(error: Exception) -> Exception:
    """Returns the failure inside a task as one line, since Beam wraps it in the worker's traceback."""
    if isinstance(error, UserError):
        return error
    found = _LAST_ERROR.findall(str(error))
    if not found:
        return error
    kind, message = found[-1]
    return UserError(message if kind == UserError.__name__ else f"{kind}: {message}")


@contextlib.contextmanager
def _show_progress(label: str, receipts: str, sizes: Sequence[int]) -> Iterator[None]:
    """Shows how many receipts there are, which works on every runner and in every process."""
    average = sum(sizes) / len(sizes)
    before = len(files.list_files(receipts))
    stop = threading.Event()
    with progress(label, total=sum(sizes), unit="B") as bar:

        def poll() -> None:
            done = len(files.list_files(receipts)) - before
            bar.update(max(0, min(done, len(sizes)) * average - bar.n))

        with _every(_POLL_SECONDS, poll, stop):
            yield
        poll()


@contextlib.contextmanager
def _every(seconds: float, call: Callable[[], None], stop: threading.Event) -> Iterator[None]:
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
def _watch_workers() -> Iterator[None]:
    """Ends the command when a local worker process dies, for which Beam would wait for ever."""
    seen: dict[int, psutil.Process] = {}
    finished = threading.Event()

    def look() -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if _WORKER_MODULE in child.cmdline():
                    seen.setdefault(child.pid, child)
        dead = [pid for pid, process in seen.items() if not _alive(process)]
        if dead:
            time.sleep(_POLL_SECONDS)  # A worker that ends because its work is done is no failure.
            if not finished.is_set():
                _abandon(seen, dead[0])

    with _every(_POLL_SECONDS, look, finished):
        yield


def _alive(process: psutil.Process) -> bool:
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def _abandon(workers: dict[int, psutil.Process], dead: int) -> None:
    for worker in workers.values():
        with contextlib.suppress(psutil.Error):
            worker.kill()
    with contextlib.suppress(SystemExit):
        fail(
            f"worker process {dead} died, killed from outside or for lack of memory. Nothing is lost: the same "
            "command continues; --direct_num_workers=1 or a smaller --shard_bytes takes less memory."
        )
    os._exit(1)  # Beam's threads wait for the dead worker and cannot be interrupted.


def quiet() -> None:
    """Hides Beam's notices of optional packages that this project does not use."""
    logging.getLogger().setLevel(logging.ERROR)
