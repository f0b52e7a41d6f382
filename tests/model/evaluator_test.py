"""Tests of measuring a run on the validation split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import evaluator
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue


def _resized(run: Run, batch_size: int) -> Run:
    return replace(run, config=replace(run.config, input=replace(run.config.input, batch_size=batch_size)))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_every_validation_product_counts_once_at_any_batch_size(
    batch_size: int, trained_run: Run, train_data: Manifest
) -> None:
    classifier, _ = trained_run.trained()
    report = evaluator.evaluate(_resized(trained_run, batch_size), classifier, train_data)
    shards = train_data.shards(schema.VALIDATION)
    assert report["all"]["products"] == sum(shard.records for shard in shards)
    assert report["all"]["images"] == sum(shard.images for shard in shards)
    assert report["unreadable_products"] == []
    expected = evaluator.evaluate(trained_run, classifier, train_data)
    assert report == expected


def test_never_seen_are_the_products_that_share_no_image_with_train(trained_run: Run, train_data: Manifest) -> None:
    report = evaluator.evaluate(trained_run, trained_run.trained()[0], train_data)
    seen = train_data.seen_in_train()
    assert len(seen) > 0
    assert report["never_seen"]["products"] == report["all"]["products"] - len(seen)


def test_the_report_is_that_of_the_last_epoch(trained_run: Run, train_data: Manifest) -> None:
    report = evaluator.evaluate(trained_run, trained_run.trained()[0], train_data)
    last = Path(trained_run.metrics).read_text().splitlines()[-1]
    assert f'"product_accuracy": {report["all"]["product_accuracy"]}' in last


def test_unreadable_images_do_not_count_and_their_products_are_answered_from_the_prior(
    trained_run: Run, catalogue: Path, tmp_path: Path
) -> None:
    frequent = trained_run.tree.category_ids[int(np.argmax(trained_run.train_products))]
    rare = trained_run.tree.category_ids[int(np.argmin(trained_run.train_products))]
    documents = [
        synthetic_catalogue.document(number, [b"\xff\xd8no picture"] * 2, category)
        for number, category in enumerate([frequent] * 30 + [rare] * 10)
    ]
    (tmp_path / "broken.bson").write_bytes(b"".join(documents))
    data = shard_job.run(
        ShardConfig(
            inputs=(str(tmp_path / "broken.bson"),),
            output=str(tmp_path / "shards"),
            categories=str(catalogue / synthetic_catalogue.CATEGORIES),
            validation_fraction=0.5,
        )
    )
    report = evaluator.evaluate(trained_run, trained_run.trained()[0], data)
    assert report["all"]["images"] == 0
    assert report["all"]["image_accuracy"] == []
    assert report["all"]["products"] == 20
    assert report["all"]["product_accuracy"][-1] == 15 / 20
    assert sorted(report["unreadable_products"]) == sorted(data.product_ids(schema.VALIDATION).tolist())


def test_data_of_another_tree_are_refused(trained_run: Run, catalogue: Path, tmp_path: Path) -> None:
    inputs = (str(catalogue / synthetic_catalogue.TRAIN),)
    flat = shard_job.run(ShardConfig(inputs=inputs, output=str(tmp_path / "shards")))
    with pytest.raises(UserError, match="another category tree"):
        evaluator.evaluate(trained_run, trained_run.trained()[0], flat)


def test_data_without_a_validation_split_are_refused(trained_run: Run, test_data: Manifest) -> None:
    with pytest.raises(UserError, match="has no validation split"):
        evaluator.evaluate(trained_run, trained_run.trained()[0], test_data)


def test_the_most_frequent_share_is_that_of_train(trained_run: Run) -> None:
    run = replace(trained_run, train_products=np.array([1, 6, 3]))
    assert evaluator.most_frequent_share(run) == 0.6
