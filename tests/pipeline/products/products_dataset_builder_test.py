"""Tests of the TFDS dataset: TFDS's own, and that the shards are those of the shard job."""

import tempfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from pipeline import shard_job
from pipeline.products import products_dataset_builder
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_tree
from tools.synthetic_catalogue import CatalogueConfig


def _draw(folder: str) -> None:
    tree = synthetic_tree.make(5, seed=0)
    synthetic_catalogue.write(CatalogueConfig(output=folder, products=40, test_products=10, tree=tree))


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """What TFDS asks of every builder, on a catalogue that is drawn first."""

    DATASET_CLASS = products_dataset_builder.Builder
    SPLITS = {"train": 35, "validation": 5, "test": 10}  # noqa: RUF012 - TFDS wants a plain dictionary.
    SKIP_TF1_GRAPH_MODE = True
    SKIP_CHECKSUMS = True

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.mkdtemp()
        _draw(folder)
        cls.EXAMPLE_DIR = folder
        super().setUpClass()


def test_its_shards_are_those_of_the_shard_job(catalogue: Path, tmp_path: Path) -> None:
    builder = products_dataset_builder.Builder(data_dir=str(tmp_path / "tfds"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(catalogue)))
    inputs = tuple(str(catalogue / name) for name in ("train.bson", "test.bson"))
    categories = str(catalogue / "category_names.csv")
    data = shard_job.run(ShardConfig(inputs=inputs, output=str(tmp_path / "plain"), categories=categories))
    for shards in data.splits.values():
        for shard in shards:
            assert (Path(builder.data_dir) / shard.name).read_bytes() == Path(data.path(shard.name)).read_bytes()
    assert builder.info.features["level1"].num_classes == len(data.taxonomy().nodes(1))


def test_tfds_loads_what_the_shard_job_wrote_without_building(catalogue: Path, tmp_path: Path) -> None:
    output = tmp_path / "products" / "1.0.0"
    categories = str(catalogue / "category_names.csv")
    shard_job.run(ShardConfig(inputs=(str(catalogue / "test.bson"),), output=str(output), categories=categories))
    assert len(list(tfds.load("products", data_dir=str(tmp_path), split="test", download=False))) == 80


def test_a_folder_without_dumps_is_refused_with_what_to_put_there(tmp_path: Path) -> None:
    builder = products_dataset_builder.Builder(data_dir=str(tmp_path / "tfds"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match="neither train"):
        builder.download_and_prepare(download_config=config)
