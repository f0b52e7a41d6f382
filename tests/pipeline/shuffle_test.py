"""Tests of the order of an epoch, and of windows of it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schema, shuffle
from pipeline.image_reader import ImageReader
from pipeline.manifest import Manifest
from pipeline.shuffle import Windows


def _windows(reader: ImageReader, *, size: int, seed: int = 0, asked_for: np.ndarray | None = None) -> Windows:
    images = np.arange(len(reader.owner))
    asked_for = np.ones(len(images), np.bool_) if asked_for is None else asked_for
    return Windows(reader, images, size=size, seed=seed, asked_for=asked_for)


def test_products_come_once_in_an_order_that_follows_from_the_seed(train_data: Manifest) -> None:
    reader = ImageReader(train_data, schema.TRAIN)
    first, again, other = (shuffle.products_by_run(reader, window=600, seed=seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert sorted(first.tolist()) == sorted(other.tolist()) == list(range(len(reader.product_id)))
    together = np.diff(first) == 1  # Three records a run.
    assert 0.6 < together.mean() < 0.75


@given(size=st.integers(1, 700), seed=st.integers(0, 1 << 40), data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_positions_in_any_order_are_those_of_the_order(
    train_data: Manifest, size: int, seed: int, data: st.DataObject
) -> None:
    reader = ImageReader(train_data, schema.TRAIN)
    images = list(map(bytes, reader.read(np.arange(len(reader.owner)))))
    windows = _windows(reader, size=size, seed=seed)
    order = windows.order()
    assert sorted(order.tolist()) == list(range(len(images)))
    for _ in range(3):
        positions = np.array(sorted(data.draw(st.sets(st.integers(0, len(images) - 1), min_size=1))))
        numbers, encoded = windows.take(positions)
        assert numbers.tolist() == order[positions].tolist()
        assert list(map(bytes, encoded)) == [images[number] for number in numbers]


def test_what_is_not_asked_for_is_not_fetched(train_data: Manifest) -> None:
    reader = ImageReader(train_data, schema.TRAIN)
    fetched: list[int] = []
    fetch = reader.fetch
    reader.fetch = lambda images: fetched.extend(images.tolist()) or fetch(images)  # type: ignore[method-assign,func-returns-value]
    asked_for = np.arange(len(reader.owner)) % 4 == 1
    windows = _windows(reader, size=64, asked_for=asked_for)
    positions = np.flatnonzero(asked_for)
    numbers, encoded = windows.take(positions)
    assert list(map(bytes, encoded)) == list(map(bytes, reader.read(numbers)))
    assert set(fetched) == set(numbers.tolist())
    windows._fetching.shutdown()


def test_windows_that_are_behind_are_forgotten(train_data: Manifest) -> None:
    windows = _windows(ImageReader(train_data, schema.TRAIN), size=16)
    for position in range(200):
        windows.take(np.array([position]))
        assert len(windows._windows) <= 3
