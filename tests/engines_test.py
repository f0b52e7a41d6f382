"""The shard job on other runners of Beam and on an object store: the shards are the same everywhere.

Run with `make test-engines`.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.engines

_OPTIONS = ["--shard_bytes=200000", "--piece_bytes=50000"]
_SECONDS_TO_START = 60


def _shard(source: str, output: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.shard", "--input", source, "--output", output, *_OPTIONS, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def _shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord*")}


@pytest.fixture(scope="module")
def plain(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Shards that the default runner writes."""
    folder = tmp_path_factory.mktemp("plain") / "shards"
    done = _shard(str(catalogue / "train.bson"), str(folder))
    assert done.returncode == 0, done.stderr
    assert len(_shards(folder)) > 4
    return _shards(folder)


@contextmanager
def _server(*command: str, port: int) -> Iterator[None]:
    """Runs a server while the body runs, from when it listens."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline:
            with socket.socket() as connection:
                if connection.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "options",
    [
        ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
        ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
        ["--runner=DirectRunner"],
        ["--runner=DaskRunner"],
        ["--runner=FlinkRunner", "--flink_version=1.19"],
        ["--runner=SparkRunner"],
    ],
)
def test_shards_are_the_same_on_every_runner(
    catalogue: Path, plain: dict[str, bytes], tmp_path: Path, options: list[str]
) -> None:
    done = _shard(str(catalogue / "train.bson"), str(tmp_path / "shards"), *options)
    if missing := re.search("error: .*(Unable to fetch.*|No module named.*)", done.stderr):
        pytest.skip(missing[1])
    assert done.returncode == 0, done.stderr
    assert _shards(tmp_path / "shards") == plain


def test_shards_are_the_same_on_a_job_server(catalogue: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    port = _free_port()
    with _server("apache_beam.runners.portability.local_job_service_main", "-p", str(port), port=port):
        options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        done = _shard(str(catalogue / "train.bson"), str(tmp_path / "shards"), *options)
    assert done.returncode == 0, done.stderr
    assert _shards(tmp_path / "shards") == plain


def _worker_of(pid: int) -> psutil.Process:
    """Returns the first worker process of a command, as soon as the command can have seen it."""
    while True:
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if "apache_beam.runners.worker.sdk_worker_main" in child.cmdline():
                    time.sleep(1)
                    return child


def test_a_worker_that_is_killed_ends_the_command_and_a_rerun_continues(
    catalogue: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    source, output = str(catalogue / "train.bson"), tmp_path / "shards"
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    command = [sys.executable, "-m", "pipeline.shard", "--input", source, "--output", str(output), *_OPTIONS, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        _worker_of(process.pid).kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "died, killed from outside" in errors
    assert _shard(source, str(output), *options).returncode == 0
    assert _shards(output) == plain


def test_shards_are_the_same_on_an_object_store(catalogue: Path, plain: dict[str, bytes]) -> None:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto")
    port = _free_port()
    secrets = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    with _server("moto.server", "-p", str(port), port=port):
        endpoint = f"http://localhost:{port}"
        store = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x")
        store.create_bucket(Bucket="shop")
        for name in ("train.bson", "category_names.csv"):
            store.upload_file(str(catalogue / name), "shop", f"dump/{name}")
        options = [f"--s3_endpoint_url={endpoint}", "--s3_access_key_id=x", "--s3_secret_access_key=x"]
        done = _shard("s3://shop/dump/train.bson", "s3://shop/shards", *options, **secrets)
        assert done.returncode == 0, done.stderr
        names = [item["Key"] for item in store.list_objects_v2(Bucket="shop", Prefix="shards/")["Contents"]]
        assert "shards/_SUCCESS" in names
        shards = [name for name in names if name.startswith("shards/products-")]
        assert sorted(Path(name).name for name in shards) == sorted(plain)
        for name in shards:
            assert store.get_object(Bucket="shop", Key=name)["Body"].read() == plain[Path(name).name]
