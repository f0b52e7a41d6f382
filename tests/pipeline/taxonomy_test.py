"""Tests of the category tree."""

from pathlib import Path

import pytest

from pipeline import taxonomy
from pipeline.console import UserError
from pipeline.taxonomy import Taxonomy


def test_nodes_of_one_name_under_different_parents_are_different() -> None:
    tree = Taxonomy((10, 20), (("A", "X", "leaf"), ("B", "X", "leaf")))
    assert tree.nodes(2) == (("A", "X"), ("B", "X"))
    assert tree.ancestors(2).tolist() == [0, 1]


def test_cdiscount_has_486_nodes_at_level_2_under_483_names(real_data) -> None:  # type: ignore[no-untyped-def]
    tree = taxonomy.from_csv(str(real_data("cdiscount/category_names.csv")))
    assert [len(tree.nodes(level)) for level in (1, 2, 3)] == [49, 486, 5270]
    assert len({path[-1] for path in tree.nodes(2)}) == 483


def test_a_saved_tree_is_read_back_the_same(tmp_path: Path) -> None:
    tree = Taxonomy((3, 1), (("À", "b"), ("c", '=d, "e"')))
    tree.save(str(tmp_path / "tree.json"))
    loaded = Taxonomy.load(str(tmp_path / "tree.json"))
    assert loaded == tree
    assert loaded.fingerprint == tree.fingerprint


def test_two_categories_of_one_path_stay_two(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("category_id,category_level1,category_level2\n1,A,B\n2,A,B\n", encoding="utf-8")
    assert taxonomy.from_csv(str(path)).paths == (("A", "B"), ("A", "B (2)"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "(none)"),
        ("id,name\n1,A\n", "id, name"),
        ("category_id,category_level1\nx,A\n", "line 2"),
        ("category_id,category_level1,category_level2\n1,A\n", "line 2"),
        ("category_id,category_level1\n1,A\n1,B\n", "twice"),
    ],
)
def test_a_csv_that_is_no_tree_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "names.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"names\.csv") as caught:
        taxonomy.from_csv(str(path))
    assert message in str(caught.value)
