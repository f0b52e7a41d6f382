"""A made-up catalogue in the form of Cdiscount's dump, of any size, streamed."""

import functools
import multiprocessing
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import Pool
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pipeline import files, hashing, taxonomy
from pipeline.console import UserError, progress
from pipeline.taxonomy import Taxonomy
from tools import synthetic_pictures, synthetic_tree

TRAIN, TEST, CATEGORIES, SOLUTION = "train.bson", "test.bson", "category_names.csv", "solution.csv"
_NAMES = (TRAIN, TEST, CATEGORIES, SOLUTION)
_PRODUCTS_PER_BLOCK = 256
_INT32_MAX = (1 << 31) - 1

# Cdiscount's training set: products with 1, 2, 3 and 4 images.
_IMAGE_COUNTS = np.cumsum([4_369_441, 1_128_588, 542_792, 1_029_075]) / 7_069_896
# Its images per category are close to lognormal: the mean is 6.5 times the median, so sigma = sqrt(2 ln 6.5).
_FREQUENCY_SIGMA = 1.93
# 63% of its images are distinct and 42% of its test products hold a training image. This share of
# products repeats the pictures of one of a few "listings" of its category, about this often.
_RELISTED = 0.42
_PRODUCTS_PER_LISTING = 16
_MISFILED = 0.03  # Of the relisted: their pictures are those of another category.
_DRIFT = 0.35  # How far frequencies at the end of the file differ from those at its beginning.


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """What to make up.

    Attributes:
      output: Folder of the four files.
      products: Number of labelled products.
      test_products: Number of products without a label.
      tree: The categories.
      seed: Any integer; everything follows from it.
      workers: Number of processes; has no influence on the result.
      overwrite: Replace files of an earlier catalogue.
    """

    output: str
    products: int
    test_products: int
    tree: Taxonomy
    seed: int = 0
    workers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("products", "test_products"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}; expected 0 or more.")
        if self.products + self.test_products > _INT32_MAX // 8:
            raise UserError("Too many products for ids of 32 bits; expected 268 million at most.")
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}; expected 1 or more.")


class _Block(NamedTuple):
    """Consecutive products of a file."""

    test: bool
    first: int
    stop: int


def write(config: CatalogueConfig) -> dict[str, int]:
    """Writes the catalogue's files; none is visible before it is whole.

    Returns:
      The size of each file in bytes, by path.

    Raises:
      UserError: A file of this name is there already.
    """
    paths = {name: os.path.join(config.output, name) for name in _NAMES}
    there = [path for path in paths.values() if files.exists(path)]
    if there and not config.overwrite:
        raise UserError(f"{there[0]} is there already; replace it with --overwrite, or name another --output.")
    files.write(paths[CATEGORIES], [synthetic_tree.to_csv(config.tree)])
    context = multiprocessing.get_context("spawn")
    total = config.products + config.test_products
    with (
        progress("drawing", total=total, unit=" products") as bar,
        context.Pool(config.workers, _start_worker, (config,)) as pool,
    ):
        for name, count, test in ((TRAIN, config.products, False), (TEST, config.test_products, True)):
            files.write(paths[name], _drawn(pool, list(_blocks(count, test)), bar))
    files.write(paths[SOLUTION], _solution(config))
    return {path: os.path.getsize(path) for path in paths.values()}


def _drawn(pool: Pool, blocks: list[_Block], bar: "tqdm[Any]") -> Iterator[bytes]:
    for block, content in zip(blocks, pool.imap(_draw_block, blocks), strict=True):
        yield content
        bar.update(block.stop - block.first)


def _blocks(count: int, test: bool) -> Iterator[_Block]:
    for first in range(0, count, _PRODUCTS_PER_BLOCK):
        yield _Block(test, first, min(first + _PRODUCTS_PER_BLOCK, count))


def _solution(config: CatalogueConfig) -> Iterator[bytes]:
    yield b"_id,category_id\n"
    for block in _blocks(config.test_products, test=True):
        ids = product_ids(config, block)
        categories = [config.tree.category_ids[label] for label in labels(config, block).tolist()]
        yield "".join(f"{i},{c}\n" for i, c in zip(ids.tolist(), categories, strict=True)).encode()


_worker_config: CatalogueConfig


def _start_worker(config: CatalogueConfig) -> None:
    global _worker_config  # A worker process draws for one catalogue only.
    _worker_config = config


def _draw_block(block: _Block) -> bytes:
    return draw_block(_worker_config, block)


def draw_block(config: CatalogueConfig, block: _Block) -> bytes:
    """Returns the documents of consecutive products, one after another."""
    numbers = np.arange(block.first, block.stop)
    draws = _draws(config, block, salt=1, count=4)
    rows = zip(
        numbers.tolist(),
        product_ids(config, block).tolist(),
        labels(config, block).tolist(),
        draws.tolist(),
        strict=True,
    )
    return b"".join(
        document(product_id, _pictures(config, 2 * number + block.test, label, draw), _category(config, block, label))
        for number, product_id, label, draw in rows
    )


def _category(config: CatalogueConfig, block: _Block, label: int) -> int | None:
    return None if block.test else config.tree.category_ids[label]


def _pictures(config: CatalogueConfig, number: int, label: int, draw: list[float]) -> list[bytes]:
    """Returns a product's pictures: of its own, or those of a listing that others share."""
    count = int(np.searchsorted(_IMAGE_COUNTS, draw[0])) + 1
    if draw[1] >= _RELISTED:
        path, own = config.tree.paths[label], (1 << 32) + number
        return [synthetic_pictures.draw(path, product=own, view=view, seed=config.seed) for view in range(count)]
    if draw[2] < _MISFILED:
        label = int(draw[2] / _MISFILED * config.tree.num_categories)
    path, listing = config.tree.paths[label], int(draw[3] * _listings(config)[label])
    return [_shared_picture(path, product=listing, view=view, seed=config.seed) for view in range(count)]


_shared_picture = functools.lru_cache(maxsize=4096)(synthetic_pictures.draw)  # About 24 MB.


def document(product_id: int, pictures: list[bytes], category_id: int | None) -> bytes:
    """Returns a product as a BSON document with Cdiscount's fields in its order."""
    images = b"".join(
        b"\x03%d\x00" % number + _wrapped(b"\x05picture\x00" + struct.pack("<iB", len(picture), 0) + picture)
        for number, picture in enumerate(pictures)
    )
    content = b"\x10_id\x00" + struct.pack("<i", product_id) + b"\x04imgs\x00" + _wrapped(images)
    if category_id is not None:
        content += b"\x10category_id\x00" + struct.pack("<i", category_id)
    return _wrapped(content)


def _wrapped(content: bytes) -> bytes:
    return struct.pack("<i", len(content) + 5) + content + b"\x00"


def _draws(config: CatalogueConfig, block: _Block, *, salt: int, count: int) -> np.ndarray:
    """Returns numbers in [0, 1) that belong to products: float64 of shape (products, count)."""
    first = np.arange(block.first, block.stop)[:, np.newaxis] * count + np.arange(count)
    return hashing.uniform(first, config.seed * 16 + 2 * salt + block.test)


def product_ids(config: CatalogueConfig, block: _Block) -> np.ndarray:
    """Returns rising ids with gaps; those of the test set lie among those of train: int64, (products,)."""
    numbers = np.arange(block.first, block.stop)
    stride = max(1, config.products // config.test_products) if block.test and config.test_products else 1
    gaps = (_draws(config, block, salt=2, count=1)[:, 0] < 0.5).astype(np.int64)
    return 2 * (2 * numbers + gaps) * stride + block.test


def labels(config: CatalogueConfig, block: _Block) -> np.ndarray:
    """Returns the label of each product's category: int64 of shape (products,).

    Frequencies drift along the file. Where there are as many products as
    categories, each category has one at least.
    """
    count = config.test_products if block.test else config.products
    categories = config.tree.num_categories
    numbers = np.arange(block.first, block.stop)
    draws = _draws(config, block, salt=3, count=2)
    begin, end = _cumulative(config)
    at_end = draws[:, 0] < (numbers + 0.5) / count
    found = np.where(at_end, np.searchsorted(end, draws[:, 1]), np.searchsorted(begin, draws[:, 1]))
    if count >= categories:  # Every so many products comes one that only its place decides.
        turn = (numbers * categories) // count
        placed = turn != ((numbers + 1) * categories) // count
        found = np.where(placed, _permutation(config)[turn], found)
    return found


@functools.lru_cache(maxsize=2)
def _permutation(config: CatalogueConfig) -> np.ndarray:
    return np.argsort(hashing.mix(np.arange(config.tree.num_categories), config.seed))


@functools.lru_cache(maxsize=2)
def _weights(config: CatalogueConfig) -> np.ndarray:
    """Returns the share of each category among the products: float64, (categories,)."""
    count = config.tree.num_categories
    normal = NormalDist(0, _FREQUENCY_SIGMA)
    quantiles = np.exp([normal.inv_cdf((rank + 0.5) / count) for rank in range(count)])
    return quantiles[_permutation(config)] / quantiles.sum()


@functools.lru_cache(maxsize=2)
def _cumulative(config: CatalogueConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns cumulative shares at the beginning and at the end of a file."""
    tilt = 1 + _DRIFT * np.where(hashing.mix(np.arange(config.tree.num_categories), config.seed + 1) & 1, 1, -1)
    shares = [_weights(config) * tilt, _weights(config) * (2 - tilt)]
    begin, end = (np.cumsum(share) / share.sum() for share in shares)
    return begin, end


@functools.lru_cache(maxsize=2)
def _listings(config: CatalogueConfig) -> list[int]:
    """Returns the number of relisted products that each category draws from."""
    expected = _weights(config) * (config.products + config.test_products) * _RELISTED / _PRODUCTS_PER_LISTING
    listings: list[int] = np.maximum(1, np.round(expected)).astype(int).tolist()
    return listings


def categories_of(path: str | None, num_categories: int | None, seed: int) -> Taxonomy:
    """Returns the tree to use: a given one, a part of it, or a made-up one.

    Raises:
      UserError: The number does not fit the tree.
    """
    tree = taxonomy.from_csv(path) if path else None
    wanted = (tree.num_categories if tree else 30) if num_categories is None else num_categories
    if wanted < 1 or (tree and wanted > tree.num_categories):
        limit = f" to {tree.num_categories}, the size of {path}" if tree else " or more"
        raise UserError(f"--num_categories is {num_categories}; expected 1{limit}.")
    return synthetic_tree.sample(tree, wanted) if tree else synthetic_tree.make(wanted, seed)
