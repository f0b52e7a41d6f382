"""Ensembles of made-up score stores of the size of Cdiscount's test set: time and memory of the command."""

import os
from collections.abc import Iterator

import numpy as np

from export import combine, scores
from export.scores import Part, ScoreStore
from pipeline import files, manifest, schema, taxonomy
from tools.benchmark import process
from tools.benchmark.table import Table

_PRODUCTS, _LABELLED = 1_768_182, 100_000
_PRODUCTS_PER_SHARD = 15_000  # Of 128 MB.
_CATEGORIES, _TOP_K, _MEMBERS = 5_270, 10, 4


def measure(folder: str) -> Iterator[Table]:
    """Yields a table of combining made-up stores by each method.

    Args:
      folder: Where the stores are made; needs 400 MB.
    """
    tests = [_store(folder, member, labelled=False) for member in range(_MEMBERS)]
    labelled = [_store(folder, member, labelled=True) for member in range(_MEMBERS)]
    table = Table(
        f"Combining {_MEMBERS} stores of {_PRODUCTS:,} products, {_TOP_K} of {_CATEGORIES:,} categories",
        ["method", "s", "products/s", "peak MiB"],
    )
    output = os.path.join(folder, "submission.csv")
    for method in combine.METHODS:
        words = ["--scores", ",".join(tests), "--method", method, "--output", output]
        name = method
        if method == combine.FITTED:
            words += ["--labels", ",".join(labelled)]
            name = f"fitted, on {_LABELLED:,} labelled products"
        seconds, _, peak = process.run("export.ensemble", *words)
        table.rows.append([name, f"{seconds:.1f}", f"{_PRODUCTS / seconds:,.0f}", f"{peak / (1 << 20):.0f}"])
    yield table


def _store(folder: str, member: int, *, labelled: bool) -> str:
    """Makes a store of random answers of which about three in five are right; returns its folder."""
    tree = taxonomy.flat(range(_CATEGORIES))
    total = _LABELLED if labelled else _PRODUCTS
    records = [min(_PRODUCTS_PER_SHARD, total - first) for first in range(0, total, _PRODUCTS_PER_SHARD)]
    content = {"runs": [member], "data": f"{labelled}", "split": f"{labelled}", "records": records}
    path = os.path.join(folder, f"{'labelled' if labelled else 'test'}-{member}")
    store = ScoreStore.begin(path, content, tree)
    for shard, count in enumerate(records):
        store.write(shard, _part(shard, count, member, labelled=labelled))
    files.write(os.path.join(path, manifest.MARKER), [b""])
    return path


def _part(shard: int, count: int, member: int, *, labelled: bool) -> Part:
    truth = np.random.default_rng(shard).integers(0, _CATEGORIES, count)
    random = np.random.default_rng((shard, member, labelled))
    labels = (truth[:, np.newaxis] + np.arange(_TOP_K) * random.integers(1, 500, (count, 1))) % _CATEGORIES
    swapped = random.random(count) > 0.6
    labels[swapped, 0], labels[swapped, 1] = labels[swapped, 1], labels[swapped, 0].copy()
    probabilities = -np.sort(-random.dirichlet(np.full(_TOP_K, 0.3), count).astype(np.float32) * 0.98, axis=1)
    category_id = truth if labelled else np.full(count, schema.NO_CATEGORY)
    kept = scores.compact(labels, probabilities, _CATEGORIES)
    return Part(shard * _PRODUCTS_PER_SHARD + np.arange(count), category_id, np.ones(count, np.int32), *kept)
