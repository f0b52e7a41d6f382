"""Tests of compressed dumps."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline import compression, shard_config, shard_job
from pipeline.console import UserError
from pipeline.shard_config import ShardConfig

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def _shards(source: Path, folder: Path) -> dict[str, bytes]:
    data = shard_job.run(
        ShardConfig(inputs=(str(source),), output=str(folder), piece_bytes=64 << 10, shard_bytes=200 << 10)
    )
    names = [shard.name for shards in data.splits.values() for shard in shards]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("name", _COMPRESSORS)
def test_shards_of_a_compressed_dump_are_those_of_the_plain_one(catalogue: Path, tmp_path: Path, name: str) -> None:
    content = (catalogue / "test.bson").read_bytes()
    packed = tmp_path / "no suffix"
    middle = len(content) // 3  # In two members, cut inside a document.
    packed.write_bytes(_COMPRESSORS[name](content[:middle]) + _COMPRESSORS[name](content[middle:]))
    assert compression.kind(str(packed)) == name
    plain = _shards(catalogue / "test.bson", tmp_path / "plain")
    assert _shards(packed, tmp_path / "packed") == plain
    assert len(plain) > 1


@pytest.mark.parametrize("name", _COMPRESSORS)
def test_a_cut_file_is_one_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    content = bytes(range(256)) * 5000
    packed = _COMPRESSORS[name](content)
    (tmp_path / "a").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=f"a cannot be decompressed .{name}."):
        compression.decompress(str(tmp_path / "a"), str(tmp_path / "b"), lambda _: None)
    assert not (tmp_path / "b").exists()


def test_progress_counts_the_compressed_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(bytes(5 << 20)))
    counts: list[int] = []
    compression.decompress(str(tmp_path / "a"), str(tmp_path / "b"), counts.append)
    assert sum(counts) == (tmp_path / "a").stat().st_size
    assert (tmp_path / "b").stat().st_size == 5 << 20


@pytest.mark.parametrize("name", ["data/train.bson", "data/train.bson.gz", "data/train.gz", "data/train*.bson"])
def test_the_default_output_is_named_after_the_input(name: str) -> None:
    assert shard_config.default_output([name]) == "data/train-shards"
