"""Stage 3 of the shard job: one task reads its pieces and writes one shard.

A task needs nothing but the number of its shard. What it writes has the same
bytes whenever and wherever it runs, so a task may run twice without harm, and
its receipt, written last, tells that it need not run again.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import xxhash

from pipeline import duplicates, files, hashing, layout, manifest, records, schema, taxonomy
from pipeline.example import Encoder
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
        pieces = Pieces.load(self._work.shard_plan(shard))
        data, boundaries = self._reader.read(pieces)
        kept = np.flatnonzero(pieces.codes != DROPPED)
        starts, ends = boundaries[kept], boundaries[kept + 1]
        products, refused = layout.read(data, starts, ends, self._fields)
        codes = pieces.codes[kept]
        codes[list(refused)] = DROPPED
        digests = duplicates.digests(data, products)  # In the order of the buffer, which is the fastest.
        written = {}
        for code, (split, count) in enumerate(self._splits.items()):
            if count:
                rows = self._shuffled(np.flatnonzero(codes == code), products)
                table = _table(products.take(rows), digests[products.pictures(rows)])
                source_bytes = int((ends[rows] - starts[rows]).sum())
                content = self._write_split(schema.shard_name(split, shard, self._shards), data, products.take(rows), table)
                written[split] = content | {"source_bytes": source_bytes}
        refusals = [_refusal(pieces, starts[row], ends[row], reason) for row, reason in refused.items()]
        files.write_json(self._work.receipt(shard), {"shard": shard, "splits": written, "refusals": refusals})

    def _shuffled(self, rows: np.ndarray, products: Products) -> np.ndarray:
        return rows[np.argsort(hashing.mix(products.product_id[rows], self._seed ^ _ORDER_SALT), kind="stable")]

    def _write_split(
        self, name: str, data: memoryview, products: Products, table: manifest.Records
    ) -> dict[str, Any]:
        """Writes the records of a split, and the table of them; returns what the receipt says."""
        digests = {"xxh128": xxhash.xxh3_128()} | ({"sha256": hashlib.sha256()} if self._croissant else {})
        size = 0
        if len(products.product_id):
            chunks = _summed(self._encoder.frame(data, products), digests.values())
            size = files.write(os.path.join(self._work.root, name), chunks)
            manifest.write_records(os.path.join(self._work.root, manifest.records_name(name)), table)
        return {
            "name": name,
            "records": len(products.product_id),
            "images": len(products.starts),
            "bytes": size,
            "first_id": int(products.product_id.min()) if size else None,
            "last_id": int(products.product_id.max()) if size else None,
        } | {name: digest.hexdigest() for name, digest in digests.items()}


def _table(products: Products, digests: np.ndarray) -> manifest.Records:
    return manifest.Records(
        products.product_id, products.category_id, products.num_images.astype(np.int32), digests
    )


def _refusal(pieces: Pieces, start: int, end: int, reason: str) -> Refusal:
    file, offset = pieces.place(int(start))
    return Refusal(file, offset, offset + int(end - start), reason)


def _summed(chunks: Iterable[bytearray], digests: Collection[Any]) -> Iterator[bytearray]:
    """Yields chunks, and tells the digests of them."""
    for chunk in chunks:
        for digest in digests:
            digest.update(chunk)
        yield chunk
