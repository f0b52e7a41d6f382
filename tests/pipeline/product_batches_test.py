"""Tests of batches of whole products."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline import product_batches, schema
from pipeline.input import InputConfig
from pipeline.manifest import Manifest

_CONFIG = InputConfig(batch_size=16, decode_size=36, image_size=32, shuffle_images=64, seed=3)


def test_products_come_whole_and_once(test_data: Manifest) -> None:
    images: Counter[int] = Counter()
    order: list[int] = []
    for batch in product_batches.products(test_data, _CONFIG, split="test"):
        ids = batch.product_ids.numpy()[: int(batch.products)].tolist()
        assert not set(ids) & set(order)
        order += ids
        owners = batch.owners.numpy()
        assert len(owners) == len(batch.images) == _CONFIG.batch_size
        images.update(ids[owner] for owner in owners if owner < _CONFIG.batch_size)
    assert order == test_data.product_ids("test").tolist()
    tables = [test_data.records("test", shard) for shard in range(len(test_data.shards("test")))]
    assert images == Counter(
        {
            int(key): int(count)
            for table in tables
            for key, count in zip(table.product_id, table.num_images, strict=True)
        }
    )


def test_a_split_is_the_sum_of_its_shards(test_data: Manifest) -> None:
    found: list[int] = []
    for shard in range(len(test_data.shards("test"))):
        for batch in product_batches.products(test_data, _CONFIG, split="test", shard=shard):
            found += batch.product_ids.numpy()[: int(batch.products)].tolist()
    assert found == test_data.product_ids("test").tolist()


def test_several_shards_give_the_batches_of_each(test_data: Manifest) -> None:
    together = list(product_batches.products(test_data, _CONFIG, split="test", shard=[1, 0]))
    apart = [
        batch for shard in (1, 0) for batch in product_batches.products(test_data, _CONFIG, split="test", shard=shard)
    ]
    assert len(together) == len(apart)
    for mine, other in zip(together, apart, strict=True):
        for one, two in zip(mine, other, strict=True):
            np.testing.assert_array_equal(one, two)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8))
def test_batches_hold_as_many_whole_products_as_fit(num_images: list[int], size: int) -> None:
    counts = list(product_batches._fill(num_images, size))
    assert sum(counts) == len(num_images)
    begin = 0
    for count in counts:
        end = begin + count
        assert count == 1 or (sum(num_images[begin:end]) <= size and count <= size)
        assert end == len(num_images) or count == size or sum(num_images[begin : end + 1]) > size
        begin = end


def test_products_with_many_no_or_broken_images_are_kept(
    tmp_path: Path, shard_products: Callable[..., Manifest], picture: Callable[[int], bytes]
) -> None:
    contents = [[picture(n) for n in range(9)], [], [b"broken"], [picture(1), b"broken"], [picture(2)]]
    data = shard_products(tmp_path, dict(enumerate(contents)), category_id=None)
    config = dataclasses.replace(_CONFIG, batch_size=4)
    readable = {}
    for batch in product_batches.products(data, config, split="test"):
        assert len(batch.images) % 4 == 0
        assert (batch.labels.numpy() == schema.NO_CATEGORY).all()
        for row, product_id in enumerate(batch.product_ids.numpy()[: int(batch.products)].tolist()):
            readable[product_id] = int((batch.owners.numpy() == row).sum())
    assert readable == {0: 9, 1: 0, 2: 0, 3: 1, 4: 1}
