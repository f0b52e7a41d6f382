"""Tests of the command that makes up a catalogue."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import bson
import pytest

from pipeline import taxonomy
from tools import synthetic_catalogue


def test_it_writes_the_catalogue_that_the_flags_describe(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    flags = ["--output=out", "--products=30", "--test_products=5", "--num_categories=4", "--workers=1"]
    result = command("tools.synthesize", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "python -m pipeline.shard --input out/train.bson" in result.stdout.splitlines()[-1]
    folder = tmp_path / "out"
    assert len(bson.decode_all((folder / synthetic_catalogue.TRAIN).read_bytes())) == 30
    assert len(bson.decode_all((folder / synthetic_catalogue.TEST).read_bytes())) == 5
    assert taxonomy.from_csv(str(folder / synthetic_catalogue.CATEGORIES)).num_categories == 4

    given = ["--output=again", f"--categories=out/{synthetic_catalogue.CATEGORIES}", *flags[1:]]
    assert command("tools.synthesize", *given, cwd=tmp_path).returncode == 0
    assert (tmp_path / "again" / synthetic_catalogue.TRAIN).read_bytes() == (
        folder / synthetic_catalogue.TRAIN
    ).read_bytes()


def test_an_earlier_catalogue_is_replaced_only_if_asked(
    command: Callable[..., subprocess.CompletedProcess[str]], refusal: Callable[..., str], tmp_path: Path
) -> None:
    flags = [f"--output={tmp_path}", "--products=3", "--test_products=1", "--workers=1"]
    (tmp_path / synthetic_catalogue.TEST).write_bytes(b"earlier")
    assert "--overwrite" in refusal("tools.synthesize", *flags)
    assert (tmp_path / synthetic_catalogue.TEST).read_bytes() == b"earlier"
    assert command("tools.synthesize", *flags, "--overwrite").returncode == 0
    assert len(bson.decode_all((tmp_path / synthetic_catalogue.TEST).read_bytes())) == 1


def test_help_shows_a_command_that_runs(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    example = "python -m tools.synthesize --output data --products 3000 --test_products 600"
    assert example in command("tools.synthesize", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "--output"),
        (["--output=out", "--products=many"], "--products=many"),
        (["--output=out", "--products=-1"], "--products is -1"),
        (["--output=out", "--num_categories=0"], "--num_categories is 0"),
        (["--output=out", "--categories=absent.csv"], "absent.csv"),
        (["--output=out", "--images=3"], "'images'"),
        (["--output=out", "out"], "'out'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], shown: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert shown in refusal("tools.synthesize", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
