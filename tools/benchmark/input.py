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
    """Measures the input stage by stage, each with all before it, in microseconds of processor time an image."""
    import tensorflow as tf

    from pipeline import input as input_pipeline

    data = Manifest.load(work.folder)
    config = input_pipeline.InputConfig(
        batch_size=work.batch_size, decode_size=work.decode_size, image_size=work.image_size
    )
    seed, images = input_pipeline.shuffled(data, config, epoch=0)
    read = input_pipeline.serialized(data, seed=seed)
    steps = {
        "read records": read,
        "parse": read.map(input_pipeline.parser(data), num_parallel_calls=tf.data.AUTOTUNE),
        "flatten, shuffle, batch": images.batch(config.batch_size),
        "decode, cut out, copy": input_pipeline.train(data, config, epoch=0),
    }
    total = sum(shard.images for shard in data.shards(schema.TRAIN))
    table = Table("This input, stage by stage", ["", "µs an image up to here", "of this stage"])
    before = 0.0
    for name, dataset in steps.items():
        begun = time.process_time()
        dataset.reduce(np.int64(0), lambda count, *_: count + 1)
        spent = (time.process_time() - begun) / total * 1e6
        table.rows.append([name, f"{spent:.1f}", f"{spent - before:.1f}"])
        before = spent
    return table


def shuffle_quality(work: Work) -> Table:
    """Measures how evenly a batch draws from the whole dump.

    For each batch, the Kolmogorov-Smirnov distance of its products' places in
    the dump (by id) from an even spread, on average over the batches; the least
    that can be had is that of a random order.
    """
    from pipeline import input as input_pipeline

    data = Manifest.load(work.folder)
    config = input_pipeline.InputConfig(shuffle_images=work.shuffle_images)
    _, images = input_pipeline.shuffled(data, config, epoch=0)
    order = np.concatenate([keys[:, 1] for _, keys in images.batch(4096).as_numpy_iterator()])
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
        f"Kolmogorov-Smirnov distance from an even spread, batches of {work.batch_size}, buffer of "
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
