"""Compares a dataset with what its manifest says, and with the dump that it was made of."""

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import bson
import numpy as np
import xxhash

from pipeline import example, files, index, plan, records, source, tfrecord
from pipeline.console import progress
from pipeline.example import Encoder
from pipeline.layout import Products
from pipeline.manifest import Manifest, Records, Shard
from pipeline.records import Fields
from pipeline.source import Reader

_BYTES_PER_PROCESS = 256 << 20  # Less is done before another process has started.
_RECORDS_AT_ONCE = 256


class Documents(NamedTuple):
    """Where in the dump the products of a shard stand, record by record.

    Attributes:
      paths: The files of the dump.
      files: Number of the file of each, int64 of shape (records,), like all below.
      starts: Offset of its first byte.
      ends: Offset after its last byte.
    """

    paths: tuple[str, ...]
    files: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class _Task(NamedTuple):
    folder: str
    split: str
    number: int
    documents: Documents | None


def verify(data: Manifest, *, inputs: Sequence[str] = (), workers: int = 1) -> list[str]:
    """Returns what is wrong with a dataset, a line each; nothing where it is as it was written.

    Args:
      data: The dataset.
      inputs: Paths or patterns of the dump that it was made of, in the order
        given to the shard job; empty to look at the dataset alone.
      workers: Number of processes; each holds one shard in memory.

    Raises:
      UserError: The inputs are not there.
    """
    found = [*_lost_files(data), *_wrong_counts(data)]
    tables = _tables(data)
    if inputs:
        located, lost = _locate(data, inputs, tables)
        found += lost
    else:
        located = dict.fromkeys(tables)
    tasks = [_Task(data.folder, split, number, documents) for (split, number), documents in located.items()]
    sizes = [data.splits[task.split][task.number].bytes for task in tasks]
    with progress("verifying", total=sum(sizes), unit="B") as bar:
        for faults, size in zip(_map(tasks, min(workers, 1 + sum(sizes) // _BYTES_PER_PROCESS)), sizes, strict=True):
            found += faults
            bar.update(size)
    return found


def _map(tasks: Sequence[_Task], workers: int) -> Iterator[list[str]]:
    if workers == 1:
        yield from map(_verify_shard, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_verify_shard, tasks)


def _tables(data: Manifest) -> dict[tuple[str, int], Records]:
    return {
        (split, number): data.records(split, number)
        for split, shards in data.splits.items()
        for number in range(len(shards))
    }


def _lost_files(data: Manifest) -> Iterator[str]:
    there = files.list_files(data.folder)
    for name in ("taxonomy.json", "features.json", "dataset_info.json"):
        if name not in there:
            yield f"{data.path(name)} is missing"


def _wrong_counts(data: Manifest) -> Iterator[str]:
    """Compares what TFDS will believe with the manifest."""
    path = data.path("dataset_info.json")
    if not files.exists(path):
        return
    told = {
        split["name"]: [int(length) for length in split["shardLengths"]] for split in files.read_json(path)["splits"]
    }
    for split, shards in data.splits.items():
        if [length for length in told.get(split, []) if length] != [shard.records for shard in shards]:
            yield f"{path} tells other lengths of the shards of {split} than the manifest"


def _verify_shard(task: _Task) -> list[str]:
    data = Manifest.load(task.folder)
    shard = data.splits[task.split][task.number]
    path = data.path(shard.name)
    if not files.exists(path):
        return [f"{path} is missing"]
    content = files.read(path)
    return [f"{path}: {fault}" for fault in _faults(data, task, shard, memoryview(content))]


def _faults(data: Manifest, task: _Task, shard: Shard, content: memoryview) -> Iterator[str]:
    if len(content) != shard.bytes:
        yield f"it has {len(content)} bytes; expected {shard.bytes}"
    if xxhash.xxh3_128_hexdigest(content) != shard.xxh128:
        yield "its checksum is not that of the manifest"
    table = data.records(task.split, task.number)
    if (len(table.product_id), int(table.num_images.sum())) != (shard.records, shard.images):
        yield "the table of its records has other counts than the manifest"
    count = 0
    endings = example.identifiers(table.product_id)
    try:
        for record in tfrecord.walk(content):
            if count == len(endings) or not record.endswith(endings[count]):
                expected = table.product_id[count] if count < len(endings) else None
                yield f"record {count} is not of product {expected}, as the table of records says"
                return
            count += 1
    except tfrecord.CorruptRecord as error:
        yield str(error)
        return
    if count != shard.records:
        yield f"it has {count} records; expected {shard.records}"
    yield from _misplaced(table, content)
    if task.documents:
        yield from _differences(data, task.documents, content)


def _misplaced(table: Records, content: memoryview) -> Iterator[str]:
    """Compares each image, where the table says that it stands, with its digest."""
    owners = np.repeat(np.arange(len(table.num_images)), table.num_images)
    columns = (table.image_start, table.image_start + table.image_bytes, table.digest, owners)
    for start, end, digest, record in zip(*(column.tolist() for column in columns), strict=True):
        if xxhash.xxh3_64_intdigest(content[start:end]) != digest:
            yield f"record {record} has another image at byte {start} than the table of records says"
            return


def _differences(data: Manifest, documents: Documents, content: memoryview) -> Iterator[str]:
    """Compares each record with the document that it was made of, which is parsed by itself here."""
    encoder = Encoder(data.taxonomy())
    fields = Fields(**data.details["fields"])
    rows = zip(*(column.tolist() for column in documents[1:]), strict=True)
    numbered = enumerate(zip(tfrecord.walk(content), rows, strict=True))
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Reader(path)) for path in documents.paths]
        while batch := list(itertools.islice(numbered, _RECORDS_AT_ONCE)):
            sound, products = [], []
            for number, (record, (file, start, end)) in batch:
                where = f"{documents.paths[file]} at bytes {start} to {end}"
                try:
                    products.append(records.parse(readers[file].read(start, end - start), fields))
                    sound.append((number, record, where))
                except (bson.errors.InvalidBSON, records.RefusedDocument) as error:
                    yield f"record {number} is of {where}, which cannot be parsed now: {error}"
            for (number, record, where), expected in zip(sound, _encoded(encoder, products), strict=True):
                if record != expected:
                    yield f"record {number} differs from its document, {where}"


def _encoded(encoder: Encoder, products: Sequence[records.Product]) -> Iterator[bytes]:
    """Yields the records of products."""
    pictures = [picture for product in products for picture in product.pictures]
    ends = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    ids = np.array([product[:2] for product in products], np.int64).reshape(-1, 2)
    counts = np.array([len(product.pictures) for product in products], np.int64)
    columns = Products(ids[:, 0], ids[:, 1], counts, ends[:-1], ends[1:])
    for chunk in encoder.frame(memoryview(b"".join(pictures)), columns):
        yield from tfrecord.walk(memoryview(chunk.content))


def _locate(
    data: Manifest, inputs: Sequence[str], tables: dict[tuple[str, int], Records]
) -> tuple[dict[tuple[str, int], Documents | None], list[str]]:
    """Finds the document of every record, and says which documents or records have no partner."""
    fields = Fields(**data.details["fields"])
    sources = source.find(inputs)
    table = plan.Table.of([_index(item, fields) for item in sources])
    order = np.argsort(table.product_ids, kind="stable")
    ids = table.product_ids[order]
    paths = tuple(item.path for item in sources)
    located: dict[tuple[str, int], Documents | None] = {}
    lost: list[str] = []
    used = np.zeros(len(ids), np.bool_)
    for key, rows in tables.items():
        places = np.minimum(np.searchsorted(ids, rows.product_id), max(0, len(ids) - 1))
        there = ids[places] == rows.product_id if len(ids) else np.zeros(len(places), np.bool_)
        lost += [f"product {missing} is in no document of the dump" for missing in rows.product_id[~there].tolist()]
        used[places[there]] = True
        found = order[places]
        whole = there.all() and len(ids)
        located[key] = Documents(paths, table.files[found], table.starts[found], table.ends[found]) if whole else None
    left = order[~used]
    accounted = data.details["refused"]["parts"]
    if len(left) > accounted:
        shown = table.product_ids[left[:5]].tolist()
        lost.append(f"{len(left)} documents of the dump are in no record ({shown}, ...), and {accounted} were refused")
    return located, lost


def _index(item: source.Source, fields: Fields) -> index.Index:
    parts = index.ranges([item])
    return index.join([(part, index.index_range(part, fields)) for part in parts], fields)
