"""Tests of the command that calibrates."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from model.run import Run
from pipeline.manifest import Manifest


def test_the_temperature_is_written_into_the_run_and_the_report_applies_it(
    command: Callable[..., subprocess.CompletedProcess[str]], trained_run: Run, train_data: Manifest, tmp_path: Path
) -> None:
    shutil.copytree(trained_run.folder, tmp_path / "run")
    arguments = ("--run", "run", "--data", train_data.folder)
    result = command("tools.calibrate", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert f"temperature {found['temperature']:.3f}" in result.stdout
    result = command("export.report", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"expected calibration error {found['expected_calibration_error'][1]:.4f}" in result.stdout
    assert f"at temperature {found['temperature']:.3f}" in (tmp_path / "report.html").read_text()


def test_what_cannot_be_calibrated_is_refused_in_a_line(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere holds no run" in refusal("tools.calibrate", "--run", "nowhere", "--data", "d", cwd=tmp_path)
