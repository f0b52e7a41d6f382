"""Tests of the folder of a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import TrainConfig
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.selection import SelectionConfig
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_tree


def _sharded(catalogue: Path, folder: Path, **options: Any) -> Manifest:
    inputs = (str(catalogue / synthetic_catalogue.TRAIN),)
    return shard_job.run(ShardConfig(inputs=inputs, output=str(folder / "shards"), **options))


def test_a_run_is_loaded_as_it_was_begun(tmp_path: Path, train_config: TrainConfig, train_data: Manifest) -> None:
    begun = Run.begin(str(tmp_path), train_config, train_data)
    loaded = Run.load(str(tmp_path))
    assert loaded.config == train_config
    assert loaded.tree == begun.tree == train_data.taxonomy()
    assert loaded.train_products.tolist() == begun.train_products.tolist()


def test_products_of_train_are_counted_by_category(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    run = Run.begin(str(tmp_path), train_config, train_data)
    shards = range(len(train_data.shards(schema.TRAIN)))
    ids = np.concatenate([train_data.records(schema.TRAIN, shard).category_id for shard in shards])
    assert run.train_products.tolist() == [np.count_nonzero(ids == category) for category in run.tree.category_ids]


def test_the_prior_follows_the_counts_and_leaves_every_category_possible(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    run = Run.begin(str(tmp_path), train_config, train_data)
    counts = np.arange(12)
    prior = replace(run, train_products=counts).prior
    assert prior.sum() == pytest.approx(1)
    assert np.all(prior > 0)
    assert np.all(np.diff(prior) > 0)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"optimization.learning_rate": 0.5}, "optimization.learning_rate was 0.003 and is 0.5"),
        ({"stages": "all:3"}, "stages was 'head:1,all:1' and is 'all:3'"),
        ({"model.dropout": 0.9}, "model.dropout was 0.3 and is 0.9"),
        ({"input.batch_size": 7, "input.seed": 6}, "input.batch_size was 64 and is 7, input.seed was 5 and is 6"),
    ],
)
def test_changed_options_are_refused_with_the_difference(
    changes: dict[str, Any], shown: str, tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    Run.begin(str(tmp_path), train_config, train_data)
    changed = train_config
    for name, value in changes.items():
        group, _, inner = name.rpartition(".")
        inside = {group: replace(getattr(changed, group), **{inner: value})} if group else {inner: value}
        changed = replace(changed, **inside)
    with pytest.raises(UserError) as caught:
        Run.begin(str(tmp_path), changed, train_data)
    assert f"{tmp_path} holds a run with other options: {shown}." in str(caught.value)
    assert Run.load(str(tmp_path)).config == train_config


def test_the_interval_of_checkpoints_may_change(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    Run.begin(str(tmp_path), train_config, train_data)
    changed = replace(train_config, checkpoint_seconds=1.5)
    assert Run.begin(str(tmp_path), changed, train_data).config == changed


def test_other_data_are_refused(
    tmp_path: Path, catalogue: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    other = _sharded(
        catalogue, tmp_path, categories=str(catalogue / synthetic_catalogue.CATEGORIES), validation_fraction=0.3
    )
    run = str(tmp_path / "run")
    Run.begin(run, train_config, train_data)
    with pytest.raises(UserError, match="a run on other data") as caught:
        Run.begin(run, train_config, other)
    assert train_data.folder in str(caught.value)


def test_the_same_data_in_another_folder_are_taken(
    tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    run = str(tmp_path / "run")
    begun = Run.begin(run, train_config, train_data)
    (tmp_path / "moved").symlink_to(train_data.folder)
    again = Run.begin(run, train_config, Manifest.load(str(tmp_path / "moved")))
    assert again.config == begun.config


def test_data_of_another_tree_are_refused(
    tmp_path: Path, catalogue: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    flat = _sharded(catalogue, tmp_path)
    run = Run.begin(str(tmp_path / "run"), train_config, train_data)
    run.check_tree(train_data)
    with pytest.raises(UserError, match="another category tree") as caught:
        run.check_tree(flat)
    assert flat.folder in str(caught.value)


def test_data_without_a_train_split_are_refused(tmp_path: Path, train_config: TrainConfig, test_data: Manifest) -> None:
    with pytest.raises(UserError, match="has no train split"):
        Run.begin(str(tmp_path / "run"), train_config, test_data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_a_run_is_refused(made: bool, tmp_path: Path) -> None:
    folder = tmp_path if made else tmp_path / "absent"
    with pytest.raises(UserError, match="holds no run"):
        Run.load(str(folder))


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path, train_config: TrainConfig, train_data: Manifest) -> None:
    run = Run.begin(str(tmp_path), train_config, train_data)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        run.trained()


def test_a_trained_run_has_as_many_logits_as_categories(trained_run: Run) -> None:
    classifier, path = trained_run.trained()
    assert classifier.output_shape == (None, synthetic_tree.make(12, seed=0).num_categories)
    assert Path(path).parent == Path(trained_run.checkpoints)


@pytest.mark.parametrize(
    "options", [{"batch_size": 10_000}, {"selection": SelectionConfig(only_categories="12345678")}]
)
def test_nothing_is_written_of_a_run_that_cannot_be_trained(
    options: dict[str, Any], tmp_path: Path, train_config: TrainConfig, train_data: Manifest
) -> None:
    config = replace(train_config, input=replace(train_config.input, **options))
    with pytest.raises(UserError, match=r"--(batch_size|only_categories)"):
        Run.begin(str(tmp_path), config, train_data)
    assert list(tmp_path.iterdir()) == []
