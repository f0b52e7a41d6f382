"""The shard job: from dumps to a dataset, in four stages that survive interruption."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np

from pipeline import commit, compression, duplicates, files, index, manifest, plan, taxonomy, write
from pipeline.console import UserError, progress
from pipeline.engines import Engine
from pipeline.records import Fields
from pipeline.shard_config import DUPLICATES, ShardConfig, WorkFolder
from pipeline.source import Source, find, stat
from pipeline.taxonomy import Taxonomy

_INDEX_BYTES_PER_PROCESS, _WRITE_BYTES_PER_PROCESS = 8 << 30, 3 << 30  # Below, a second process is no gain.
_CATEGORIES_NAME = "category_names.csv"


def run(config: ShardConfig, beam_options: Sequence[str] = ()) -> manifest.Manifest:
    """Makes a dataset of the inputs; continues where an interrupted run stopped.

    Args:
      config: The options.
      beam_options: Options of Beam, such as --runner.

    Raises:
      UserError: The inputs or options cannot be used as they are; see the
        message. Finished shards stay, and the next run keeps them.
    """
    engine = Engine(beam_options)
    sources = find(config.inputs)
    tree = taxonomy.from_csv(config.categories) if config.categories else None
    work = WorkFolder(config.output)
    _open_work(config, sources, tree, work)
    dumps = _decompressed(sources, work)
    if not files.exists(work.plan):
        indexes = _index(engine, dumps, config.fields, work)
        table = plan.Table.of(indexes)
        refusals = [refusal for found in indexes for refusal in found.refusals]
        clusters = _clusters(engine, table, config.output, work) if config.split_by == DUPLICATES else None
        plan.make_plan(config, table, refusals, tree, work, clusters=clusters)
    _write(engine, dumps, config.output, work)
    return commit.commit(config, sources, dumps, work)


def beside(inputs: Sequence[str]) -> str | None:
    """Returns the path of the category tree beside the first input, if it is there."""
    path = os.path.join(os.path.dirname(inputs[0]), _CATEGORIES_NAME)
    return path if files.exists(path) else None


def _open_work(config: ShardConfig, sources: Sequence[Source], tree: Taxonomy | None, work: WorkFolder) -> None:
    """Begins the work, or checks that what is there was begun with the same options."""
    if files.exists(os.path.join(config.output, manifest.MARKER)) and not config.overwrite:
        raise UserError(f"{config.output} holds a finished dataset; replace it with --overwrite, or name another.")
    if files.list_files(config.output) and not files.exists(os.path.join(config.output, manifest.MARKER)):
        raise UserError(f"{config.output} holds other files; expected a new folder for --output.")
    identity = config.identity(sources, tree.fingerprint if tree else None)
    if files.exists(work.job):
        begun = files.read_json(work.job)
        changed = [name for name in identity if identity[name] != begun.get(name)]
        if not changed or _keeps_index(changed, work):
            files.sweep_temporaries(work.root)
            files.write_json(work.job, identity)
            return
        if not config.overwrite:
            raise UserError(
                f"{work.root} holds unfinished work with other options: {_differences(changed, begun, identity)}. "
                "Give the same again to continue it, or --overwrite to start anew."
            )
    files.remove_tree(work.root)
    files.write_json(work.job, identity)


def _keeps_index(changed: Sequence[str], work: WorkFolder) -> bool:
    """Tells whether all that is done so far is an index, and the changed options come after it."""
    return not files.exists(work.plan) and not {"sources", "fields", "version"} & set(changed)


def _differences(names: Sequence[str], begun: dict[str, Any], now: dict[str, Any]) -> str:
    return ", ".join(f"{name} was {begun.get(name)!r} and is {now[name]!r}" for name in names)


def _decompressed(sources: Sequence[Source], work: WorkFolder) -> list[Source]:
    """Returns the inputs as plain BSON files; a compressed one is written beside the work, once."""
    packed = {number: source for number, source in enumerate(sources) if compression.kind(source.path)}
    missing = {number: source for number, source in packed.items() if not files.exists(work.spool(number))}
    if missing:
        total = sum(source.size for source in missing.values())
        with progress("decompressing", total=total, unit="B") as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            # Threads do, since decompressors let go of the interpreter.
            for done in [
                pool.submit(compression.decompress, source.path, work.spool(number), bar.update)
                for number, source in missing.items()
            ]:
                done.result()
    dumps = [stat(work.spool(number)) if number in packed else source for number, source in enumerate(sources)]
    files.write_json(work.dumps, [dump.path for dump in dumps])
    return dumps


def _index(engine: Engine, sources: Sequence[Source], fields: Fields, work: WorkFolder) -> list[index.Index]:
    """Indexes every input and proves the result."""
    ranges = index.ranges(sources)
    tasks = [(part, work.index(number), fields) for number, part in enumerate(ranges)]
    engine.map(
        IndexRanges(),
        [task for task in tasks if not files.exists(task[1])],
        receipts=os.path.dirname(work.index(0)),
        label="indexing",
        sizes=[part.stop - part.start for part, path, _ in tasks if not files.exists(path)],
        bytes_per_process=_INDEX_BYTES_PER_PROCESS,
        briefly=True,
    )
    found = [(part, index.Index.load(path)) for part, path, _ in tasks]
    return [index.join([pair for pair in found if pair[0].file == number], fields) for number in range(len(sources))]


def _clusters(engine: Engine, table: plan.Table, output: str, work: WorkFolder) -> np.ndarray:
    """Returns the cluster of each document: those that share an image are in one."""
    count = plan.write_digest_pieces(table, work)
    missing = [task for task in range(count) if not files.exists(work.digests(task))]
    size = int((table.ends - table.starts).sum()) // max(1, count)
    engine.map(
        DigestImages(output),
        missing,
        receipts=os.path.dirname(work.digests(0)),
        label="digesting",
        sizes=[size for _ in missing],
        bytes_per_process=_WRITE_BYTES_PER_PROCESS,
    )
    return duplicates.clusters(*duplicates.load(work, count))


def _write(engine: Engine, sources: Sequence[Source], output: str, work: WorkFolder) -> None:
    """Writes the shards that have no receipt yet."""
    shards = files.read_json(work.plan)["shards"]
    missing = [shard for shard in range(shards) if not files.exists(work.receipt(shard))]
    shard_bytes = sum(source.size for source in sources) // shards
    engine.map(
        WriteShards(output),
        missing,
        receipts=work.receipts,
        label="writing shards",
        sizes=[shard_bytes for _ in missing],
        bytes_per_process=_WRITE_BYTES_PER_PROCESS,
    )


class IndexRanges(beam.PTransform):
    """Indexes ranges of the inputs, and writes the index of each to its path."""

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Called by Beam with a collection of (range, path of its index, names of fields)."""
        return tasks | "IndexRange" >> beam.ParDo(_IndexRange())


class DigestImages(beam.PTransform):
    """Writes the digests of the images of the given tasks."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Called by Beam with a collection of numbers of tasks."""
        return tasks | "DigestImages" >> beam.ParDo(_WithWorker(duplicates.Digester, self._output))


class WriteShards(beam.PTransform):
    """Writes the shards of the given numbers."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Called by Beam with a collection of numbers of shards."""
        return shards | "WriteShard" >> beam.ParDo(_WriteShard(self._output))


class _IndexRange(beam.DoFn):
    def process(self, task: tuple[index.Range, str, Fields]) -> Iterator[str]:
        part, path, fields = task
        files.retry(lambda: index.index_range(index.Range(*part), fields).save(path))
        yield path


class _WithWorker(beam.DoFn):
    """Has numbered tasks done by a worker, which keeps its buffers from one to the next."""

    def __init__(self, kind: type[write.ShardWriter] | type[duplicates.Digester], output: str) -> None:
        self._kind = kind
        self._output = output
        self._worker: Any = None

    def process(self, task: int) -> Iterator[int]:
        self._worker = self._worker or self._kind(self._output)
        self._do(task)
        yield task

    def _do(self, task: int) -> None:
        files.retry(lambda: self._worker.write(task))


class _WriteShard(_WithWorker):
    """Writes shards; a bundle ends when they are on disk."""

    def __init__(self, output: str) -> None:
        super().__init__(write.ShardWriter, output)

    def _do(self, task: int) -> None:
        try:
            self._worker.write(task)  # It tries again by itself, since the failure may be that of the shard before.
        except BaseException:
            self.finish_bundle()  # What was done before is kept.
            raise

    def finish_bundle(self) -> None:
        if self._worker:
            self._worker.finish()
