"""Stage 3 of the shard job: one task reads its pieces and writes one shard.

A task needs nothing but the number of its shard. What it writes has the same
bytes whenever and wherever it runs, so a task may run twice without harm, and
its receipt, written last, tells that it need not run again.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import xxhash

from pipeline import duplicates, files, hashing, layout, manifest, records, schema, taxonomy
from pipeline.example import Chunk, Encoder
from pipeline.index import Refusal
from pipeline.layout import Products
from pipeline.pieces import PieceReader, Pieces
from pipeline.plan import DROPPED
from pipeline.shard_config import WorkFolder

_ORDER_SALT = 0x54


class ShardWriter:
    """Writes shards of one job, one after another.

    Pictures are copied once, from the buffer that they were read into to a
    chunk of records, so a worker takes little more memory than one shard has
    bytes.

    Args:
      output: Folder of the finished dataset, whose work folder holds the plan.
    """

    def __init__(self, output: str) -> None:
        self._work = WorkFolder(output)
        identity = files.read_json(self._work.job)
        totals = files.read_json(self._work.plan)
        self._reader = PieceReader(files.read_json(self._work.dumps))
        self._fields = records.Fields(**identity["fields"])
        self._encoder = Encoder(taxonomy.Taxonomy.load(os.path.join(self._work.root, taxonomy.FILE_NAME)))
        self._seed = identity["seed"]
        self._shards = totals["shards"]
        self._croissant = identity["croissant"]
        self._finishing = ThreadPoolExecutor(1, "finish")
        self._unfinished: tuple[int, Future[None]] | None = None
        self._splits: dict[str, int] = totals["splits"]  # Products by split, in the order of the codes.

    def write(self, shard: int) -> None:
        """Writes the files of one shard and then its receipt; does nothing where that is there.

        The disk may still be at it when this returns: see `finish`. So it works
        while the next shard is being made.

        Args:
          shard: Number of the shard.

        Raises:
          UserError: The input is not what was indexed.
          OSError: The input cannot be read or the disk is full.
        """
        if files.exists(self._work.receipt(shard)):
            return
        made = files.retry(lambda: self._make(shard))
        try:
            self.finish()
        except BaseException:
            made.files.abandon()
            raise
        self._unfinished = shard, self._finishing.submit(self._conclude, made)

    def finish(self) -> None:
        """Waits until all that was written is on disk, receipts too.

        Raises:
          OSError: The disk is full or fails.
        """
        if not self._unfinished:
            return
        (shard, unfinished), self._unfinished = self._unfinished, None
        try:
            unfinished.result()
        except (TimeoutError, ConnectionError):
            files.retry(lambda: self._conclude(self._make(shard)))

    def _conclude(self, made: "_Made") -> None:
        made.files.finish()
        files.write_json(self._work.receipt(made.receipt["shard"]), made.receipt)

    def _make(self, shard: int) -> "_Made":
        """Writes the files of a shard; they are not visible yet."""
        pieces = Pieces.load(self._work.shard_plan(shard))
        data, boundaries = self._reader.read(pieces)
        kept = np.flatnonzero(pieces.codes != DROPPED)
        starts, ends = boundaries[kept], boundaries[kept + 1]
        products, refused = layout.read(data, starts, ends, self._fields)
        codes = pieces.codes[kept]
        codes[list(refused)] = DROPPED
        digests = duplicates.digests(data, products)  # In the order of the buffer, which is the fastest.
        contents: dict[str, Iterable[bytes | bytearray]] = {}
        written: dict[str, _ShardFile] = {}
        for code, (split, count) in enumerate(self._splits.items()):
            if not count:
                continue
            rows = self._shuffled(np.flatnonzero(codes == code), products)
            name = schema.shard_name(split, shard, self._shards)
            own, source_bytes = products.take(rows), int((ends[rows] - starts[rows]).sum())
            chunks = self._encoder.frame(data, own)
            file = _ShardFile(name, own, digests[products.pictures(rows)], source_bytes, chunks, self._croissant)
            written[split] = file
            if len(rows):
                contents[os.path.join(self._work.root, name)] = file
                contents[os.path.join(self._work.root, manifest.records_name(name))] = file.table()
        refusals = [_refusal(pieces, starts[row], ends[row], reason) for row, reason in refused.items()]
        made = files.Written(contents)
        splits = {split: file.told() for split, file in written.items()}
        return _Made(made, {"shard": shard, "splits": splits, "refusals": refusals})

    def _shuffled(self, rows: np.ndarray, products: Products) -> np.ndarray:
        return rows[np.argsort(hashing.mix(products.product_id[rows], self._seed ^ _ORDER_SALT), kind="stable")]


class _Made(NamedTuple):
    """The files of a shard that are not visible yet, and its receipt."""

    files: files.Written
    receipt: dict[str, Any]


class _ShardFile:
    """The records of one split on their way into a file, their table, and what the receipt says of it."""

    def __init__(
        self,
        name: str,
        products: Products,
        digests: np.ndarray,
        source_bytes: int,
        chunks: Iterable[Chunk],
        sha256: bool,
    ) -> None:
        self._name = name
        self._products, self._image_digests = products, digests
        self._source_bytes = source_bytes
        self._chunks = chunks
        self._digests = {"xxh128": xxhash.xxh3_128()} | ({"sha256": hashlib.sha256()} if sha256 else {})
        self._bytes = 0
        self._image_starts = [np.zeros(0, np.int64)]

    def __iter__(self) -> Iterator[bytearray]:
        """Yields the content, once."""
        for chunk in self._chunks:
            for digest in self._digests.values():
                digest.update(chunk.content)
            self._image_starts.append(self._bytes + chunk.image_starts)
            self._bytes += len(chunk.content)
            yield chunk.content

    def table(self) -> Iterator[bytes]:
        """Yields the content of the file of the table, once the records have been written."""
        products = self._products
        table = manifest.Records(
            product_id=products.product_id,
            category_id=products.category_id,
            num_images=products.num_images.astype(np.int32),
            digest=self._image_digests,
            image_start=np.concatenate(self._image_starts),
            image_bytes=(products.ends - products.starts).astype(np.int32),
        )
        yield table.to_bytes()

    def told(self) -> dict[str, Any]:
        """Returns what the receipt says, once the file is written."""
        ids = self._products.product_id
        return {
            "name": self._name,
            "records": len(ids),
            "images": len(self._image_digests),
            "bytes": self._bytes,
            "source_bytes": self._source_bytes,
            "first_id": int(ids.min()) if len(ids) else None,
            "last_id": int(ids.max()) if len(ids) else None,
        } | {name: digest.hexdigest() for name, digest in self._digests.items()}


def _refusal(pieces: Pieces, start: int, end: int, reason: str) -> Refusal:
    file, offset = pieces.place(int(start))
    return Refusal(file, offset, offset + int(end - start), reason)
