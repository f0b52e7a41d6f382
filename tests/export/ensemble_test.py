"""Tests of the command that combines scores."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def test_help_shows_a_command_that_runs(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    example = "python -m export.ensemble --scores scores/first,scores/second --output submission.csv"
    assert example in command("export.ensemble", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "--scores"),
        (["--scores=absent"], "absent holds no finished scores"),
        (["--scores=absent", "--method=best"], "<mean|geometric|vote|fitted>"),
        (["--scores=a,b", "--method=fitted"], "in --labels"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], shown: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert shown in refusal("export.ensemble", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
