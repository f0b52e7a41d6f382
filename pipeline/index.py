"""Stage 1 of the shard job: where each document is, its id and its category.

Ranges of a file are indexed in parallel. Each finds a plausible first document
and hops from there; the proof is the join: a range is right if the documents
before it end exactly where it began, and is walked again if they do not.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import bson
import numpy as np

from pipeline import bson_framing, files, layout, records
from pipeline.source import Reader, Source

RANGE_BYTES = 128 << 20
_COLUMNS = {"starts": np.int64, "ends": np.int64, "product_ids": np.int64, "category_ids": np.int64}


class Range(NamedTuple):
    """Part of a file: the documents that begin from `start` up to `stop`."""

    file: int
    path: str
    start: int
    stop: int


class Refusal(NamedTuple):
    """Bytes of a file that make no product, and why."""

    file: int
    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Index:
    """The documents of one file, or of a range of it, in order.

    Attributes:
      first: Offset at which the walk began.
      last: Offset at which it ended, at or after the end of the range.
      starts: Offset of the first byte of each document: int64 of shape
        (documents,), like all below.
      ends: Offset after its last byte.
      product_ids: Its identifier.
      category_ids: Its category, or `schema.NO_CATEGORY`.
      refusals: What lies between these documents and makes no product.
    """

    first: int
    last: int
    starts: np.ndarray
    ends: np.ndarray
    product_ids: np.ndarray
    category_ids: np.ndarray
    refusals: tuple[Refusal, ...]

    def save(self, path: str) -> None:
        """Writes the index, atomically."""
        buffer = io.BytesIO()
        columns = {name: getattr(self, name) for name in _COLUMNS}
        rest = json.dumps([self.first, self.last, self.refusals]).encode()
        np.savez(buffer, rest=np.frombuffer(rest, np.uint8), **columns)
        files.write(path, [buffer.getvalue()])

    @classmethod
    def load(cls, path: str) -> "Index":
        """Reads an index that `save` wrote."""
        with np.load(io.BytesIO(files.read(path))) as content:
            first, last, refusals = json.loads(content["rest"].tobytes())
            columns = {name: content[name] for name in _COLUMNS}
        return cls(first=first, last=last, refusals=tuple(Refusal(*refusal) for refusal in refusals), **columns)


def ranges(sources: Sequence[Source], *, range_bytes: int = RANGE_BYTES) -> list[Range]:
    """Cuts the inputs into ranges that can be indexed in parallel."""
    return [
        Range(number, source.path, start, min(start + range_bytes, source.size))
        for number, source in enumerate(sources)
        for start in range(0, source.size, range_bytes)
    ]


def index_range(part: Range, names: records.Fields) -> Index:
    """Indexes a range whose first document is found by its looks."""
    with Reader(part.path) as reader:
        first = bson_framing.first_boundary(reader, part.start, names.product_id) if part.start else 0
        return _walk(reader, part, first, names)


def join(parts: Sequence[tuple[Range, Index]], names: records.Fields) -> Index:
    """Proves the indexes of a file's ranges by their ends meeting, and makes them one.

    Args:
      parts: Every range of one file with its index, in order.
      names: Names of a document's fields.

    Returns:
      An index in which every byte of the file is in one document or in one
      refusal.
    """
    proven: list[Index] = []
    position = 0
    for part, found in parts:
        if position >= part.stop:  # One document, or one damage, covers the whole range.
            continue
        proven.append(found if found.first == position else _walk_again(part, position, names))
        position = proven[-1].last
    return _concatenate(proven, first=0, last=position)


def _walk_again(part: Range, first: int, names: records.Fields) -> Index:
    with Reader(part.path) as reader:
        return _walk(reader, part, first, names)


def _concatenate(parts: Sequence[Index], *, first: int, last: int, refusals: Sequence[Refusal] = ()) -> Index:
    columns = {
        name: np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
        for name, kind in _COLUMNS.items()
    }
    joined = tuple(refusal for part in parts for refusal in part.refusals)
    return Index(first=first, last=last, refusals=(*joined, *refusals), **columns)


def _walk(reader: Reader, part: Range, first: int, names: records.Fields) -> Index:
    found: list[Index] = []
    position = first
    while position < part.stop:
        block = bson_framing.hop(reader, position, part.stop)
        sound = _index_block(block, part.file, names)
        found.append(sound)
        if len(block) == 0 or sound.last < block.end:
            damage = bson_framing.resync(reader, sound.last, names.product_id)
            refusal = Refusal(part.file, *damage)
            found.append(_concatenate([], first=damage.start, last=damage.end, refusals=[refusal]))
        position = found[-1].last
    return _concatenate(found, first=first, last=position)


def _index_block(block: bson_framing.Block, file: int, names: records.Fields) -> Index:
    """Indexes the documents of a block up to the first that cannot be parsed."""
    octets = np.frombuffer(block.buffer, np.uint8)
    product_ids, category_ids, common = layout.keys(octets, block.boundaries[:-1], block.boundaries[1:], names)
    kept = np.ones(len(block), np.bool_)
    refusals: list[Refusal] = []
    sound = len(block)
    for number in np.flatnonzero(~common).tolist():
        start, end = (block.boundaries[number : number + 2] + block.base).tolist()
        try:
            product_ids[number], category_ids[number] = records.keys_of(block.document(number), names)
        except records.RefusedDocument as refused:
            kept[number] = False
            refusals.append(Refusal(file, start, end, str(refused)))
        except bson.errors.InvalidBSON:
            sound = number
            break
    numbers = np.flatnonzero(kept[:sound])
    boundaries = block.boundaries + block.base
    return Index(
        first=block.base,
        last=int(boundaries[sound]),
        starts=boundaries[:-1][numbers],
        ends=boundaries[1:][numbers],
        product_ids=product_ids[numbers],
        category_ids=category_ids[numbers],
        refusals=tuple(refusals),
    )
