"""Tests of writing a submission."""

from pathlib import Path

import numpy as np
import pytest

from export import submission
from export.submission import Best, Submission
from pipeline import taxonomy
from pipeline.console import UserError

_TREE = taxonomy.flat([70, 80, 90])


def _best(*rows: tuple[int, int, int]) -> Best:
    product_id, labels, num_images = np.array(rows, np.int64).reshape(-1, 3).T
    return Best(product_id, labels.astype(np.uint8), num_images.astype(np.int32))


def _write(folder: Path, found: list[Best], products: int) -> Submission:
    return submission.write(str(folder / "submission.csv"), found, _TREE, products=products)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_bytes_do_not_depend_on_the_order_of_the_parts(order: tuple[int, int], tmp_path: Path) -> None:
    parts = [_best((2_000_000_000, 0, 1), (-3, 1, 1)), _best((5, 2, 1))]
    written = _write(tmp_path, [parts[number] for number in order], 3)
    expected = b"_id,category_id\n-3,80\n5,90\n2000000000,70\n"
    assert (tmp_path / "submission.csv").read_bytes() == expected
    assert written == Submission(str(tmp_path / "submission.csv"), 3, None, 0)


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([(1, 0, 1)], "answers for 1 products"),
        ([], "answers for 0 products"),
        ([(1, 0, 1), (2, 0, 1), (3, 0, 1)], "expected 2"),
        ([(2, 0, 1), (2, 1, 1)], "product 2 stands in the answers twice"),
    ],
)
def test_what_is_not_every_product_once_is_refused(
    rows: list[tuple[int, int, int]], shown: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        _write(tmp_path, [_best(*rows)], 2)
    assert shown in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_product_that_repeats_after_many_rows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_ROWS_PER_WRITE", 2)
    with pytest.raises(UserError, match="product 4 stands"):
        _write(tmp_path, [_best((1, 0, 1), (4, 0, 1), (4, 0, 1))], 3)
    assert _write(tmp_path, [_best((1, 0, 1), (4, 0, 1), (5, 0, 1))], 3).products == 3


def test_products_without_a_readable_image_are_listed_in_order(tmp_path: Path) -> None:
    written = _write(tmp_path, [_best((9, 0, 0), (4, 1, 2)), _best((2, 0, 0))], 3)
    assert written.unreadable == str(tmp_path / "submission-unreadable.txt")
    assert Path(written.unreadable).read_text() == "2\n9\n"
    assert written.summary().startswith("2 products have no readable image")


def test_a_list_of_an_earlier_prediction_does_not_outlive_it(tmp_path: Path) -> None:
    listed = tmp_path / "submission-unreadable.txt"
    for images, expected in ((0, True), (1, False)):
        _write(tmp_path, [_best((1, 0, images), (2, 0, 1))], 2)
        assert listed.exists() == expected
