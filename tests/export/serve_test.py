"""Tests of the command that serves."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def test_it_serves_until_it_is_interrupted(model_folder: Path) -> None:
    words = [sys.executable, "-m", "export.serve", "--model", str(model_folder), "--port=0", "--name=a.b-1"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"REST at (http://localhost:\d+/v1/models/a\.b-1)$", line.strip())
        assert found, line
        with urllib.request.urlopen(found.group(1), timeout=60) as response:
            assert json.load(response)["model_version_status"][0]["state"] == "AVAILABLE"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--model", "nowhere"], "nowhere holds no exported model"),
        (["--model", "nowhere", "--name=a/b"], "--name is 'a/b'"),
        (["--model", "nowhere", "--host=300.1.1.1"], "cannot listen at 300.1.1.1:8501"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(
    refusal: Callable[..., str], arguments: list[str], shown: str, tmp_path: Path
) -> None:
    extra = [] if any("--host" in word for word in arguments) else ["--port=0"]
    assert shown in refusal("export.serve", *arguments, *extra, cwd=tmp_path)
