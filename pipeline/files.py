"""File operations that are atomic, on local disks and on Beam's file systems.

A path with a scheme (gs://, s3://, hdfs://) goes through Beam's FileSystems.
Any other path is local and goes through the operating system, which alone
offers fsync, direct I/O and an atomic rename.
"""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

from pipeline.new_file import NewFile

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_TEMPORARY = ".tmp-"
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5

_Result = TypeVar("_Result")


def is_remote(path: str) -> bool:
    """Tells whether a path has a scheme, and so is none of the local disk."""
    return bool(_SCHEME.match(path))


def _filesystems() -> Any:
    # Costs more than a second, which a command on local files need not pay.
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def exists(path: str) -> bool:
    """Tells whether a file or a local folder is there."""
    return bool(_filesystems().exists(path)) if is_remote(path) else os.path.exists(path)


def retry(call: Callable[[], _Result]) -> _Result:
    """Calls again after a passing failure of a file system, up to three times; local runners of Beam never do."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return call()
        except (TimeoutError, ConnectionError):
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return call()


def read(path: str) -> bytes:
    """Returns the whole content of a file."""
    if is_remote(path):
        with _filesystems().open(path, compression_type="uncompressed") as file:
            return bytes(file.read())
    with open(path, "rb") as file:
        return file.read()


def open_stream(path: str) -> IO[bytes]:
    """Opens a file for reading from its beginning to its end."""
    if is_remote(path):
        stream: IO[bytes] = _filesystems().open(path, compression_type="uncompressed")
        return stream
    return open(path, "rb")


def read_json(path: str) -> Any:
    """Returns the parsed content of a JSON file."""
    return json.loads(read(path))


def write(path: str, buffers: Iterable[bytes | bytearray]) -> int:
    """Writes a file that is visible only when it is whole and on disk.

    Args:
      path: Where the file goes; its folder is made where it is missing.
      buffers: The content, in order; a megabyte or so at a time goes best.

    Returns:
      The number of bytes.

    Raises:
      OSError: The disk is full or the folder cannot be written. No part of
        the file remains, and an older file at `path` is untouched.
    """
    [size] = write_all({path: buffers})
    return size


def write_all(contents: Mapping[str, Iterable[bytes | bytearray]]) -> list[int]:
    """Writes files as `write` does; none is visible before all are on disk, for which they wait once.

    Args:
      contents: For each path the content, in order; produced one after another.

    Returns:
      The number of bytes of each.

    Raises:
      OSError: As for `write`.
    """
    written = Written(contents)
    written.finish()
    return written.sizes


class Written:
    """Files that the system has got, but that are not visible yet; between that and `finish` other work can go on.

    Args:
      contents: As for `write_all`.

    Attributes:
      sizes: The number of bytes of each.

    Raises:
      OSError: As for `write`.
    """

    def __init__(self, contents: Mapping[str, Iterable[bytes | bytearray]]) -> None:
        for path in contents:
            make_folder(os.path.dirname(path))
        self._temporaries = {path: f"{path}{_TEMPORARY}{uuid.uuid4().hex[:12]}" for path in contents}
        self._local: list[NewFile] = []
        self._remote = any(map(is_remote, contents))
        try:
            self.sizes = [self._write(path, buffers) for path, buffers in contents.items()]
        except BaseException:
            self.abandon()
            raise

    def _write(self, path: str, buffers: Iterable[bytes | bytearray]) -> int:
        if self._remote:
            return _write_remote(self._temporaries[path], buffers)
        self._local.append(NewFile(self._temporaries[path]))
        return self._local[-1].write(buffers)

    def finish(self) -> None:
        """Waits until all are on disk, and makes them visible.

        Raises:
          OSError: A disk failed; what is not visible by then is removed.
        """
        if self._remote:
            _filesystems().rename(list(self._temporaries.values()), list(self._temporaries))
            return
        try:
            _sync(self._local)
            self._close()
            for path, temporary in self._temporaries.items():
                os.replace(temporary, path)
        except BaseException:
            self.abandon()
            raise
        _sync_folders({os.path.dirname(path) for path in self._temporaries})

    def abandon(self) -> None:
        """Removes what was written."""
        self._close()
        for temporary in self._temporaries.values():
            if not self._remote and os.path.exists(temporary):
                os.unlink(temporary)

    def _close(self) -> None:
        while self._local:
            self._local.pop().close()


def _sync(local: list[NewFile]) -> None:
    """Waits until files are on disk; at once for all, since each costs the file system a commit of its journal."""
    if len(local) < 2:
        for file in local:
            file.sync()
        return
    with ThreadPoolExecutor(len(local)) as pool:
        for done in [pool.submit(file.sync) for file in local]:
            done.result()


def write_json(path: str, value: Any) -> None:
    """Writes a value as indented JSON, atomically as `write` does."""
    write(path, [json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"])


def _write_remote(path: str, buffers: Iterable[bytes | bytearray]) -> int:
    size = 0
    with _filesystems().create(path, compression_type="uncompressed") as file:
        for buffer in buffers:
            file.write(buffer)
            size += len(buffer)
    return size


def _sync_folders(folders: Iterable[str]) -> None:
    """Makes renames inside folders survive a loss of power."""
    for folder in folders:
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: str) -> None:
    """Makes a local folder and its parents; object stores have none to make."""
    if folder and not is_remote(folder):
        os.makedirs(folder, exist_ok=True)


def list_files(folder: str) -> list[str]:
    """Returns the sorted names of the files right inside a folder, temporaries left out."""
    if is_remote(folder):
        [match] = _filesystems().match([folder.rstrip("/") + "/*"])
        names = [os.path.basename(item.path) for item in match.metadata_list]
    else:
        names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if _TEMPORARY not in name)


def remove_tree(folder: str) -> None:
    """Removes a folder with all that is in it; does nothing where it is absent."""
    if is_remote(folder):
        if _filesystems().match([folder.rstrip("/") + "/**"])[0].metadata_list:
            _filesystems().delete([folder.rstrip("/") + "/"])
    elif os.path.isdir(folder):
        shutil.rmtree(folder)


def sweep_temporaries(folder: str) -> None:
    """Removes what interrupted writes left in a local folder and below it."""
    if not is_remote(folder):
        for parent, _, names in os.walk(folder):
            for name in names:
                if _TEMPORARY in name:
                    os.unlink(os.path.join(parent, name))


def move_folder(source: str, destination: str, *, last: str = "") -> None:
    """Renames a folder.

    Args:
      source: The folder.
      destination: Its new path, where nothing is.
      last: Name of the file without which readers refuse the folder. A local
        disk moves all in one atomic step; an object store, which has no
        folders, moves file by file in the order of names, and this one last.
    """
    if is_remote(source):
        _move_files(source.rstrip("/"), destination.rstrip("/"), last)
    else:
        os.rename(source, destination)
        _sync_folders([os.path.dirname(os.path.abspath(destination))])


def _move_files(source: str, destination: str, last: str) -> None:
    [match] = _filesystems().match([source + "/**"])
    paths = sorted((item.path for item in match.metadata_list), key=lambda path: path == f"{source}/{last}")
    for path in paths:
        _filesystems().rename([path], [destination + path.removeprefix(source)])
