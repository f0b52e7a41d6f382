"""Tests of watching over the worker processes of a pipeline."""

import subprocess
import sys

# Stands in for Beam: a thread of its name that waits for a worker, and raises where that ends with a failure.
_PROGRAM = """
import subprocess, sys, threading, time
from pipeline import workers

def run(status):
    if subprocess.call([sys.executable, "-c", f"import sys; print('words', file=sys.stderr); sys.exit({status})"]):
        raise RuntimeError("Worker subprocess exited with return code 1")

with workers.watched():
    threads = [threading.Thread(target=run, args=(int(status),), name="run_worker") for status in sys.argv[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.2)
print("done")
"""


def _run(*statuses: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, *statuses]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_worker_that_dies_ends_the_command_with_one_line() -> None:
    done = _run("0", "1")
    assert done.returncode == 1
    assert "done" not in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith("error: a worker process died, killed from outside or for lack of memory")


def test_workers_that_end_because_their_work_is_done_are_no_failure() -> None:
    done = _run("0", "0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
