"""Stage 3 of the shard job: one task reads its pieces and writes one shard.

A task needs nothing but the number of its shard. What it writes has the same
bytes whenever and wherever it runs, so a task may run twice without harm, and
its receipt, written last, tells that it need not run again.
"""

import contextlib
import gc
import hashlib
import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import bson
import numpy as np
import xxhash

from pipeline import files, hashing, manifest, records, schema, taxonomy
from pipeline.index import Refusal
from pipeline.pieces import PieceReader, Pieces
from pipeline.plan import DROPPED
from pipeline.shard_config import WorkFolder

_ORDER_SALT = 0x54
_BUFFERS_PER_CHUNK = 1024  # About 3 MB, which are still in the cache when they are written.


@dataclass
class _Split:
    """Records of one split on their way into a shard."""

    frames: list[list[records.Buffer]]
    product_ids: list[int]
    category_ids: list[int]
    num_images: list[int]
    digests: list[int]
    source_bytes: int = 0
    record_bytes: int = 0

    @classmethod
    def empty(cls) -> "_Split":
        return cls([], [], [], [], [])

    def add(self, product: records.Product, frame: list[records.Buffer], source_bytes: int) -> None:
        self.source_bytes += source_bytes
        self.record_bytes += sum(map(len, frame))
        self.frames.append(frame)
        self.product_ids.append(product.product_id)
        self.category_ids.append(product.category_id)
        self.num_images.append(len(product.pictures))
        self.digests += map(xxhash.xxh3_64_intdigest, product.pictures)


class ShardWriter:
    """Writes shards of one job, one after another.

    Pictures are written from the buffer that they were read into, so a worker
    takes little more memory than one shard has bytes.

    Args:
      output: Folder of the finished dataset, whose work folder holds the plan.
    """

    def __init__(self, output: str) -> None:
        self._work = WorkFolder(output)
        identity = files.read_json(self._work.job)
        totals = files.read_json(self._work.plan)
        fields = records.Fields(**identity["fields"])
        tree = taxonomy.Taxonomy.load(os.path.join(self._work.root, taxonomy.FILE_NAME))
        self._reader = PieceReader(files.read_json(self._work.dumps))
        self._fields = fields
        self._layout = records.CommonLayout(fields)
        self._encoder = records.Encoder(tree)
        self._seed = identity["seed"]
        self._shards = totals["shards"]
        self._croissant = identity["croissant"]
        self._splits: dict[str, int] = totals["splits"]  # Products by split, in the order of the codes.

    def write(self, shard: int) -> None:
        """Writes the files of one shard and then its receipt; does nothing where that is there.

        Args:
          shard: Number of the shard.

        Raises:
          UserError: The input is not what was indexed.
          OSError: The input cannot be read or the disk is full.
        """
        if files.exists(self._work.receipt(shard)):
            return
        splits = {split: _Split.empty() for split, products in self._splits.items() if products}
        with _without_collection():
            refusals = list(self._collect(Pieces.load(self._work.shard_plan(shard)), splits))
            written = {split: self._write_split(split, shard, content) for split, content in splits.items()}
        files.write_json(self._work.receipt(shard), {"shard": shard, "splits": written, "refusals": refusals})

    def _collect(self, pieces: Pieces, splits: dict[str, _Split]) -> Iterator[Refusal]:
        """Parses documents into `splits`; yields those that make no product."""
        by_code = [splits.get(split) for split in self._splits]
        parse, frame = self._layout.parse, self._encoder.frame
        codes = iter(pieces.codes.tolist())
        for file, buffer, base, boundaries in self._reader.read(pieces):
            for start, end in itertools.pairwise(boundaries):
                code = next(codes)
                if code == DROPPED:
                    continue
                try:
                    product = parse(buffer, start, end) or records.parse(bytes(buffer[start:end]), self._fields)
                except (records.RefusedDocument, bson.errors.InvalidBSON) as error:
                    yield Refusal(file, base + start, base + end, str(error))
                    continue
                split = by_code[code]
                assert split is not None, "the plan names a split that it does not count"
                split.add(product, frame(product), end - start)

    def _write_split(self, split: str, shard: int, content: _Split) -> dict[str, Any]:
        """Writes the records of a split in random order, and the table of them; returns what the receipt says."""
        product_ids = np.array(content.product_ids, np.int64)
        order = np.argsort(hashing.mix(product_ids, self._seed ^ _ORDER_SALT), kind="stable")
        digests = {"xxh128": xxhash.xxh3_128()} | ({"sha256": hashlib.sha256()} if self._croissant else {})
        name = schema.shard_name(split, shard, self._shards)
        path = os.path.join(self._work.root, name)
        if len(order):
            files.write(path, _joined((content.frames[number] for number in order.tolist()), digests.values()))
            manifest.write_records(os.path.join(self._work.root, manifest.records_name(name)), _table(content, order))
        return {
            "name": name,
            "records": len(order),
            "images": sum(content.num_images),
            "bytes": content.record_bytes,
            "source_bytes": content.source_bytes,
            "first_id": int(product_ids.min()) if len(order) else None,
            "last_id": int(product_ids.max()) if len(order) else None,
        } | {name: digest.hexdigest() for name, digest in digests.items()}


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Spares a tenth of the time: the collector would look through all records of a shard again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _joined(frames: Iterable[list[records.Buffer]], digests: Collection[Any]) -> Iterator[bytes]:
    """Yields frames in chunks of megabytes, and tells the digests of them."""
    buffers = itertools.chain.from_iterable(frames)
    while chunk := b"".join(itertools.islice(buffers, _BUFFERS_PER_CHUNK)):
        for digest in digests:
            digest.update(chunk)
        yield chunk


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
