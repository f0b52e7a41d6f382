"""Tests of exporting: versions, what lies beside the model, and that a wrong one never becomes visible."""

import csv
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from export import exporting, parity, saved_model, versions
from export.calibration import Calibration
from export.exporting import SaveConfig
from model.run import Run
from pipeline.console import UserError
from pipeline.manifest import Manifest


def _names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_beside_the_model_lie_its_classes_and_how_to_call_it(trained_run: Run, model_folder: Path) -> None:
    folder = model_folder / "1"
    with open(folder / "classes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["category_id"]) for row in rows] == list(trained_run.tree.category_ids)
    assert [tuple(row[f"category_level{level}"] for level in (1, 2, 3)) for row in rows] == list(trained_run.tree.paths)
    np.testing.assert_allclose([float(row["prior"]) for row in rows], trained_run.prior, atol=1e-8)
    readme = (folder / "README.md").read_text()
    assert "/v1/models/shop:predict" in readme
    assert "(products, 4)" in readme
    assert "cut to the middle 32x32" in readme


def test_each_export_is_a_version_of_its_own(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / ".tmp-0123").mkdir()  # Left by an interruption.
    done = exporting.export(trained_run, SaveConfig(output=str(tmp_path)))
    assert done.path == str(tmp_path / "8") == versions.newest(str(tmp_path))
    assert done.difference.tolerable
    assert _names(tmp_path) == ["7", "8", "old"]


def test_a_model_that_answers_otherwise_never_becomes_visible(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_another(path: str, classifier: keras.Model, *arguments: object, **options: object) -> None:
        kernel = classifier.get_layer("head").kernel
        kernel.assign(-kernel)
        faithful(path, classifier, *arguments, **options)  # type: ignore[arg-type]
        kernel.assign(-kernel)

    faithful = saved_model.write
    monkeypatch.setattr(saved_model, "write", write_another)
    with pytest.raises(UserError, match="another category"):
        exporting.export(trained_run, SaveConfig(output=str(tmp_path / "model")))
    assert _names(tmp_path / "model") == []


def test_without_tensorflow_under_keras_the_error_says_what_to_do(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="KERAS_BACKEND=tensorflow"):
        exporting.export(trained_run, SaveConfig(output=str(tmp_path)))


def test_a_temperature_of_the_same_checkpoint_is_applied(trained_run: Run, tmp_path: Path) -> None:
    _, checkpoint = trained_run.trained()
    os.symlink(trained_run.checkpoints, tmp_path / "checkpoints")
    run = replace(trained_run, folder=str(tmp_path))
    fitted = Calibration(0.5, os.path.basename(checkpoint), "data", 10, (1.0, 0.9), (0.2, 0.1))
    fitted.save(run)
    done = exporting.export(run, SaveConfig(output=str(tmp_path / "calibrated")))
    plain = exporting.export(run, SaveConfig(output=str(tmp_path / "plain"), calibrated=False))
    assert (done.temperature, plain.temperature) == (0.5, 1)
    sure, unsure = (saved_model.answers(item.path)(parity.draw()).probabilities[:16, 0] for item in (done, plain))
    assert (sure > unsure).all()


def test_onnx_gives_the_same_probabilities(trained_run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    done = exporting.export(trained_run, SaveConfig(output=str(tmp_path), format=exporting.ONNX))
    assert done.difference.tolerable
    session = onnxruntime.InferenceSession(str(tmp_path / "1" / "model.onnx"))
    numbers = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    [found] = session.run(None, {"images": numbers})
    classifier, _ = trained_run.trained()
    np.testing.assert_allclose(found, tf.nn.softmax(classifier(numbers, training=False)), atol=parity.TOLERANCE)
    assert _names(tmp_path / "1") == ["README.md", "classes.csv", "model.onnx"]


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerable"),
    [
        ([[0.6, 0.4]], [[0.6, 0.4]], True),
        ([[0.6, 0.4]], [[0.6001, 0.3999]], False),
        ([[0.6, 0.4]], [[0.6 + 5e-6, 0.4]], True),
    ],
)
def test_a_difference_counts_from_the_tolerance_up(
    ours: list[list[float]], theirs: list[list[float]], tolerable: bool
) -> None:
    answers = [parity.Best(np.array([[1, 2]]), np.array(values)) for values in (ours, theirs)]
    assert parity.compare(lambda _: answers[0], lambda _: answers[1], [[b""]]).tolerable == tolerable


def test_another_best_category_counts_unless_the_first_two_are_tied() -> None:
    def best(ids: list[int], probabilities: list[float]) -> Callable[[parity.Products], parity.Best]:
        return lambda _: parity.Best(np.array([ids]), np.array([probabilities]))

    assert parity.compare(best([1, 2], [0.6, 0.4]), best([2, 1], [0.6, 0.4]), [[b""]]).other_category == 1
    assert parity.compare(best([1, 2], [0.4, 0.4]), best([2, 1], [0.4, 0.4]), [[b""]]).other_category == 0


def test_the_command_exports_and_says_how_far_it_is_from_prediction(
    command: Callable[..., subprocess.CompletedProcess[str]], trained_run: Run, train_data: Manifest, tmp_path: Path
) -> None:
    result = command(
        "export.save", "--run", trained_run.folder, "--output", "shop", "--data", train_data.folder, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "greatest difference of a probability: " in result.stdout
    assert "Wrote shop/1." in result.stdout
    assert (tmp_path / "shop" / "1" / "saved_model.pb").exists()


def test_what_cannot_be_exported_is_refused_in_a_line(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere holds no run" in refusal("export.save", "--run=nowhere", "--output=shop", cwd=tmp_path)
    assert _names(tmp_path) == []
