"""Streams a split through a run's classifier, one part on disk for each shard.

Memory does not grow with the number of products: a batch is in memory at a
time, and the answers of a shard. An interrupted prediction keeps its parts.
"""

import io
import os
from typing import Any, NamedTuple

import numpy as np

from model.run import Run
from model.scoring import ProductScorer
from pipeline import files
from pipeline import input as input_pipeline
from pipeline.console import UserError, progress
from pipeline.manifest import Manifest

_JOB = "job.json"


class Part(NamedTuple):
    """The answers for the products of a shard.

    Attributes:
      product_id: int64 of shape (products,).
      category_id: Most probable category, int64 of shape (products,).
      num_images: Number of readable images, int32 of shape (products,).
    """

    product_id: np.ndarray
    category_id: np.ndarray
    num_images: np.ndarray


def predict(run: Run, data: Manifest, *, split: str, folder: str) -> list[str]:
    """Predicts every product of a split.

    Args:
      run: A run with a checkpoint.
      data: A dataset.
      split: Name of the split.
      folder: Where the parts go; those of an interrupted prediction by the
        same checkpoint on the same data are kept.

    Returns:
      The paths of the parts, one for each shard.

    Raises:
      UserError: The folder holds parts of another prediction, or the run has no
        checkpoint.
    """
    shards = data.shards(split)
    classifier, checkpoint = run.trained()
    _open(folder, {"checkpoint": os.path.abspath(checkpoint), "data": data.fingerprint, "split": split})
    capacity = run.config.input.batch_size
    scorer = ProductScorer(classifier, run.tree, prior=run.prior, capacity=capacity, top_k=1)
    paths = [os.path.join(folder, f"{split}-{shard:05d}.npz") for shard in range(len(shards))]
    done = sum(item.records for item, path in zip(shards, paths, strict=True) if files.exists(path))
    with progress("predicting", total=sum(item.records for item in shards), unit=" products", initial=done) as bar:
        for shard, path in enumerate(paths):
            if not files.exists(path):
                save_part(path, _predict_shard(run, scorer, data, split, shard, bar))
    return paths


def _open(folder: str, job: dict[str, Any]) -> None:
    path = os.path.join(folder, _JOB)
    if files.exists(path) and files.read_json(path) != job:
        raise UserError(
            f"{folder} holds the parts of another prediction (another checkpoint or other data); remove that folder, "
            "or name another --output."
        )
    files.write_json(path, job)


def _predict_shard(run: Run, scorer: ProductScorer, data: Manifest, split: str, shard: int, bar: Any) -> Part:
    category_ids = np.array(run.tree.category_ids, np.int64)
    rows = []
    for batch in input_pipeline.products(data, run.config.input, split=split, shard=shard):
        scores = scorer.score(batch)
        product_ids = np.asarray(batch.product_ids)[: len(scores.num_images)]
        rows.append(Part(product_ids, category_ids[scores.top_labels[:, 0]], scores.num_images))
        bar.update(len(product_ids))
    if not rows:
        return Part(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))
    return Part(*map(np.concatenate, zip(*rows, strict=True)))


def save_part(path: str, part: Part) -> None:
    """Writes a part, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **part._asdict())
    files.write(path, [buffer.getvalue()])


def load_part(path: str) -> Part:
    """Reads a part."""
    with np.load(io.BytesIO(files.read(path))) as content:
        return Part(*(content[name] for name in Part._fields))
