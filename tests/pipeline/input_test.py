"""Tests of what training, evaluation and prediction read."""

import dataclasses
import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import product_batches
from pipeline.console import UserError
from pipeline.input import InputConfig, Part, TrainInput, reading
from pipeline.manifest import Manifest
from pipeline.odd_images import ImagePolicy, ImageReport
from pipeline.selection import SelectionConfig
from pipeline.shuffle import Windows

_CONFIG = InputConfig(batch_size=16, decode_size=36, image_size=32, shuffle_images=64, seed=3)


def _train(
    data: Manifest, config: InputConfig = _CONFIG, *, epoch: int = 0, first_step: int = 0, **options: Any
) -> list[tuple[np.ndarray, ...]]:
    return list(TrainInput(data, config, **options).epoch(epoch, first_step=first_step).as_numpy_iterator())


def test_an_epoch_has_every_image_once_but_for_the_rest(train_data: Manifest) -> None:
    whole = dataclasses.replace(_CONFIG, batch_size=1, image_size=36)
    images = [image[0].tobytes() for image, _, _ in _train(train_data, whole)]
    other_epoch = [image[0].tobytes() for image, _, _ in _train(train_data, whole, epoch=1)]
    assert len(images) == sum(shard.images for shard in train_data.shards("train"))
    assert Counter(images) == Counter(other_epoch)
    assert images != other_epoch
    assert len(_train(train_data)) == TrainInput(train_data, _CONFIG).steps == len(images) // 16


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
    images, labels, weights = TrainInput(train_data, _CONFIG).epoch(0).element_spec
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


def test_crops_differ_from_image_to_image(
    tmp_path: Path, shard_products: Callable[..., Manifest], picture: Callable[[int], bytes]
) -> None:
    data = shard_products(tmp_path, {number: [picture(0)] for number in range(64)}, validation_fraction=0.0)
    [(images, _, _)] = _train(data, dataclasses.replace(_CONFIG, batch_size=64))
    assert len({image.tobytes() for image in images}) > 10


def test_unreadable_images_weigh_nothing_in_training(
    tmp_path: Path, shard_products: Callable[..., Manifest], picture: Callable[[int], bytes]
) -> None:
    products = {number: [b"broken" if number % 4 == 0 else picture(number)] for number in range(32)}
    data = shard_products(tmp_path, products, validation_fraction=0.0)
    batches = _train(data)
    assert sum(weights.sum() for _, _, weights in batches) == 24
    for images, _, weights in batches:
        assert not images[weights == 0].any()


@given(first_step=st.integers(0, 30), epoch=st.integers(0, 5), threads=st.sampled_from([1, 2, 5]))
@settings(max_examples=8, deadline=None)
def test_any_start_and_any_number_of_threads_give_the_batches_that_would_have_come(
    train_data: Manifest, first_step: int, epoch: int, threads: int
) -> None:
    config = dataclasses.replace(_CONFIG, selection=SelectionConfig(sample_fraction=0.8), batch_size=8)
    expected = _train(train_data, config, epoch=epoch)[first_step:]
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    dataset = TrainInput(train_data, config).epoch(epoch, first_step=first_step).with_options(options)
    found = list(dataset.as_numpy_iterator())
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        for ours, wanted in zip(one, two, strict=True):
            np.testing.assert_array_equal(ours, wanted)


def test_hosts_share_every_batch(train_data: Manifest) -> None:
    whole = _train(train_data)
    parts = [_train(train_data, part=Part(index, 4)) for index in range(4)]
    for number, batch in enumerate(whole):
        for column, expected in enumerate(batch):
            np.testing.assert_array_equal(np.concatenate([part[number][column] for part in parts]), expected)
    with pytest.raises(UserError, match="--batch_size=16 cannot be divided among 3 hosts"):
        _train(train_data, part=Part(0, 3))


def test_a_damaged_record_is_one_line_that_says_what_to_do(train_data: Manifest, tmp_path: Path) -> None:
    folder = shutil.copytree(train_data.folder, tmp_path / "shards")
    path = next(folder.glob("products-train*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    data = Manifest.load(str(folder))
    with (
        pytest.raises(UserError, match=rf"^{path} is damaged: image \d of record \d+, product \d+, at byte"),
        reading(),
    ):
        _train(data)


def test_a_picture_that_policy_refuses_is_one_line(
    tmp_path: Path, shard_products: Callable[..., Manifest], picture: Callable[[int], bytes]
) -> None:
    data = shard_products(tmp_path, {number: [picture(0), b"broken"] for number in range(16)}, validation_fraction=0.0)
    config = dataclasses.replace(_CONFIG, policy=ImagePolicy(unreadable_images="error"))
    with (
        pytest.raises(UserError, match=r"^product \d+ has an image that is not as expected"),
        reading(),
    ):
        _train(data, config)


def test_odd_pictures_are_reported(
    tmp_path: Path, shard_products: Callable[..., Manifest], picture: Callable[[int], bytes]
) -> None:
    data = shard_products(tmp_path, {number: [picture(0), b"broken"] for number in range(16)}, validation_fraction=0.0)
    report = ImageReport()
    _train(data, report=report)
    assert report.counts["unreadable"] == 16
    assert report.products["unreadable"] == set(range(16))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"image_size": 200},
        {"shuffle_images": 0},
        {"decode_size": -1},
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        InputConfig(**options)


def test_fewer_images_than_a_batch_are_refused_with_their_number(train_data: Manifest) -> None:
    images = sum(shard.images for shard in train_data.shards("train"))
    with pytest.raises(UserError, match=f"has {images} images"):
        TrainInput(train_data, dataclasses.replace(_CONFIG, batch_size=10_000))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(train_data: Manifest) -> None:
    with pytest.raises(UserError, match="no test split, only train, validation"):
        train_data.shards("test")


def test_an_epoch_that_is_begun_twice_has_the_same_batches(train_data: Manifest) -> None:
    dataset = TrainInput(train_data, InputConfig(batch_size=8, shuffle_images=50)).epoch(0)
    first, second = (np.concatenate([labels for _, labels, _ in dataset.as_numpy_iterator()]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nothing_of_an_epoch_stays_once_it_is_over(train_data: Manifest) -> None:
    def after_one() -> tuple[int, int]:
        _train(train_data)
        for _ in product_batches.products(train_data, _CONFIG, split="validation"):
            pass
        gc.collect()
        return len(os.listdir("/proc/self/fd")), sum(isinstance(item, Windows) for item in gc.get_objects())

    after_one()  # Threads and files of TensorFlow itself.
    first = after_one()
    assert [after_one() for _ in range(3)] == [first] * 3


def test_an_epoch_of_a_tiny_share_has_its_batches(train_data: Manifest) -> None:
    config = dataclasses.replace(_CONFIG, selection=SelectionConfig(sample_fraction=0.05), batch_size=16)
    train_input = TrainInput(train_data, config)
    for epoch in range(60):
        assert len(train_input.product_ids(epoch)) == train_input.steps * 16
