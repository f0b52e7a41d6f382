"""Tests of score stores."""

from pathlib import Path

import numpy as np
import pytest

from export import scores
from export.scores import Part, ScoreStore
from pipeline import taxonomy
from pipeline.console import UserError

_TREE = taxonomy.flat([70, 80, 90])
_CONTENT = {"runs": [{"checkpoint": "a", "weights": "b"}], "records": [2, 1], "views": ["center"], "top_k": 2}


def _part(*product_ids: int) -> Part:
    count = len(product_ids)
    labels, probabilities = scores.compact(np.tile([2, 0], (count, 1)), np.full((count, 2), 0.4), 3)
    return Part(np.array(product_ids), np.full(count, -1), np.ones(count, np.int32), labels, probabilities)


def test_a_part_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = ScoreStore.begin(str(tmp_path / "s"), _CONTENT, _TREE)
    store.write(1, _part(7))
    assert store.missing() == [0]
    for mine, other in zip(store.read(1), _part(7), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    assert store.tree() == _TREE


@pytest.mark.parametrize(("categories", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65_537, "uint32")])
def test_labels_take_as_few_bytes_as_the_tree_allows(categories: int, dtype: str) -> None:
    labels = np.array([[categories - 1]], np.int32)
    compacted, _ = scores.compact(labels, np.ones((1, 1), np.float32), categories)
    assert compacted.dtype == dtype
    assert compacted.tolist() == labels.tolist()


def test_what_is_begun_again_with_the_same_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        store = ScoreStore.begin(str(tmp_path / "s"), _CONTENT, _TREE)
        store.write(0, _part(7, 8))
    assert store.missing() == [1]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"views": ["center", "flip"]}, "views was center and is center,flip"),
        ({"top_k": 5}, "top_k was 2 and is 5"),
        ({"runs": [{"checkpoint": "a", "weights": "c"}]}, "runs was a b and is a c"),
    ],
)
def test_answers_of_something_else_are_refused_with_the_difference(
    changed: dict[str, object], shown: str, tmp_path: Path
) -> None:
    ScoreStore.begin(str(tmp_path / "s"), _CONTENT, _TREE)
    with pytest.raises(UserError) as caught:
        ScoreStore.begin(str(tmp_path / "s"), _CONTENT | changed, _TREE)
    assert shown in str(caught.value)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        ScoreStore.begin(str(tmp_path), _CONTENT, _TREE)


def test_an_unfinished_store_is_not_read(tmp_path: Path) -> None:
    ScoreStore.begin(str(tmp_path / "s"), _CONTENT, _TREE)
    with pytest.raises(UserError, match="holds no finished scores"):
        ScoreStore.load(str(tmp_path / "s"))


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    store = ScoreStore.begin(str(tmp_path / "s"), _CONTENT | {"format": "old"}, _TREE)
    (tmp_path / "s" / "_SUCCESS").touch()
    with pytest.raises(UserError, match="in the format old"):
        ScoreStore.load(store.folder)
