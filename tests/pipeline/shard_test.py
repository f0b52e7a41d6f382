"""Tests of the command `python -m pipeline.shard`, as users run it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import files


def _shard(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.shard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


def _snapshot(folder: Path) -> dict[str, bytes]:
    """Returns every file that does not tell of time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".npz"
    }


def test_help_shows_a_command_that_runs() -> None:
    done = _shard("--help")
    assert "python -m pipeline.shard --input data/train.bson" in done.stdout
    assert "--validation_fraction" in done.stdout


def test_it_says_what_it_wrote_and_what_comes_next(catalogue: Path, tmp_path: Path) -> None:
    done = _shard("--input", str(catalogue / "train.bson"), "--output", str(tmp_path / "shards"))
    assert done.returncode == 0, done.stderr
    assert f"Wrote {tmp_path / 'shards'}. Next: python -m model.train" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no input is given"),
        (["--input=none.bson"], "none.bson is not there"),
        (["--input=."], ". is a folder"),
        (["--input=*.none"], "*.none matches no file"),
        (["--input=empty.bson"], "no whole document found"),
        (["--input=text.bson"], "no whole document found"),
        (["--input=a.bson", "--piece_byte=9"], "--piece_byte=9 is neither a flag"),
        (["--input=a.bson", "--validation_fraction=2"], "--validation_fraction is 2.0"),
        (["--input=a.bson", "--seed=x"], "--seed=x"),
        (["--input=a.bson", "--categories=none.csv"], "none.csv"),
        (["--input=a.bson", "--categories=text.bson"], "expected category_id"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_1(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.bson").write_bytes(b"")
    (tmp_path / "text.bson").write_text("This is no BSON.\n" * 9, encoding="utf-8")
    (tmp_path / "a.bson").write_bytes(b"\x0e\0\0\0\x10_id\0\1\0\0\0\0")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "pipeline.shard", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a-shards").exists()


def test_killed_anywhere_and_run_again_it_ends_in_the_same_bytes(catalogue: Path, tmp_path: Path) -> None:
    options = ["--input", str(catalogue / "train.bson"), "--shard_bytes=100000", "--piece_bytes=20000"]
    assert _shard(*options, "--output", str(tmp_path / "undisturbed")).returncode == 0
    expected = _snapshot(tmp_path / "undisturbed")
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "pipeline.shard", *options, "--output", str(output)]
    chance = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        partial = Path(f"{output}.partial")
        while not partial.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.25)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists() or (output / "_SUCCESS").exists()
    if not output.exists():
        assert _shard(*options, "--output", str(output)).returncode == 0
    assert _snapshot(output) == expected
    assert not Path(f"{output}.partial").exists()


def test_workers_never_import_tensorflow(catalogue: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline import shard_job; from pipeline.shard_config import ShardConfig; "
        f"shard_job.run(ShardConfig(inputs=({str(catalogue / 'test.bson')!r},), output={str(tmp_path / 'o')!r})); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
    assert files.exists(str(tmp_path / "o"))
