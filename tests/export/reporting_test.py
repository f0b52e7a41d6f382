"""Tests of the report: its figures, its pictures, and that no name becomes markup."""

import csv
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import bson
import pytest

from export import reporting
from model import evaluator
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue

_HOSTILE = (
    '<script>alert("1")</script>',
    "\"'><img src=x onerror=alert(2)>",
    "=cmd|' /C calc'!A0",
    "{{ 7 * 7 }}",
    "&lt;b&gt;",
)


class _Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile_data(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The catalogue under names that want to be markup, with pictures that cannot be read."""
    folder = tmp_path_factory.mktemp("hostile")
    with open(catalogue / synthetic_catalogue.CATEGORIES, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    for number, row in enumerate(rows):
        row[1:] = [f"{row[1]}{_HOSTILE[0]}", f"{row[2]}{_HOSTILE[1]}", f"{number}{_HOSTILE[number % 5]}"]
    with open(folder / "names.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    documents = bson.decode_all((catalogue / synthetic_catalogue.TRAIN).read_bytes())
    for number, document in enumerate(documents):
        if number % 10 == 0:
            document["imgs"][0]["picture"] = b"<html>404</html>"
    (folder / "train.bson").write_bytes(b"".join(map(bson.encode, documents)))
    return shard_job.run(
        ShardConfig(
            inputs=(str(folder / "train.bson"),),
            output=str(folder / "shards"),
            categories=str(folder / "names.csv"),
            validation_fraction=0.4,
        )
    )


@pytest.fixture(scope="module")
def hostile_run(trained_run: Run, hostile_data: Manifest) -> Run:
    return replace(trained_run, tree=hostile_data.taxonomy())


@pytest.fixture(scope="module")
def page(hostile_run: Run, hostile_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    reporting.write(str(path), hostile_run, hostile_data)
    return path.read_text(encoding="utf-8")


def test_no_name_becomes_markup(page: str, hostile_run: Run) -> None:
    found = _Page(page)
    assert found.tags.count("script") == 2  # The page's own.
    assert found.handlers == []
    assert "alert(" not in "".join(found.addresses)
    for text in ('<script>alert("1")</script>', "<img src=x onerror=alert(2)>"):
        assert text in found.text
        assert text not in page
    assert hostile_run.tree.num_categories == 12


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    found = _Page(page)
    assert [address for address in found.addresses if not address.startswith("data:")] == []
    assert "http" not in page.replace("</html>", "").replace("<html", "").replace(found.text, "")
    assert found.tags.count("img") > 10
    assert page.lstrip().startswith("<!doctype html>")


def test_the_report_says_what_evaluation_says(
    hostile_run: Run, hostile_data: Manifest, page: str, tmp_path: Path
) -> None:
    report = reporting.write(str(tmp_path / "again.html"), hostile_run, hostile_data)
    expected = evaluator.evaluate(hostile_run, hostile_run.trained()[0], hostile_data)
    assert report.products == expected["all"]["products"]
    assert report.accuracy == pytest.approx(expected["all"]["product_accuracy"][-1])
    for level in range(3):
        assert f"{100 * expected['all']['product_accuracy'][level]:.2f}%" in page
        assert f"{100 * expected['never_seen']['product_accuracy'][level]:.2f}%" in page
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page  # The same run gives the same page.


def test_unreadable_images_are_listed_with_what_is_wrong(page: str, hostile_data: Manifest, catalogue: Path) -> None:
    held_out = set(hostile_data.product_ids(schema.VALIDATION).tolist())
    documents = bson.decode_all((catalogue / synthetic_catalogue.TRAIN).read_bytes())
    broken = [document for document in documents[::10] if document["_id"] in held_out]
    assert broken
    listed = page[page.index("Unreadable images") :]
    assert f"{len(broken)} images of {len(broken)} products" in listed
    for document in broken:
        assert f'<td class="id">{document["_id"]}</td><td class="id">1 of {len(document["imgs"])}</td>' in listed
    assert "neither a sound JPEG nor a PNG, GIF or BMP (16 bytes)" in listed


def test_data_of_another_tree_are_refused(trained_run: Run, hostile_data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another category tree"):
        reporting.write(str(tmp_path / "report.html"), trained_run, hostile_data)
    assert not (tmp_path / "report.html").exists()


def test_what_cannot_be_reported_on_is_refused_in_a_line(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere holds no run" in refusal("export.report", "--run", "nowhere", "--data", "d", cwd=tmp_path)
