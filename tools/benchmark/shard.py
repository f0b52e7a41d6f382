"""Sharding beside a copy of the same bytes, stage by stage, with the peak memory of a process."""

import contextlib
import functools
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import psutil

from pipeline import bson_framing, files, index, layout, source
from pipeline.example import Encoder
from pipeline.records import Fields
from pipeline.source import Reader
from pipeline.taxonomy import Taxonomy
from tools import synthetic_catalogue, synthetic_tree
from tools.benchmark.table import Table, best_seconds
from tools.synthetic_catalogue import CatalogueConfig

_DRAWN_PRODUCTS = 8_000  # About 75 MB, which are repeated under other ids.
_CATEGORIES = 500
_ID_OFFSET = 9  # Of the value of `_id` in a document: after the length, the type and the name.
_LOOP_BYTES = 256 << 20
_POLL_SECONDS = 0.05
_COPY, _RECORD_LOOP, _START, _ONE_PROCESS = (
    "cp + fsync",
    "record loop",
    "start of the command",
    "whole job, one process",
)


def measure(path: str, size: int, *, rounds: int) -> Table:
    """Shards a dump of some size in the page cache in several ways.

    Args:
      path: Where the dump goes; needs three times its size on that disk.
      size: Bytes of the dump.
      rounds: Rounds of which the best counts.
    """
    tree = synthetic_tree.make(_CATEGORIES, seed=0)
    folder = os.path.dirname(path)
    files.write(path, _dump(folder, tree, size))
    files.write(os.path.join(folder, synthetic_catalogue.CATEGORIES), [synthetic_tree.to_csv(tree)])
    total = os.path.getsize(path)
    copy, shards = f"{path}.copy", f"{path}.shards"
    peaks: dict[int, int] = {}
    workers = {_ONE_PROCESS: 1, "whole job, two processes": 2, "whole job, by default": 0}
    calls: dict[str, Callable[[], object]] = {
        _COPY: lambda: _copy(path, copy),
        "index": lambda: _index(path),
        _RECORD_LOOP: lambda: _record_loop(path, tree),
        _START: _start,
    }
    for name, count in workers.items():
        calls[name] = functools.partial(_job, path, shards, count, peaks)
    seconds = best_seconds(calls, rounds=rounds, prepare=functools.partial(_prepare, path, [copy, shards]))
    table = Table(
        f"Sharding {total / 1e9:.2f} GB from the page cache, best of {rounds}",
        ["", "s", "MB/s", "s/GB", "times cp", "against one process", "peak MiB of a process"],
    )
    for name, spent in seconds.items():
        size = {_RECORD_LOOP: min(total, _LOOP_BYTES), _START: 0}.get(name, total)
        cells = [f"{size / spent / 1e6:,.0f}", f"{spent / size * 1e9:.3f}"] if size else ["", ""]
        times = f"{spent / size / seconds[_COPY] * total:.2f}" if size else ""
        of_job = ["", ""]
        if name in workers:
            of_job = [f"{seconds[_ONE_PROCESS] / spent:.2f}", f"{peaks[workers[name]] / (1 << 20):.0f}"]
        table.rows.append([name, f"{spent:.2f}", *cells, times, *of_job])
    _prepare(path, [copy, shards])
    os.unlink(path)
    return table


def _prepare(path: str, outputs: Sequence[str]) -> None:
    """Removes what an earlier call wrote, and has the dump in the page cache and nothing else on its way to disk."""
    for output in outputs:
        if os.path.isdir(output):
            shutil.rmtree(output)
        elif os.path.exists(output):
            os.unlink(output)
    with open(path, "rb", buffering=0) as file:
        chunk = bytearray(8 << 20)
        while file.readinto(chunk):
            pass
    os.sync()


def _dump(folder: str, tree: Taxonomy, size: int) -> Iterator[bytes]:
    """Yields drawn products again and again, each time under other ids."""
    products = min(_DRAWN_PRODUCTS, max(1, size // 4000))
    config = CatalogueConfig(
        output=os.path.join(folder, "drawn"),
        products=products,
        test_products=0,
        tree=tree,
        workers=os.cpu_count() or 1,
        overwrite=True,
    )
    synthetic_catalogue.write(config)
    drawn = bytearray(files.read(os.path.join(config.output, synthetic_catalogue.TRAIN)))
    shutil.rmtree(config.output)
    boundaries = bson_framing.boundaries(bytes(drawn))
    written = number = 0
    while written < size:
        for start in boundaries[:-1]:
            struct.pack_into("<i", drawn, start + _ID_OFFSET, number)
            number += 1
        end = next((end for end in boundaries if end >= size - written), boundaries[-1])
        yield bytes(drawn[:end])
        written += end


def _copy(path: str, copy: str) -> None:
    subprocess.run(["cp", path, copy], check=True)
    descriptor = os.open(copy, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _index(path: str) -> None:
    parts = index.ranges([source.stat(path)])
    index.join([(part, index.index_range(part, Fields())) for part in parts], Fields())


def _record_loop(path: str, tree: Taxonomy) -> None:
    """Turns documents in memory into framed records, which are dropped."""
    with Reader(path) as reader:
        data = memoryview(reader.read(0, _LOOP_BYTES))
    boundaries = np.array(bson_framing.boundaries(data), np.int64)
    products, _ = layout.read(data, boundaries[:-1], boundaries[1:], Fields())
    for _chunk in Encoder(tree).frame(data, products):
        pass


def _start() -> None:
    """Runs the command up to the point where it would look at its input."""
    subprocess.run([sys.executable, "-m", "pipeline.shard"], check=False, capture_output=True)


def _job(path: str, shards: str, workers: int, peaks: dict[int, int]) -> None:
    """Runs the command; notes the largest resident memory in bytes that one of its processes took."""
    mode = "multi_processing" if workers > 1 else "in_memory"
    options = [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"] if workers else []
    command = [sys.executable, "-m", "pipeline.shard", "--input", path, "--output", shards, *options]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max([peak, *(item.memory_info().rss for item in [process, *process.children(recursive=True)])])
        time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}.")
    peaks[workers] = max(peaks.get(workers, 0), peak)
