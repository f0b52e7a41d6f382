"""Tests of new files: the same content whatever the file system takes directly, and nothing written twice."""

import errno
import fcntl
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline import new_file
from pipeline.new_file import NewFile

_BLOCK = 1 << 16


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_file, "_BLOCK_BYTES", _BLOCK)
    monkeypatch.setattr(new_file, "_spare", [])


def _written(path: Path, buffers: list[bytes]) -> bytes:
    file = NewFile(str(path))
    assert file.write(buffers) == sum(map(len, buffers))
    file.sync()
    file.close()
    return path.read_bytes()


def _buffers(*sizes: int) -> list[bytes]:
    drawn = random.Random(sum(sizes))
    return [drawn.randbytes(size) for size in sizes]


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0, 1, 0],
        [_BLOCK - 1],
        [_BLOCK],
        [_BLOCK + 1],
        [5, _BLOCK, 2 * _BLOCK, 7],
        [5 * _BLOCK + 4097],
        [1000] * 400,
    ],
)
def test_the_content_is_what_was_given(tmp_path: Path, sizes: list[int]) -> None:
    buffers = _buffers(*sizes)
    assert _written(tmp_path / "file", buffers) == b"".join(buffers)


def test_a_file_system_without_direct_writes_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_flags = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> Any:
        if command == fcntl.F_SETFL and flags & new_file._O_DIRECT:
            raise OSError(errno.EINVAL, "not here")
        return set_flags(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    buffers = _buffers(3 * _BLOCK, _BLOCK, 11)
    assert _written(tmp_path / "file", buffers) == b"".join(buffers)


def test_a_block_that_is_refused_when_written_goes_the_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, whole = os.write, []

    def cut_short(descriptor: int, data: Any) -> int:
        """Refuses each direct write, and takes little of any other."""
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & new_file._O_DIRECT:
            whole.append(len(data))
            raise OSError(errno.EINVAL, "not aligned")
        return write(descriptor, bytes(data)[:777])

    monkeypatch.setattr(os, "write", cut_short)
    buffers = _buffers(3 * _BLOCK, _BLOCK, 11)
    assert _written(tmp_path / "file", buffers) == b"".join(buffers)
    assert set(whole) <= {_BLOCK}


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_full_disk_is_told_whichever_block_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    write, calls = os.write, []

    def fill(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fill)
    file = NewFile(str(tmp_path / "file"))
    with pytest.raises(OSError, match="full"):
        file.write(_buffers(3 * _BLOCK, 11))
    file.close()


def test_blocks_are_used_again_and_never_shared(tmp_path: Path) -> None:
    def nested() -> Any:
        yield first[: 2 * _BLOCK]
        assert _written(tmp_path / "inner", [other]) == other
        yield first[2 * _BLOCK :]

    [first, other] = _buffers(5 * _BLOCK + 3, 5 * _BLOCK + 9)
    file = NewFile(str(tmp_path / "outer"))
    file.write(nested())
    file.close()
    assert (tmp_path / "outer").read_bytes() == first
    assert len(new_file._spare) == 4
    assert _written(tmp_path / "third", [other]) == other
    assert len(new_file._spare) == 4


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        NewFile(str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"old"
