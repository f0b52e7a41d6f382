"""Tests of predicting a split in parts."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import predictor
from export.predictor import Part
from model import checkpoint
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue


def _predict(run: Run, data: Manifest, folder: Path, split: str = schema.TEST) -> list[str]:
    return predictor.predict(run, data, split=split, folder=str(folder))


def _content(parts: list[str]) -> list[bytes]:
    return [Path(path).read_bytes() for path in parts]


def _resized(run: Run, batch_size: int) -> Run:
    return replace(run, config=replace(run.config, input=replace(run.config.input, batch_size=batch_size)))


def test_a_part_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = str(tmp_path / "part.npz")
    part = Part(np.array([3, 1]), np.array([70, 50]), np.array([0, 2], np.int32))
    predictor.save_part(path, part)
    for mine, other in zip(predictor.load_part(path), part, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def test_each_part_holds_the_products_of_its_shard_in_order(
    trained_run: Run, test_data: Manifest, tmp_path: Path
) -> None:
    parts = [predictor.load_part(path) for path in _predict(trained_run, test_data, tmp_path)]
    assert len(parts) == len(test_data.shards(schema.TEST))
    for number, part in enumerate(parts):
        records = test_data.records(schema.TEST, number)
        np.testing.assert_array_equal(part.product_id, records.product_id)
        np.testing.assert_array_equal(part.num_images, records.num_images)
        assert set(part.category_id.tolist()) <= set(trained_run.tree.category_ids)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_any_batch_size_gives_the_same_answers(
    batch_size: int, trained_run: Run, test_data: Manifest, tmp_path: Path
) -> None:
    expected = _content(_predict(trained_run, test_data, tmp_path / "as-trained"))
    assert _content(_predict(_resized(trained_run, batch_size), test_data, tmp_path / "resized")) == expected


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1)])
def test_an_interrupted_prediction_makes_the_missing_parts_only(
    lost: tuple[int, ...], trained_run: Run, test_data: Manifest, tmp_path: Path
) -> None:
    parts = _predict(trained_run, test_data, tmp_path)
    expected = _content(parts)
    for number in lost:
        os.unlink(parts[number])
    kept = {path: os.stat(path).st_mtime_ns for path in parts if os.path.exists(path)}
    assert _predict(trained_run, test_data, tmp_path) == parts
    assert _content(parts) == expected
    assert {path: os.stat(path).st_mtime_ns for path in kept} == kept


def test_parts_of_another_checkpoint_are_refused(trained_run: Run, test_data: Manifest, tmp_path: Path) -> None:
    shutil.copytree(trained_run.folder, tmp_path / "run")
    run = Run.load(str(tmp_path / "run"))
    _predict(run, test_data, tmp_path / "parts")
    newest = checkpoint.newest(run.checkpoints)
    assert newest is not None
    shutil.rmtree(newest)
    with pytest.raises(UserError, match="parts of another prediction"):
        _predict(run, test_data, tmp_path / "parts")


def test_parts_of_other_data_are_refused(
    trained_run: Run, train_data: Manifest, test_data: Manifest, tmp_path: Path
) -> None:
    _predict(trained_run, test_data, tmp_path)
    with pytest.raises(UserError, match="name another --output"):
        _predict(trained_run, train_data, tmp_path, split=schema.VALIDATION)


def test_a_split_that_the_data_lack_is_refused(trained_run: Run, train_data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no test split, only train, validation"):
        _predict(trained_run, train_data, tmp_path)


def test_a_run_without_a_checkpoint_is_refused(
    trained_run: Run, train_data: Manifest, test_data: Manifest, tmp_path: Path
) -> None:
    run = Run.begin(str(tmp_path / "run"), trained_run.config, train_data)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        _predict(run, test_data, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_the_answers_are_categories_of_the_run_whatever_tree_the_test_set_has(
    trained_run: Run, catalogue: Path, test_data: Manifest, tmp_path: Path
) -> None:
    inputs = (str(catalogue / synthetic_catalogue.TEST),)
    bare = shard_job.run(ShardConfig(inputs=inputs, output=str(tmp_path / "shards")))
    assert bare.taxonomy().fingerprint != trained_run.tree.fingerprint
    answers = []
    for data, name in ((bare, "bare"), (test_data, "with-tree")):
        parts = [predictor.load_part(path) for path in _predict(trained_run, data, tmp_path / name)]
        ids, categories = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
        answers.append(dict(zip(ids.tolist(), categories.tolist(), strict=True)))
    assert answers[0] == answers[1]
