"""Tests of prediction as a Beam job over shards; on other runners with `pytest -m engines`."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from export import predict_job, prediction
from export.predictor import PredictConfig, Predictor
from export.scores import Part, ScoreStore
from pipeline import schema
from pipeline.console import UserError
from pipeline.manifest import Manifest

_Options = Callable[..., PredictConfig]
_IN_MEMORY = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
_SECONDS_TO_START = 60


@pytest.fixture(scope="module")
def expected(options: _Options, many_shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The submission that one process writes."""
    path = tmp_path_factory.mktemp("expected") / "submission.csv"
    prediction.run(options(data=many_shards.folder, output=str(path)))
    return path.read_bytes()


@pytest.fixture
def predict(options: _Options, many_shards: Manifest, tmp_path: Path) -> Callable[..., bytes]:
    """Function that runs the command with options of Beam and returns the submission."""

    def run(*words: str) -> bytes:
        config = options(output=str(tmp_path / "submission.csv"))
        flags = [f"--run={config.runs[0]}", f"--data={many_shards.folder}", f"--output={config.output}"]
        command = [sys.executable, "-m", "export.predict", *flags, f"--batch_size={config.batch_size}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if missing := re.search("error: .*(Unable to fetch.*|No module named.*)", done.stderr):
            pytest.skip(missing[1])
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(tmp_path)) == ["submission.csv"]
        return (tmp_path / "submission.csv").read_bytes()

    return run


def test_a_job_in_this_process_writes_the_same_csv(
    options: _Options, many_shards: Manifest, expected: bytes, tmp_path: Path
) -> None:
    config = options(data=many_shards.folder, output=str(tmp_path / "submission.csv"))
    prediction.run(config, _IN_MEMORY)
    assert (tmp_path / "submission.csv").read_bytes() == expected


def test_a_job_goes_on_where_a_prediction_without_one_stopped(
    options: _Options, many_shards: Manifest, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(data=many_shards.folder, output=str(tmp_path / "submission.csv"))
    written: list[int] = []
    write = ScoreStore.write

    def counted(store: ScoreStore, shard: int, part: Part) -> None:
        if len(written) == 3:
            written.append(-1)
            raise KeyboardInterrupt
        write(store, shard, part)
        written.append(shard)

    monkeypatch.setattr(ScoreStore, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        prediction.run(config)
    prediction.run(config, _IN_MEMORY)
    assert sorted(written) == [-1, *range(len(many_shards.shards(schema.TEST)))]
    assert (tmp_path / "submission.csv").read_bytes() == expected


def test_processes_write_the_same_csv(predict: Callable[..., bytes], expected: bytes) -> None:
    assert predict("--direct_num_workers=2", "--direct_running_mode=multi_processing") == expected


def test_a_checkpoint_that_changes_under_the_job_is_refused(
    options: _Options, many_shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changed(Predictor):
        def __init__(self, config: PredictConfig) -> None:
            super().__init__(config)
            self.identities = [{"checkpoint": "newer", "weights": "other"}]

    monkeypatch.setattr(predict_job, "Predictor", Changed)
    config = options(data=many_shards.folder, output=str(tmp_path / "submission.csv"))
    with pytest.raises(UserError, match="has changed since the job began"):
        prediction.run(config, _IN_MEMORY)


def test_each_process_sees_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claims, seen = [], []
    for _ in range(3):
        monkeypatch.setenv(predict_job.VISIBLE_DEVICES, "5,7")
        claims.append(predict_job.claim_gpu())
        seen.append(os.environ[predict_job.VISIBLE_DEVICES])
    assert seen == ["5", "7", "5"]  # Three processes share two GPUs.
    assert claims[1] is not None
    claims[1].close()  # As when the process ends, however it does.
    monkeypatch.setenv(predict_job.VISIBLE_DEVICES, "5,7")
    claims.append(predict_job.claim_gpu())
    assert os.environ[predict_job.VISIBLE_DEVICES] == "7"
    for claim in claims:
        assert claim is not None
        claim.close()


@pytest.mark.parametrize("visible", ["", None])
def test_without_a_gpu_nothing_is_claimed(visible: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(predict_job, "_GPUS", str(tmp_path / "absent"))
    if visible is None:
        monkeypatch.delenv(predict_job.VISIBLE_DEVICES, raising=False)
    else:
        monkeypatch.setenv(predict_job.VISIBLE_DEVICES, visible)
    assert predict_job.claim_gpu() is None
    assert list(tmp_path.iterdir()) == []


def test_importing_prediction_uses_no_device() -> None:
    """Or a worker's choice of a GPU would come too late."""
    code = "import export.predict_job; from tensorflow.python.eager.context import context; "
    code += "print(context()._context_handle)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


@pytest.mark.engines
@pytest.mark.parametrize("runner", ["DirectRunner", "DaskRunner"])
def test_other_runners_write_the_same_csv(runner: str, predict: Callable[..., bytes], expected: bytes) -> None:
    assert predict(f"--runner={runner}") == expected


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return not connection.connect_ex(("localhost", port))


@pytest.mark.engines
def test_a_job_server_writes_the_same_csv(predict: Callable[..., bytes], expected: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    server = subprocess.Popen(
        [sys.executable, "-m", module, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and not _listens(port):
            time.sleep(0.2)
        options = [f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        assert predict("--runner=PortableRunner", *options) == expected
    finally:
        server.terminate()
        server.wait()
