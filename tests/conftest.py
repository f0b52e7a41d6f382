"""What tests share: a small made-up catalogue, the datasets made of it, and a run on them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model import trainer
from model.config import ModelConfig, TrainConfig
from model.losses import LossConfig
from model.optimizers import OptimizerConfig
from model.run import Run
from pipeline import shard_job
from pipeline.input import InputConfig
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue
from tools.synthetic_catalogue import CatalogueConfig

_ROOT = Path(__file__).parents[1]
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
def train_config() -> TrainConfig:
    """Options of a run that takes seconds: two stages of an epoch each, with all that is random switched on."""
    return TrainConfig(
        model=ModelConfig(backbone="simple_cnn", dropout=0.3),
        input=InputConfig(batch_size=64, decode_size=36, image_size=32, shuffle_images=200, seed=5),
        stages="head:1,all:1",
        optimization=OptimizerConfig(learning_rate=3e-3),
        loss=LossConfig(label_smoothing=0.1),
    )


@pytest.fixture(scope="session")
def trained_run(train_config: TrainConfig, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was never disturbed; tests only read it."""
    run = Run.begin(str(tmp_path_factory.mktemp("runs") / "undisturbed"), train_config, train_data)
    trainer.train(run, train_data)
    return run


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Function that runs a module with arguments as a user does, in a folder."""
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}

    def run(module: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", module, *arguments]
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def refusal(command: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Function that runs a module and returns the one line with which it refuses."""

    def run(module: str, *arguments: str, cwd: Path | None = None) -> str:
        result = command(module, *arguments, cwd=cwd)
        assert result.returncode == 1
        assert result.stdout == ""
        [line] = result.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Function from a path inside the real data to where it is; skips the test where it is not."""

    def find(name: str) -> Path:
        path = _REAL_DATA / name
        if not path.exists():
            pytest.skip(f"needs {name} of the real data, see AISLE_REAL_DATA")
        return path

    return find
