"""Tests of the shard job where things go wrong: damage, interruption, tasks that run twice, hostile names."""

import csv
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bson
import pytest

from pipeline import files, plan, schema, shard_job, write
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig, WorkFolder

_THREADS = ("--direct_num_workers=3", "--direct_running_mode=multi_threading")


def _document(product_id: int, category_id: int = 1) -> bytes:
    pictures = [{"picture": f"{product_id}".encode() * 50}]
    return bytes(bson.encode({"_id": product_id, "imgs": pictures, "category_id": category_id}))


def _dump(path: Path, documents: Iterable[bytes]) -> str:
    path.write_bytes(b"".join(documents))
    return str(path)


def _shard(source: str, *beam_options: str, output: str | None = None, **options: Any) -> Manifest:
    small = {"piece_bytes": 1 << 10, "shard_bytes": 4 << 10, "validation_fraction": 0.2}
    config = ShardConfig(**{"inputs": (source,), "output": output or f"{source}-shards", **small, **options})
    return shard_job.run(config, beam_options)


def _snapshot(folder: str) -> dict[str, bytes]:
    names = [name for name in files.list_files(folder) if schema.DATASET_NAME in name]
    return {name: files.read(os.path.join(folder, name)) for name in names}


def _fail_at(number: int, call: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """Returns a function that calls another, and fails at the call of some number."""
    calls: list[object] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise error
        return call(*arguments, **options)

    return counted


def _nested(depth: int) -> bytes:
    inner = b"\x05\0\0\0\0"
    for _ in range(depth):
        content = b"\x03a\0" + inner + b"\0"
        inner = struct.pack("<i", len(content) + 4) + content
    content = b"\x10_id\0" + struct.pack("<i", 5) + b"\x03a\0" + inner + b"\0"
    return struct.pack("<i", len(content) + 4) + content


def test_a_cut_dump_and_deep_nesting_stop_the_job_and_are_kept_where_tolerated(tmp_path: Path) -> None:
    documents = [_document(number) for number in range(30)]
    nested, cut = _nested(1000), _document(99)[:-7]
    whole = sum(map(len, documents))
    source = _dump(tmp_path / "a.bson", [*documents[:10], nested, *documents[10:], cut])
    at = sum(map(len, documents[:10]))
    with pytest.raises(UserError, match=rf"2 parts .* at bytes {at} to {at + len(nested)}: .*--tolerate_damage"):
        _shard(source)
    data = _shard(source, tolerate_damage=True)
    assert sorted([*data.product_ids("train"), *data.product_ids("validation")]) == list(range(30))
    assert files.read(data.path("quarantine/refused.bin")) == nested + cut
    first, second = files.read_json(data.path("quarantine/refused.json"))
    assert (first["start"], second["start"]) == (at, whole + len(nested))
    assert "cut" in second["reason"]


def test_work_goes_on_with_another_number_of_workers_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _dump(tmp_path / "a.bson", map(_document, range(120)))
    expected = _snapshot(_shard(source, output=str(tmp_path / "undisturbed")).folder)
    with monkeypatch.context() as patch:
        patch.setattr(write.ShardWriter, "write", _fail_at(3, write.ShardWriter.write, RuntimeError("lost")))
        with pytest.raises(UserError, match="lost"):
            _shard(source)
    finished = {
        name: os.stat(f"{source}-shards.partial/{name}").st_ino for name in _snapshot(f"{source}-shards.partial")
    }
    assert 0 < len(finished) < len(expected)
    data = _shard(source, *_THREADS)
    assert _snapshot(data.folder) == expected
    assert {name: os.stat(data.path(name)).st_ino for name in finished} == finished  # Not written again.


def test_a_task_that_runs_twice_leaves_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _dump(tmp_path / "a.bson", map(_document, range(60)))
    once = write.ShardWriter.write

    def twice(writer: write.ShardWriter, shard: int) -> None:
        once(writer, shard)
        writer.finish()
        os.unlink(WorkFolder(f"{source}-shards").receipt(shard))  # As if the first had died before it was done.
        once(writer, shard)

    expected = _snapshot(_shard(source, output=str(tmp_path / "once")).folder)
    monkeypatch.setattr(write.ShardWriter, "write", twice)
    data = _shard(source)
    assert _snapshot(data.folder) == expected
    assert sorted([*data.product_ids("train"), *data.product_ids("validation")]) == list(range(60))


@pytest.mark.parametrize("moved", [1, 2])
def test_an_end_while_the_new_dataset_takes_its_place_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    source = _dump(tmp_path / "a.bson", map(_document, range(40)))
    before = _snapshot(_shard(source).folder)
    with monkeypatch.context() as patch:
        patch.setattr(files, "move_folder", _fail_at(moved, files.move_folder, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            _shard(source, seed=1, overwrite=True)
    work = WorkFolder(f"{source}-shards")
    assert _snapshot(Manifest.load(work.output if moved == 1 else work.replaced).folder) == before
    after = _snapshot(_shard(source, seed=1, overwrite=True).folder)
    assert after != before
    assert after.keys() == _snapshot(_shard(source, seed=1, output=str(tmp_path / "clean")).folder).keys()
    assert not os.path.exists(work.replaced)
    assert not os.path.exists(work.root)


def _cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _lengthen_a_document(content: bytes) -> bytes:
    return struct.pack("<i", struct.unpack_from("<i", content)[0] + 1) + content[4:]


def _merge_two_documents(content: bytes) -> bytes:
    first = struct.unpack_from("<i", content)[0]
    return struct.pack("<i", first + struct.unpack_from("<i", content, first)[0]) + content[4:]


@pytest.mark.parametrize("change", [_cut_in_half, _lengthen_a_document, _merge_two_documents])
def test_an_input_that_changes_after_its_index_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    source = _dump(tmp_path / "a.bson", map(_document, range(60)))
    plan_it = plan.make_plan

    def plan_and_change(*arguments: Any, **options: Any) -> None:
        plan_it(*arguments, **options)
        Path(source).write_bytes(change(Path(source).read_bytes()))

    monkeypatch.setattr(plan, "make_plan", plan_and_change)
    with pytest.raises(UserError, match=r"a\.bson has changed since it was indexed .at offset \d+.; .*--overwrite"):
        _shard(source)


def test_names_from_the_tree_never_become_paths(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["../../outside", "/tmp/absolute", "=HYPERLINK(1)", "a\\b", "two\nlines", "\u202egnp"]
    with open(tmp_path / "in" / "tree.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["category_id", "category_level1", "category_level2"])
        rows.writerows([number, name, f"{name}/leaf"] for number, name in enumerate(names))
    source = _dump(tmp_path / "in" / "a.bson", (_document(number, number % len(names)) for number in range(60)))
    data = _shard(source, categories=str(tmp_path / "in" / "tree.csv"))
    assert os.listdir(tmp_path) == ["in"]
    assert sorted(os.listdir(tmp_path / "in")) == ["a.bson", "a.bson-shards", "tree.csv"]
    assert len(files.read(data.path("level1.labels.txt")).decode().splitlines()) == len(names)
    assert [path[0] for path in data.taxonomy().paths] == names
