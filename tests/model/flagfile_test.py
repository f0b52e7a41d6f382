"""Tests of finding flagfiles by their bare names."""

import os
from pathlib import Path

import pytest
from absl import flags

from model import flagfile
from pipeline.console import UserError

_SHIPPED = sorted(os.listdir(flagfile.FOLDER))


@pytest.mark.parametrize("name", _SHIPPED)
def test_a_bare_name_is_looked_up_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert flagfile.locate(name) == os.path.join(flagfile.FOLDER, name)


def test_a_file_of_the_working_folder_comes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(_SHIPPED[0]).touch()
    assert flagfile.locate(_SHIPPED[0]) == _SHIPPED[0]


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.flags"
    path.touch()
    assert flagfile.locate(str(path)) == str(path)


@pytest.mark.parametrize("name", ["none.flags", "elsewhere/simple_cnn.flags", "../flags/simple_cnn.flags"])
def test_an_unknown_flagfile_is_refused_with_those_that_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        flagfile.locate(name)
    assert repr(name) in str(caught.value)
    assert all(shipped in str(caught.value) for shipped in _SHIPPED)


@pytest.mark.parametrize("spelling", [["--flagfile=x.flags"], ["--flagfile", "x.flags"], ["-flagfile=x.flags"]])
@pytest.mark.parametrize(("after", "expected"), [([], 7), (["--aisle_test_number=9"], 9)])
def test_flags_after_a_flagfile_override_it(
    spelling: list[str], after: list[str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagfile, "FOLDER", str(tmp_path))
    (tmp_path / "x.flags").write_text("# A comment.\n--aisle_test_number=7\n", encoding="utf-8")
    own = flags.FlagValues()
    flags.DEFINE_integer("aisle_test_number", 1, "A number.", flag_values=own)
    flags.DEFINE_string("flagfile", "", "Flags in a file.", flag_values=own)
    monkeypatch.setattr(flags, "FLAGS", own)
    assert list(flagfile.parse(["program", *spelling, *after])) == ["program"]
    assert own.aisle_test_number == expected


@pytest.mark.parametrize("name", sorted(os.listdir(flagfile.FOLDER)))
def test_every_shipped_flagfile_is_read(name: str) -> None:
    config = flagfile.read(name)
    text = (Path(flagfile.FOLDER) / name).read_text(encoding="utf-8")
    assert f"--backbone={config.model.backbone}" in text
    assert f"--image_size={config.input.image_size}" in text


def test_a_flagfile_with_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.flags").write_text("--backbon=xception\n", encoding="utf-8")
    with pytest.raises(UserError, match="backbon"):
        flagfile.read(str(tmp_path / "own.flags"))
