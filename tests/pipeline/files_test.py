"""Tests of file operations: whole or not at all, on local disks and on Beam's file systems."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import files, source
from pipeline.console import UserError


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    files.write(str(path), [b"a", b"", b"bc"])
    assert path.read_bytes() == b"abc"
    assert os.listdir(path.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(str(tmp_path / "file"), [b"old"])

    def fail(_: int, __: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="full"):
        files.write(str(tmp_path / "file"), [b"new"])
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    files.write(str(tmp_path / "file"), [b"0123456789", b"abcdef"])
    assert (tmp_path / "file").read_bytes() == b"0123456789abcdef"


def test_leftovers_of_interrupted_writes_are_swept_and_never_listed(tmp_path: Path) -> None:
    files.write(str(tmp_path / "deep" / "file"), [b"x"])
    (tmp_path / "deep" / "file.tmp-0123").write_bytes(b"half")
    assert files.list_files(str(tmp_path / "deep")) == ["file"]
    files.sweep_temporaries(str(tmp_path))
    assert os.listdir(tmp_path / "deep") == ["file"]


def test_a_reader_reads_ranges_and_stops_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)) * 100)
    with source.Reader(str(path)) as reader:
        assert reader.size == 10_000
        assert reader.read(9_995, 50) == bytes(range(95, 100))
        assert bytes(reader.window(5_050, 20)) == bytes(range(50, 70))
        room = memoryview(bytearray(8))
        assert reader.read_into(9_996, room) == 4
        assert bytes(room[:4]) == bytes(range(96, 100))


def test_patterns_are_sorted_and_nothing_is_read_twice(tmp_path: Path) -> None:
    for name in ("b.bson", "a.bson"):
        (tmp_path / name).write_bytes(b"x")
    found = source.find([str(tmp_path / "*.bson")])
    assert [os.path.basename(item.path) for item in found] == ["a.bson", "b.bson"]
    with pytest.raises(UserError, match=r"a\.bson is named twice"):
        source.find([str(tmp_path / "a.bson"), str(tmp_path / "*.bson")])


def test_no_files_at_all_are_written_too() -> None:
    assert files.write_all({}) == []
