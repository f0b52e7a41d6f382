"""Tests of temperature scaling."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from export import calibration, outcomes, reliability
from model.run import Run
from pipeline.console import UserError
from pipeline.manifest import Manifest


@pytest.fixture(scope="module")
def fitted(trained_run: Run, train_data: Manifest) -> calibration.Calibration:
    return calibration.fit(trained_run, train_data)


def test_the_likelihood_is_at_its_best(fitted: calibration.Calibration, train_data: Manifest) -> None:
    before, after = fitted.negative_log_likelihood
    assert after <= before
    assert fitted.products == len(train_data.product_ids("validation"))


def test_the_errors_are_those_of_the_scaled_network(
    fitted: calibration.Calibration, trained_run: Run, train_data: Manifest
) -> None:
    classifier, _ = trained_run.trained()
    for temperature, expected in zip((1, fitted.temperature), fitted.expected_calibration_error, strict=True):
        found, _ = outcomes.collect(trained_run, calibration.scaled(classifier, temperature), train_data)
        error = reliability.expected_calibration_error(reliability.bins(found.confidence, found.right))
        assert error == pytest.approx(expected, abs=1e-4)


def test_what_was_scaled_is_scaled_back(
    fitted: calibration.Calibration, trained_run: Run, train_data: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, path = trained_run.trained()
    monkeypatch.setattr(Run, "trained", lambda *_: (calibration.scaled(classifier, 0.5), path))
    again = calibration.fit(trained_run, train_data)
    assert again.temperature == pytest.approx(2 * fitted.temperature)
    assert again.negative_log_likelihood[1] == pytest.approx(fitted.negative_log_likelihood[1], rel=1e-4)


def test_a_temperature_never_changes_the_order_of_a_picture(trained_run: Run) -> None:
    classifier, _ = trained_run.trained()
    pictures = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    plain = keras.ops.convert_to_numpy(classifier(pictures, training=False))
    scaled = keras.ops.convert_to_numpy(calibration.scaled(classifier, 0.3)(pictures, training=False))
    np.testing.assert_array_equal(plain.argmax(axis=1), scaled.argmax(axis=1))
    np.testing.assert_allclose(scaled, plain / 0.3, rtol=1e-5)


def test_it_is_kept_with_the_run_and_belongs_to_its_checkpoint(
    fitted: calibration.Calibration, trained_run: Run, tmp_path: Path
) -> None:
    os.symlink(trained_run.checkpoints, tmp_path / "checkpoints")
    run = replace(trained_run, folder=str(tmp_path))
    assert calibration.trained(run).temperature == 1
    fitted.save(run)
    assert os.path.basename(calibration.trained(run).checkpoint) == fitted.checkpoint
    assert calibration.trained(run).temperature == fitted.temperature
    assert calibration.trained(run, calibrated=False).temperature == 1
    replace(fitted, checkpoint="step-9").save(run)
    assert calibration.trained(run).temperature == 1


def test_data_of_another_kind_are_refused(trained_run: Run, test_data: Manifest) -> None:
    with pytest.raises(UserError, match="has no validation split"):
        calibration.fit(trained_run, test_data)


def test_a_damaged_shard_is_one_line_here_and_in_the_report(
    trained_run: Run, train_data: Manifest, tmp_path: Path
) -> None:
    data = Manifest.load(str(shutil.copytree(train_data.folder, tmp_path / "shards")))
    path = Path(data.path(data.shards("validation")[0].name))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} is damaged: image"):
        calibration.fit(trained_run, data)
    with pytest.raises(UserError, match=f"^{path} is damaged: image"):
        outcomes.collect(trained_run, trained_run.trained()[0], data)
