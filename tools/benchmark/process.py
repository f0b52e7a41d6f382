"""Runs a command of the project and watches its memory."""

import contextlib
import resource
import subprocess
import sys
import time
from typing import NamedTuple

import psutil

_POLL_SECONDS = 0.05


class Run(NamedTuple):
    """What a command took.

    Attributes:
      seconds: From its start to its end.
      cpu: Seconds that processors worked for it.
      peak: The largest resident memory seen, in bytes.
    """

    seconds: float
    cpu: float
    peak: int


def run(module: str, *words: str) -> Run:
    """Runs `python -m MODULE WORDS...`.

    Raises:
      RuntimeError: It failed.
    """
    begun, before, peak = time.perf_counter(), _cpu_of_children(), 0
    command = [sys.executable, "-m", module, *words]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, process.memory_info().rss)
        time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}.")
    return Run(time.perf_counter() - begun, _cpu_of_children() - before, peak)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
