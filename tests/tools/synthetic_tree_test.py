"""Tests of the made-up category tree."""

from pathlib import Path

import pytest

from pipeline import taxonomy
from pipeline.taxonomy import Taxonomy
from tools import synthetic_tree


def _levels(tree: Taxonomy) -> list[int]:
    return [len(tree.nodes(level)) for level in (1, 2, 3)]


@pytest.mark.parametrize("num_categories", [1, 2, 3, 12, 30, 500])
@pytest.mark.parametrize("seed", [0, 7, -1])
def test_a_tree_has_three_levels_and_the_categories_asked_for(num_categories: int, seed: int) -> None:
    tree = synthetic_tree.make(num_categories, seed)
    tops, middles, leaves = _levels(tree)
    assert tops <= middles <= leaves == num_categories
    assert len(set(tree.category_ids)) == num_categories


def test_a_tree_of_cdiscounts_size_has_its_proportions() -> None:
    tops, middles, leaves = _levels(synthetic_tree.make(5270, seed=0))
    assert (tops, leaves) == (49, 5270)
    assert 450 <= middles <= 560


def test_names_repeat_under_different_parents_and_some_nodes_have_one_child() -> None:
    tree = synthetic_tree.make(2000, seed=0)
    middles = tree.nodes(2)
    assert len({path[-1] for path in middles}) < len(middles)
    children = tree.ancestors(2).tolist()
    assert 1 in {children.count(label) for label in range(len(middles))}


def test_ids_are_in_no_order() -> None:
    ids = list(synthetic_tree.make(30, seed=0).category_ids)
    assert ids not in (sorted(ids), sorted(ids, reverse=True))
    assert max(ids) < 1 << 31


def test_the_seed_decides() -> None:
    assert synthetic_tree.make(30, seed=1) == synthetic_tree.make(30, seed=1)
    assert synthetic_tree.make(30, seed=1) != synthetic_tree.make(30, seed=2)


@pytest.mark.parametrize("num_categories", [1, 2, 7, 30])
def test_a_sample_keeps_ids_and_paths(num_categories: int) -> None:
    tree = synthetic_tree.make(30, seed=0)
    part = synthetic_tree.sample(tree, num_categories)
    assert part.num_categories == num_categories
    paths = dict(zip(tree.category_ids, tree.paths, strict=True))
    assert [paths[category] for category in part.category_ids] == list(part.paths)


def test_a_sample_of_everything_is_the_tree() -> None:
    tree = synthetic_tree.make(30, seed=0)
    assert synthetic_tree.sample(tree, 30) == tree


@pytest.mark.parametrize(
    "tree",
    [synthetic_tree.make(40, seed=3), Taxonomy((2, 1), (('a, "b"', "é"), ("=c", "d;e")))],
)
def test_the_csv_is_read_back_as_the_same_tree(tree: Taxonomy, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes(synthetic_tree.to_csv(tree))
    assert taxonomy.from_csv(str(path)) == tree
