"""What tests of exported models share: one export of the undisturbed run."""

from pathlib import Path

import pytest

from export import exporting
from export.exporting import SaveConfig
from model.run import Run
from pipeline.manifest import Manifest


@pytest.fixture(scope="session")
def model_folder(trained_run: Run, train_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported model of one version, which names four categories; tests only read it."""
    folder = tmp_path_factory.mktemp("models") / "shop"
    exporting.export(trained_run, SaveConfig(output=str(folder), top_k=4), data=train_data)
    return folder
