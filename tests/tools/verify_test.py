"""Tests of finding what is wrong with a dataset."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import files, manifest
from pipeline.manifest import Manifest
from tools import verification


@pytest.fixture
def copied(train_data: Manifest, tmp_path: Path) -> Manifest:
    """A copy of the dataset that a test may damage."""
    return Manifest.load(str(shutil.copytree(train_data.folder, tmp_path / "shards")))


def _source(catalogue: Path) -> list[str]:
    return [str(catalogue / "train.bson")]


def test_nothing_is_wrong_with_what_was_just_written(train_data: Manifest, catalogue: Path) -> None:
    assert verification.verify(train_data) == []
    assert verification.verify(train_data, inputs=_source(catalogue)) == []


def test_a_flipped_bit_is_found_in_its_shard_and_record(copied: Manifest) -> None:
    shard = copied.shards("train")[1]
    content = bytearray(files.read(copied.path(shard.name)))
    content[len(content) // 2] ^= 1
    files.write(copied.path(shard.name), [bytes(content)])
    checksum, record = verification.verify(copied)
    assert shard.name in checksum
    assert "checksum is not that of the manifest" in checksum
    assert shard.name in record
    assert "record " in record


def test_a_table_with_another_place_of_an_image_is_found(copied: Manifest) -> None:
    name = manifest.records_name(copied.shards("train")[1].name)
    table = copied.records("train", 1)
    table.image_start[5] += 1
    files.write(copied.path(name), [table.to_bytes()])
    [fault] = verification.verify(copied)
    assert "another image at byte" in fault
    assert copied.shards("train")[1].name in fault


def _shorten(path: str) -> None:
    files.write(path, [files.read(path)[:-1]])


def _remove(path: str) -> None:
    Path(path).unlink()


@pytest.mark.parametrize(("damage", "message"), [(_shorten, "bytes; expected"), (_remove, "is missing")])
def test_a_short_or_missing_shard_is_named(copied: Manifest, damage: Callable[[str], None], message: str) -> None:
    name = copied.shards("validation")[0].name
    damage(copied.path(name))
    assert any(name in fault and message in fault for fault in verification.verify(copied))


def test_a_whole_shard_in_another_ones_place_is_found(copied: Manifest) -> None:
    first, second = (copied.path(shard.name) for shard in copied.shards("train")[:2])
    shutil.copy(first, second)
    assert any("is not of product" in fault for fault in verification.verify(copied))


def test_a_changed_dump_is_found_by_record_and_by_document(copied: Manifest, catalogue: Path, tmp_path: Path) -> None:
    content = (catalogue / "train.bson").read_bytes()
    picture = content.index(b"\xff\xd8") + 500
    changed = tmp_path / "train.bson"
    changed.write_bytes(content[:picture] + bytes([content[picture] ^ 1]) + content[picture + 1 :])
    [fault] = verification.verify(copied, inputs=[str(changed)])
    assert "differs from its document" in fault
    changed.write_bytes(content + (catalogue / "test.bson").read_bytes())
    assert any(
        "80 documents of the dump are in no record" in f for f in verification.verify(copied, inputs=[str(changed)])
    )
    length = int.from_bytes(content[:4], "little")
    changed.write_bytes(content[length:])
    assert any("is in no document of the dump" in fault for fault in verification.verify(copied, inputs=[str(changed)]))


def test_the_command_ends_with_status_1_where_something_is_wrong(copied: Manifest) -> None:
    command = [sys.executable, "-m", "tools.verify", copied.folder]
    whole = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (whole.returncode, "nothing is wrong" in whole.stdout) == (0, True), whole.stderr
    _shorten(copied.path(copied.shards("train")[0].name))
    damaged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert damaged.returncode == 1
    assert "wrong: " in damaged.stdout
    assert damaged.stderr.splitlines()[-1].startswith("error: ")
