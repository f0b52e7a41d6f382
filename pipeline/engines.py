"""Runs a map over small elements as a Beam pipeline, on this machine or any runner."""

import argparse
import contextlib
import difflib
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import files, workers
from pipeline.console import UserError, progress

# Without a name Beam would look for a runner to download.
LOCAL_RUNNER = "FnApiRunner"
# Beam finds its other runners by their short names.
_FULL_NAMES = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
_POLL_SECONDS = 0.5
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
        self._options = [_with_full_name(option) for option in options]

    def map(
        self,
        verb: beam.PTransform,
        elements: Sequence[Any],
        *,
        receipts: str,
        label: str,
        sizes: Sequence[int],
        bytes_per_process: int,
        briefly: bool = False,
    ) -> None:
        """Applies a transform to every element; returns when all are done.

        Args:
          verb: Takes a collection of the elements.
          elements: Small values.
          receipts: Folder in which each element leaves one file when it is done.
          label: What is being done, for the progress bar.
          sizes: Bytes of work of each element.
          bytes_per_process: Work that is done before another process of this
            machine has started, which takes it about a second.
          briefly: Keeps work below `bytes_per_process` in this process even
            where the options ask for several on this machine.

        Raises:
          UserError: A task failed; the message is that of the failure.
        """
        if not elements:
            return
        options = self._with_local_defaults(min(len(elements), 1 + sum(sizes) // bytes_per_process), briefly)
        local = options.get_all_options()["direct_running_mode"] == "multi_processing"
        watched = workers.watched() if local else contextlib.nullcontext()
        with watched, _show_progress(label, receipts, sizes):
            try:
                with beam.Pipeline(options=options) as pipeline:
                    _ = pipeline | "Elements" >> beam.Create(list(elements)) | verb
            except Exception as error:
                raise _unwrapped(error) from error

    def _with_local_defaults(self, most_processes: int, briefly: bool) -> PipelineOptions:
        given = PipelineOptions(self._options).get_all_options(drop_default=True)
        if given.get("runner") is not None:
            return PipelineOptions(self._options)
        processes = min(os.cpu_count() or 1, most_processes)
        mode = "multi_processing" if processes > 1 else "in_memory"
        chosen = [f"--direct_num_workers={processes}", f"--direct_running_mode={mode}"]
        options = [*self._options, *chosen] if briefly and processes == 1 else [*chosen, *self._options]
        return PipelineOptions([f"--runner={LOCAL_RUNNER}", *options])


def _with_full_name(option: str) -> str:
    name, _, value = option.partition("=")
    return f"{name}={_FULL_NAMES.get(value, value)}" if name == "--runner" else option


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


def _unwrapped(error: Exception) -> UserError:
    """Returns the failure inside a task as one line, since Beam wraps it in the worker's traceback."""
    if isinstance(error, UserError):
        return error
    found = _LAST_ERROR.findall(str(error))
    kind, message = found[-1] if found else (type(error).__name__, str(error))
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

        with workers.every(_POLL_SECONDS, poll, stop):
            yield
        poll()


def prepare(options: Sequence[str]) -> None:
    """Tells Beam's file systems of options such as the address of an object store, and hides chatter.

    Args:
      options: Beam's options as they stand on the command line.
    """
    FileSystems.set_options(PipelineOptions(list(options)))
    os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "error")
    logging.getLogger().setLevel(logging.ERROR)
