"""Tests of what training, evaluation and prediction read."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import bson
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import input as input_pipeline
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.input import InputConfig
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_pictures

_CONFIG = InputConfig(batch_size=16, decode_size=36, image_size=32, shuffle_images=64, seed=3)


def _train(data: Manifest, config: InputConfig = _CONFIG, **options: Any) -> list[tuple[np.ndarray, ...]]:
    return list(input_pipeline.train(data, config, **{"epoch": 0, **options}).as_numpy_iterator())


def _data(folder: Path, products: list[dict[str, Any]], **options: Any) -> Manifest:
    (folder / "a.bson").write_bytes(b"".join(map(bson.encode, products)))
    config = {"inputs": (str(folder / "a.bson"),), "output": str(folder / "shards"), **options}
    return shard_job.run(ShardConfig(**config))


def _product(product_id: int, pictures: list[bytes], category_id: int | None = 1) -> dict[str, Any]:
    content: dict[str, Any] = {"_id": product_id, "imgs": [{"picture": picture} for picture in pictures]}
    return content if category_id is None else content | {"category_id": category_id}


def _picture(number: int) -> bytes:
    return synthetic_pictures.draw(("A", "B", str(number % 5)), product=number, view=0, seed=0)


def test_an_epoch_has_every_image_once_but_for_the_rest(train_data: Manifest) -> None:
    whole = dataclasses.replace(_CONFIG, batch_size=1, image_size=36)
    images = [image[0].tobytes() for image, _, _ in _train(train_data, whole)]
    other_epoch = [image[0].tobytes() for image, _, _ in _train(train_data, whole, epoch=1)]
    assert len(images) == sum(shard.images for shard in train_data.shards("train"))
    assert Counter(images) == Counter(other_epoch)
    assert images != other_epoch
    assert len(_train(train_data)) == input_pipeline.steps_per_epoch(train_data, _CONFIG) == len(images) // 16


def test_images_come_with_the_labels_of_their_products(train_data: Manifest) -> None:
    tree = train_data.taxonomy()
    expected: Counter[int] = Counter()
    for shard in range(len(train_data.shards("train"))):
        table = train_data.records("train", shard)
        for category, count in zip(table.category_id.tolist(), table.num_images.tolist(), strict=True):
            expected[tree.label_of[category]] += count
    whole = dataclasses.replace(_CONFIG, batch_size=1)
    assert Counter(int(labels[0]) for _, labels, _ in _train(train_data, whole)) == expected


def test_batches_are_uint8_and_of_fixed_shape(train_data: Manifest) -> None:
    images, labels, weights = input_pipeline.train(train_data, _CONFIG, epoch=0).element_spec
    assert (images.shape, images.dtype) == ((16, 32, 32, 3), "uint8")
    assert (labels.shape, labels.dtype) == ((16,), "int32")
    assert (weights.shape, weights.dtype) == ((16,), "float32")


def test_the_same_seed_and_epoch_give_the_same_batches(train_data: Manifest) -> None:
    first, second = _train(train_data), _train(train_data)
    other = _train(train_data, dataclasses.replace(_CONFIG, seed=4))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert any((one[0] != two[0]).any() for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("first_step", [1, 7, 20])
def test_a_later_start_gives_the_batches_that_would_have_come(train_data: Manifest, first_step: int) -> None:
    rest = _train(train_data, first_step=first_step)
    expected = _train(train_data)[first_step:]
    assert len(rest) == len(expected) > 0
    for one, two in zip(rest, expected, strict=True):
        for found, wanted in zip(one, two, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_crops_differ_from_image_to_image(tmp_path: Path) -> None:
    data = _data(tmp_path, [_product(number, [_picture(0)]) for number in range(64)], validation_fraction=0.0)
    [(images, _, _)] = _train(data, dataclasses.replace(_CONFIG, batch_size=64))
    assert len({image.tobytes() for image in images}) > 10


def test_unreadable_images_weigh_nothing_in_training(tmp_path: Path) -> None:
    products = [_product(number, [b"broken" if number % 4 == 0 else _picture(number)]) for number in range(32)]
    data = _data(tmp_path, products, validation_fraction=0.0)
    batches = _train(data)
    assert sum(weights.sum() for _, _, weights in batches) == 24
    for images, _, weights in batches:
        assert not images[weights == 0].any()


def test_products_come_whole_and_once(test_data: Manifest) -> None:
    images: Counter[int] = Counter()
    order: list[int] = []
    for batch in input_pipeline.products(test_data, _CONFIG, split="test"):
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
        for batch in input_pipeline.products(test_data, _CONFIG, split="test", shard=shard):
            found += batch.product_ids.numpy()[: int(batch.products)].tolist()
    assert found == test_data.product_ids("test").tolist()


def test_several_shards_give_the_batches_of_each(test_data: Manifest) -> None:
    together = list(input_pipeline.products(test_data, _CONFIG, split="test", shard=[1, 0]))
    apart = [
        batch for shard in (1, 0) for batch in input_pipeline.products(test_data, _CONFIG, split="test", shard=shard)
    ]
    assert len(together) == len(apart)
    for mine, other in zip(together, apart, strict=True):
        for one, two in zip(mine, other, strict=True):
            np.testing.assert_array_equal(one, two)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8))
def test_batches_hold_as_many_whole_products_as_fit(num_images: list[int], size: int) -> None:
    counts = list(input_pipeline._fill(num_images, size))
    assert sum(counts) == len(num_images)
    begin = 0
    for count in counts:
        end = begin + count
        assert count == 1 or (sum(num_images[begin:end]) <= size and count <= size)
        assert end == len(num_images) or count == size or sum(num_images[begin : end + 1]) > size
        begin = end


def test_products_with_many_no_or_broken_images_are_kept(tmp_path: Path) -> None:
    contents = [[_picture(n) for n in range(9)], [], [b"broken"], [_picture(1), b"broken"], [_picture(2)]]
    data = _data(tmp_path, [_product(number, pictures, None) for number, pictures in enumerate(contents)])
    config = dataclasses.replace(_CONFIG, batch_size=4)
    readable = {}
    for batch in input_pipeline.products(data, config, split="test"):
        assert len(batch.images) % 4 == 0
        assert (batch.labels.numpy() == schema.NO_CATEGORY).all()
        for row, product_id in enumerate(batch.product_ids.numpy()[: int(batch.products)].tolist()):
            readable[product_id] = int((batch.owners.numpy() == row).sum())
    assert readable == {0: 9, 1: 0, 2: 0, 3: 1, 4: 1}


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"image_size": 200}, {"shuffle_images": 0}, {"decode_size": -1}]
)
def test_impossible_options_are_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        InputConfig(**options)


def test_fewer_images_than_a_batch_are_refused_with_their_number(train_data: Manifest) -> None:
    images = sum(shard.images for shard in train_data.shards("train"))
    with pytest.raises(UserError, match=f"has {images} images"):
        input_pipeline.steps_per_epoch(train_data, dataclasses.replace(_CONFIG, batch_size=10_000))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(train_data: Manifest) -> None:
    with pytest.raises(UserError, match="no test split, only train, validation"):
        train_data.shards("test")
