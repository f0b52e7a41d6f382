"""Tests of ensembles of score stores, from folders to the submission and what each member adds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from export import combine, contribution, ensembling, scores
from export.ensembling import EnsembleConfig
from export.scores import Part, ScoreStore
from pipeline import files, taxonomy
from pipeline.console import UserError

_TREE = taxonomy.flat([70, 80, 90, 100])
_PRODUCTS = 400


def _store(
    folder: Path, name: str, *, skill: float, truth: bool, seed: int = 0, changed: Mapping[str, object] | None = None
) -> str:
    """Makes a store of a member that ranks the true category first about as often as its skill says."""
    random = np.random.default_rng(seed)
    content = {"runs": [name], "data": f"data{truth}", "split": str(truth), "records": [300, 100]} | dict(changed or {})
    store = ScoreStore.begin(str(folder / f"{name}-{truth}"), content, _TREE)
    right = np.arange(_PRODUCTS) * 7 % 4
    logits = random.normal(size=(_PRODUCTS, 4)) + skill * np.eye(4)[right]
    full = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.argsort(-full, axis=1)[:, :3]
    kept = scores.compact(labels, np.take_along_axis(full, labels, axis=1), 4)
    category = np.array(_TREE.category_ids)[right] if truth else np.full(_PRODUCTS, -1)
    for shard, rows in enumerate((slice(300), slice(300, 400))):
        ids = np.arange(_PRODUCTS)[rows]
        store.write(shard, Part(ids, category[rows], np.ones(len(ids), np.int32), *(column[rows] for column in kept)))
    files.write(str(folder / f"{name}-{truth}" / "_SUCCESS"), [b""])
    return store.folder


def _members(folder: Path, truth: bool) -> tuple[str, ...]:
    skills = {"good": 3.0, "fair": 2.0, "noise": 0.0}
    return tuple(
        _store(folder, name, skill=skill, truth=truth, seed=number)
        for number, (name, skill) in enumerate(skills.items())
    )


def _answers(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)[:, 1]


@pytest.mark.parametrize("method", combine.METHODS)
def test_an_ensemble_becomes_a_submission(method: str, tmp_path: Path) -> None:
    tests, validation = _members(tmp_path, False), _members(tmp_path, True)
    path = tmp_path / "submission.csv"
    labels = validation if method == combine.FITTED else ()
    written = ensembling.run(EnsembleConfig(scores=tests, labels=labels, output=str(path), method=method))
    assert written.products == _PRODUCTS
    truth = np.array(_TREE.category_ids)[np.arange(_PRODUCTS) * 7 % 4]
    assert (_answers(path) == truth).mean() > 0.7


def test_what_each_member_adds_is_measured_on_validation(tmp_path: Path) -> None:
    stores = [ScoreStore.load(folder) for folder in _members(tmp_path, True)]
    measured = contribution.measure(stores, method=combine.FITTED)
    assert measured.products == _PRODUCTS
    assert sum(measured.weights) == pytest.approx(1)
    good, fair, noise = measured.weights
    assert good > fair > noise
    assert noise < 0.05
    assert measured.alone[0] > measured.alone[1] > measured.alone[2]
    assert measured.without[0] < measured.together
    assert measured.without[2] == pytest.approx(measured.together, abs=0.02)
    assert measured.methods[combine.FITTED] == measured.together
    table = measured.table(["good", "fair", "noise"])
    assert [line.split()[0] for line in table.splitlines()] == ["member", "good", "fair", "noise", "together"]


def test_a_member_by_itself_scores_what_its_first_labels_do(tmp_path: Path) -> None:
    store = ScoreStore.load(_store(tmp_path, "alone", skill=1.0, truth=True))
    right = sum(
        int((np.array(_TREE.category_ids)[part.labels[:, 0]] == part.category_id).sum()) for part in store.parts()
    )
    measured = contribution.measure([store], method=combine.MEAN)
    assert measured.alone == [measured.together] == [right / _PRODUCTS]


def test_fitted_weights_are_likelier_than_any_others_nearby() -> None:
    chances = np.random.default_rng(1).uniform(0.01, 1, (200, 3)) ** [1, 2, 4]
    weights = np.array(contribution.fit(chances))
    best = np.log(chances @ weights).sum()
    for moved in np.random.default_rng(2).dirichlet(np.ones(3), 50):
        assert np.log(chances @ (0.99 * weights + 0.01 * moved)).sum() <= best + 1e-6


def test_weights_without_validation_are_refused() -> None:
    with pytest.raises(UserError, match="--method=fitted weighs members by validation"):
        EnsembleConfig(scores=("a", "b"), method=combine.FITTED)
    with pytest.raises(UserError, match="--labels names 1 folders and --scores 2"):
        EnsembleConfig(scores=("a", "b"), labels=("c",))


@pytest.mark.parametrize(
    ("changed", "shown"), [({"data": "other"}, "another data"), ({"split": "train"}, "another split")]
)
def test_scores_of_other_products_are_refused(changed: dict[str, str], shown: str, tmp_path: Path) -> None:
    pair = (
        _store(tmp_path, "a", skill=1, truth=False),
        _store(tmp_path, "b", skill=1, truth=False, changed=changed),
    )
    with pytest.raises(UserError, match=shown):
        ensembling.run(EnsembleConfig(scores=pair, output=str(tmp_path / "s.csv")))
    assert not (tmp_path / "s.csv").exists()


def test_labels_of_other_members_or_without_categories_are_refused(tmp_path: Path) -> None:
    one, two = (_store(tmp_path, name, skill=1, truth=False) for name in "ab")
    validation = _store(tmp_path, "b", skill=1, truth=True)
    output = str(tmp_path / "s.csv")
    with pytest.raises(UserError, match="have other runs"):
        ensembling.run(EnsembleConfig(scores=(one,), labels=(validation,), output=output))
    with pytest.raises(UserError, match="products without a category"):
        ensembling.run(EnsembleConfig(scores=(two,), labels=(two,), output=output))
