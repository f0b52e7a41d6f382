"""Locks of folders that one process at a time may write; the system unlocks when a process ends, however it does."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import files
from pipeline.console import UserError

_FILE_NAME = ".lock"


@contextmanager
def held(folder: str) -> Iterator[None]:
    """Holds the lock of a folder.

    Raises:
      UserError: Another process holds it.
    """
    files.make_folder(folder)
    with open(os.path.join(folder, _FILE_NAME), "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process works on {folder}; wait for its end, or give another --workdir."
            ) from None
        yield


def wait(folder: str) -> None:
    """Waits until no process holds the lock of a folder, which need not be there."""
    path = os.path.join(folder, _FILE_NAME)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
