"""What tests of exporting share: runs beside the trained one, the same products in other shards, a saved model."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest

from export import exporting
from export.exporting import SaveConfig
from export.predictor import PredictConfig
from model import checkpoint
from model.checkpoint import Position
from model.run import Run
from pipeline import shard_job
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue


@pytest.fixture(scope="session")
def options(trained_run: Run, test_data: Manifest) -> Callable[..., PredictConfig]:
    """Function that returns the options of a prediction of the test set, but for what is given."""

    def make(**changed: object) -> PredictConfig:
        values = {"runs": (trained_run.folder,), "data": test_data.folder, "batch_size": 16}
        return PredictConfig(**values | changed)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def same_run(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a copy of the trained run."""
    folder = tmp_path_factory.mktemp("runs") / "copy"
    shutil.copytree(trained_run.folder, folder)
    return str(folder)


def _untrained(trained_run: Run, data: Manifest, folder: Path, **sizes: Any) -> str:
    config = replace(trained_run.config, input=replace(trained_run.config.input, **sizes))
    run = Run.begin(str(folder), config, data)
    keras.utils.set_random_seed(1)
    checkpoint.save(run.checkpoints, run.build(pretrained=False), Position())
    return run.folder


@pytest.fixture(scope="session")
def smaller_run(trained_run: Run, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained run that sees smaller pictures of the same decoded size."""
    return _untrained(trained_run, train_data, tmp_path_factory.mktemp("runs") / "smaller", image_size=24)


@pytest.fixture(scope="session")
def other_size_run(trained_run: Run, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained run that decodes to another size."""
    return _untrained(trained_run, train_data, tmp_path_factory.mktemp("runs") / "other", decode_size=40)


@pytest.fixture(scope="session")
def many_shards(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The products to predict in shards so small that a kill falls among them."""
    inputs = (str(catalogue / synthetic_catalogue.TEST),)
    folder = str(tmp_path_factory.mktemp("many") / "shards")
    return shard_job.run(ShardConfig(inputs=inputs, output=folder, piece_bytes=16 << 10, shard_bytes=32 << 10))


@pytest.fixture(scope="session")
def model_folder(trained_run: Run, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported model of one version, which names four categories; tests only read it."""
    folder = tmp_path_factory.mktemp("models") / "shop"
    exporting.export(trained_run, SaveConfig(output=str(folder), top_k=4), data=train_data)
    return folder
