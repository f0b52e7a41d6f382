"""Tests of reading encoded images by their numbers."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow import train as protos

from pipeline import files, schema, tfrecord
from pipeline.console import UserError
from pipeline.image_reader import ImageReader
from pipeline.manifest import Manifest

_WAYS = pytest.mark.parametrize("remote", [False, True], ids=["mapped", "downloaded"])


def _reader(data: Manifest, *, remote: bool) -> ImageReader:
    reader = ImageReader(data, schema.TRAIN)
    reader._remote = remote  # As if it were on an object store, whose files are read range by range.
    return reader


def _expected(data: Manifest) -> list[tuple[int, bytes]]:
    """Returns product id and bytes of every image, as a parser of records finds them."""
    found = []
    for shard in data.shards(schema.TRAIN):
        for record in tfrecord.walk(memoryview(files.read(data.path(shard.name)))):
            features = protos.Example.FromString(record).features.feature
            [product_id] = features[schema.PRODUCT_ID].int64_list.value
            found += [(product_id, image) for image in features[schema.IMAGES].bytes_list.value]
    return found


@_WAYS
def test_images_are_those_of_the_records(train_data: Manifest, remote: bool) -> None:
    reader, expected = _reader(train_data, remote=remote), _expected(train_data)
    order = np.random.default_rng(0).permutation(len(expected))
    for numbers in (np.arange(len(expected)), order, order[:1], order[:0]):
        owners = reader.product_id[reader.owner[numbers]].tolist()
        assert list(zip(owners, map(bytes, reader.read(numbers)), strict=True)) == [expected[n] for n in numbers]


def test_products_have_the_labels_of_their_categories(train_data: Manifest) -> None:
    reader = ImageReader(train_data, schema.TRAIN)
    tables = [train_data.records(schema.TRAIN, shard) for shard in range(len(train_data.shards(schema.TRAIN)))]
    categories = np.concatenate([table.category_id for table in tables])
    assert [train_data.taxonomy().category_ids[label] for label in reader.label] == categories.tolist()
    assert reader.images_of(np.arange(len(categories))).tolist() == list(range(len(reader.owner)))


def test_shards_are_numbered_as_they_are_named(train_data: Manifest) -> None:
    reader = ImageReader(train_data, schema.TRAIN, [1, 0])
    assert reader.product_id.tolist() == [
        product for shard in (1, 0) for product in train_data.records(schema.TRAIN, shard).product_id.tolist()
    ]


@pytest.fixture
def copied(train_data: Manifest, tmp_path: Path) -> Manifest:
    """A copy of the dataset that a test may damage."""
    return Manifest.load(str(shutil.copytree(train_data.folder, tmp_path / "shards")))


@_WAYS
def test_a_changed_image_is_named(copied: Manifest, remote: bool) -> None:
    table, path = copied.records(schema.TRAIN, 1), copied.path(copied.shards(schema.TRAIN)[1].name)
    with open(path, "r+b") as file:
        file.seek(int(table.image_start[3]) + 100)
        file.write(b"?")
    record = int(np.searchsorted(np.cumsum(table.num_images), 3, side="right"))
    said = rf"^{path} is damaged: image \d of record {record}, product {table.product_id[record]}, at byte"
    with pytest.raises(UserError, match=said):
        list(_reader(copied, remote=remote).read(np.arange(sum(s.images for s in copied.shards(schema.TRAIN)))))


@_WAYS
def test_a_shard_that_is_cut_meanwhile_is_named(copied: Manifest, remote: bool) -> None:
    reader, path = _reader(copied, remote=remote), copied.path(copied.shards(schema.TRAIN)[0].name)
    os.truncate(path, 1000)
    with pytest.raises(UserError, match=f"^{path} is no longer whole"):
        list(reader.read(np.arange(10)))


def test_a_table_that_is_damaged_or_of_an_earlier_version_is_named(copied: Manifest) -> None:
    path = next(Path(copied.folder, "records").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(UserError, match=f"^{path} is damaged"):
        ImageReader(copied, schema.TRAIN)
    np.savez(path, product_id=np.zeros(1))
    with pytest.raises(UserError, match=f"^{path} has no column category_id: an earlier version"):
        ImageReader(copied, schema.TRAIN)
