"""Stage 3 of the shard job: one task reads its pieces and writes one shard.

A task needs nothing but the number of its shard. What it writes has the same
bytes whenever and wherever it runs, so a task may run twice without harm, and
its receipt, written last, tells that it need not run again.
"""

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import bson
import numpy as np
import xxhash

from pipeline import bson_framing, files, hashing, manifest, records, schema, taxonomy
from pipeline.console import UserError
from pipeline.index import Refusal
from pipeline.plan import DROPPED, ShardPlan
from pipeline.shard_config import WorkFolder
from pipeline.source import Reader

_ORDER_SALT = 0x54


class _Job(NamedTuple):
    """What all tasks of a job share."""

    paths: list[str]
    fields: records.Fields
    encoder: records.Encoder
    seed: int
    shards: int
    splits: list[str]


@functools.lru_cache(maxsize=1)
def _job(output: str) -> _Job:
    work = WorkFolder(output)
    identity = files.read_json(work.job)
    totals = files.read_json(work.plan)
    tree = taxonomy.Taxonomy.load(os.path.join(work.root, taxonomy.FILE_NAME))
    return _Job(
        paths=[source["path"] for source in identity["sources"]],
        fields=records.Fields(**identity["fields"]),
        encoder=records.Encoder(tree),
        seed=identity["seed"],
        shards=totals["shards"],
        splits=[split for split in schema.SPLITS if totals["splits"][split]],
    )


@dataclass
class _Split:
    """Records of one split on their way into a shard."""

    frames: list[tuple[bytes, bytes, bytes]]
    product_ids: list[int]
    category_ids: list[int]
    num_images: list[int]
    digests: list[int]
    source_bytes: int = 0

    @classmethod
    def empty(cls) -> "_Split":
        return cls([], [], [], [], [])

    def add(self, product: records.Product, frame: tuple[bytes, bytes, bytes], source_bytes: int) -> None:
        self.source_bytes += source_bytes
        self.frames.append(frame)
        self.product_ids.append(product.product_id)
        self.category_ids.append(product.category_id)
        self.num_images.append(len(product.pictures))
        self.digests += map(xxhash.xxh3_64_intdigest, product.pictures)


def write_shard(output: str, shard: int) -> None:
    """Writes the files of one shard and then its receipt; does nothing where that is there.

    Args:
      output: Folder of the finished dataset, whose work folder holds the plan.
      shard: Number of the shard.

    Raises:
      UserError: The input is not what was indexed.
      OSError: The input cannot be read or the disk is full.
    """
    work = WorkFolder(output)
    if files.exists(work.receipt(shard)):
        return
    job = _job(output)
    splits = {split: _Split.empty() for split in job.splits}
    refusals = list(_collect(job, ShardPlan.load(work.shard_plan(shard)), splits))
    written = {split: _write_split(work, job, split, shard, content) for split, content in splits.items()}
    files.write_json(work.receipt(shard), {"shard": shard, "splits": written, "refusals": refusals})


def _collect(job: _Job, plan: ShardPlan, splits: dict[str, _Split]) -> Iterator[Refusal]:
    """Parses the documents of a plan into `splits`; yields those that make no product."""
    layout = records.CommonLayout(job.fields)
    by_code = [splits.get(split) for split in schema.SPLITS]
    frame = job.encoder.frame
    codes = iter(plan.codes.tolist())
    for file, buffer, base, boundaries in _read_pieces(job, plan):
        for start, end in itertools.pairwise(boundaries):
            code = next(codes)
            if code == DROPPED:
                continue
            try:
                product = layout.parse(buffer, start, end) or records.parse(bytes(buffer[start:end]), job.fields)
            except (records.RefusedDocument, bson.errors.InvalidBSON) as error:
                yield Refusal(file, base + start, base + end, str(error))
                continue
            split = by_code[code]
            assert split is not None, "the plan names a split that it does not count"
            split.add(product, frame(product), end - start)


def _read_pieces(job: _Job, plan: ShardPlan) -> Iterator[tuple[int, memoryview, int, list[int]]]:
    """Yields the input number, bytes, file offset and boundaries of each piece."""
    readers: dict[int, Reader] = {}
    planned = len(plan.codes)
    for file, start, end in plan.pieces.tolist():
        if file not in readers:
            readers[file] = Reader(job.paths[file])
        data = readers[file].read(start, end - start)
        boundaries = bson_framing.boundaries(data)
        planned -= len(boundaries) - 1
        if boundaries[-1] != end - start or planned < 0:
            raise UserError(
                f"{job.paths[file]} has changed since it was indexed (at offset {start}); "
                "run the job again with --overwrite."
            )
        yield file, memoryview(data), start, boundaries
    for reader in readers.values():
        reader.close()


def _write_split(work: WorkFolder, job: _Job, split: str, shard: int, content: _Split) -> dict[str, Any]:
    """Writes the records of a split in random order, and the table of them; returns what the receipt says."""
    product_ids = np.array(content.product_ids, np.int64)
    order = np.argsort(hashing.mix(product_ids, job.seed ^ _ORDER_SALT), kind="stable")
    buffers = [buffer for number in order.tolist() for buffer in content.frames[number]]
    digest = xxhash.xxh3_128()
    for buffer in buffers:
        digest.update(buffer)
    name = schema.shard_name(split, shard, job.shards)
    files.write(os.path.join(work.root, name), buffers)
    manifest.write_records(os.path.join(work.root, manifest.records_name(split, shard)), _table(content, order))
    return {
        "name": name,
        "records": len(order),
        "images": sum(content.num_images),
        "bytes": sum(map(len, buffers)),
        "source_bytes": content.source_bytes,
        "xxh128": digest.hexdigest(),
        "first_id": int(product_ids.min()) if len(order) else None,
        "last_id": int(product_ids.max()) if len(order) else None,
    }


def _table(content: _Split, order: np.ndarray) -> manifest.Records:
    """Returns the table of a shard whose records are in the given order."""
    num_images = np.array(content.num_images, np.int32)
    firsts = np.cumsum(num_images) - num_images
    lengths = num_images[order]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return manifest.Records(
        product_id=np.array(content.product_ids, np.int64)[order],
        category_id=np.array(content.category_ids, np.int64)[order],
        num_images=lengths,
        digest=np.array(content.digests, np.uint64)[np.repeat(firsts[order], lengths) + within],
    )
