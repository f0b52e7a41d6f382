"""The training input beside the raw decoder and other loaders, stage by stage, and how well it shuffles."""

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np

from pipeline import engines, schema, shard_job
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_tree
from tools.benchmark import loaders, peers
from tools.benchmark.rates import Work, best_rates
from tools.benchmark.table import Table
from tools.synthetic_catalogue import CatalogueConfig

_CATEGORIES = 200
_SHARD_BYTES = 8 << 20  # As many shards as are read at once.


def catalogue(folder: str, *, products: int) -> Work:
    """Draws a catalogue and shards it.

    Args:
      folder: Where both go.
      products: Number of products; 12,000 have about 20,000 images and need 250 MB.
    """
    drawn = CatalogueConfig(
        output=os.path.join(folder, "drawn"),
        products=products,
        test_products=0,
        tree=synthetic_tree.make(_CATEGORIES, seed=0),
        workers=os.cpu_count() or 1,
        overwrite=True,
    )
    synthetic_catalogue.write(drawn)
    dump = os.path.join(drawn.output, synthetic_catalogue.TRAIN)
    shards = os.path.join(folder, "shards")
    engines.prepare(())
    shard_job.run(
        ShardConfig(
            inputs=(dump,), output=shards, categories=shard_job.beside([dump]), shard_bytes=_SHARD_BYTES, overwrite=True
        )
    )
    return Work(folder=shards, dump=dump, scratch=os.path.join(folder, "scratch"))


def rates(work: Work, *, cores: Sequence[int], rounds: int, with_peers: bool, processor_time: bool) -> Table:
    """Measures loaders in images a second.

    Args:
      work: What they load.
      cores: Numbers of cores to hold them to.
      rounds: Rounds of which the best counts.
      with_peers: Measure other projects' loaders too, as far as they are installed.
      processor_time: See `best_rates`.
    """
    chosen = loaders.OWN | (peers.ALL if with_peers else {})
    found = {
        count: best_rates(chosen, dataclasses.replace(work, cores=count), rounds=rounds, processor_time=processor_time)
        for count in cores
    }
    unit = "images/s of processor time" if processor_time else "images/s"
    columns = [head for count in cores for head in (f"{unit}, {count} core{'s' * (count > 1)}", "of the limit")]
    table = Table(
        f"Batches of {work.batch_size} pictures of {work.image_size} px cut out of {work.decode_size} px, "
        f"best of {rounds}",
        ["", *columns],
    )
    for name in chosen:
        if name in found[cores[0]]:
            cells = [(found[count][name], found[count][name] / found[count][loaders.LIMIT]) for count in cores]
            table.rows.append([name, *(text for rate, share in cells for text in (f"{rate:,.0f}", f"{share:.2f}"))])
    return table


def stages(work: Work) -> Table:
    """Measures the input stage by stage, in microseconds of processor time an image."""
    from pipeline.decode import decode_into
    from pipeline.image_reader import ImageReader
    from pipeline.input import InputConfig, TrainInput

    data = Manifest.load(work.folder)
    config = InputConfig(batch_size=work.batch_size, decode_size=work.decode_size, image_size=work.image_size)
    clock = time.process_time
    begun = clock()
    train_input = TrainInput(data, config)
    tables = clock() - begun
    reader = ImageReader(data, schema.TRAIN)
    everything = np.arange(len(reader.owner))
    begun = clock()
    encoded = list(reader.read(everything))
    read = clock() - begun
    picture = np.empty((work.decode_size, work.decode_size, 3), np.uint8)
    begun = clock()
    for image in encoded:
        decode_into(image, picture)
    decode = clock() - begun
    del encoded
    begun = clock()
    for _ in train_input.epoch(0):
        pass
    whole = clock() - begun
    table = Table("This input, stage by stage", ["", "µs of a processor an image"])
    rows = {
        "read the tables of all shards, once a run": tables,
        "read images, compare digests": read,
        "decode them one after another into one picture": decode,
        "cut out, write into batches, hand over": whole - read - decode,
        "an epoch": whole,
    }
    for name, seconds in rows.items():
        table.rows.append([name, f"{seconds / len(everything) * 1e6:.1f}"])
    return table


def shuffle_quality(work: Work) -> Table:
    """Measures how evenly a batch draws from the whole dump.

    For each batch, the Kolmogorov-Smirnov distance of its products' places in
    the dump (by id) from an even spread, on average over the batches; the least
    that can be had is that of a random order.
    """
    from pipeline.input import InputConfig, TrainInput

    data = Manifest.load(work.folder)
    order = TrainInput(data, InputConfig(shuffle_images=work.shuffle_images)).product_ids(0)
    ids = np.sort(order)
    read = [data.records(schema.TRAIN, shard) for shard in range(len(data.shards(schema.TRAIN)))]
    one_by_one = np.concatenate([np.repeat(table.product_id, table.num_images) for table in read])
    rows = {
        "as in the dump": ids,
        "shard after shard": one_by_one,
        "what training sees": order,
        "random": np.random.default_rng(0).permutation(order),
    }
    table = Table(
        f"Kolmogorov-Smirnov distance from an even spread, batches of {work.batch_size}, windows of "
        f"{work.shuffle_images} images",
        ["order", "distance"],
    )
    for name, found in rows.items():
        table.rows.append([name, f"{_distance(np.searchsorted(ids, found) / len(ids), work.batch_size):.3f}"])
    return table


def _distance(places: np.ndarray, size: int) -> float:
    """Returns the mean distance of batches of places in [0, 1) from a uniform distribution."""
    batches = np.sort(places[: len(places) // size * size].reshape(-1, size), axis=1)
    steps = np.arange(size + 1) / size
    return float(np.maximum(steps[1:] - batches, batches - steps[:-1]).max(axis=1).mean())
