"""What tests share: a small made-up catalogue, the datasets made of it, and a run on them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import shard_job
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue
from tools.synthetic_catalogue import CatalogueConfig

# Real data is never part of the project; tests that use it skip where it is absent.
_REAL_DATA = Path(os.environ.get("AISLE_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a made-up catalogue: 300 products of 12 categories, and 80 to predict."""
    folder = tmp_path_factory.mktemp("catalogue")
    synthetic_catalogue.write(
        CatalogueConfig(
            output=str(folder),
            products=300,
            test_products=80,
            tree=synthetic_catalogue.categories_of(None, 12, seed=0),
        )
    )
    return folder


@pytest.fixture(scope="session")
def train_data(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Dataset of the labelled products, in several shards."""
    return _shard(catalogue, synthetic_catalogue.TRAIN, tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="session")
def test_data(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Dataset of the products to predict, in several shards."""
    return _shard(catalogue, synthetic_catalogue.TEST, tmp_path_factory.mktemp("test"))


def _shard(catalogue: Path, name: str, folder: Path) -> Manifest:
    return shard_job.run(
        ShardConfig(
            inputs=(str(catalogue / name),),
            output=str(folder / "shards"),
            categories=str(catalogue / synthetic_catalogue.CATEGORIES),
            validation_fraction=0.2,
            piece_bytes=64 << 10,
            shard_bytes=400 << 10,
        )
    )


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Function from a path inside the real data to where it is; skips the test where it is not."""

    def find(name: str) -> Path:
        path = _REAL_DATA / name
        if not path.exists():
            pytest.skip(f"needs {name} of the real data, see AISLE_REAL_DATA")
        return path

    return find
