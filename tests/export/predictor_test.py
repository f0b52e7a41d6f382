"""Tests of predicting shards."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.calibration import Calibration
from export.predictor import PredictConfig, Predictor, share_a_pass
from export.scores import Part
from model.run import Run
from model.scoring import ProductScorer, Scores
from pipeline import schema, shard_job, taxonomy
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.product_batches import ProductBatch
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue

_Options = Callable[..., PredictConfig]


def _parts(config: PredictConfig, tell: Callable[[int], object] = int) -> list[Part]:
    predictor = Predictor(config)
    shards = range(len(predictor.data.shards(config.split)))
    return [answers.together for _, answers in predictor.predict(shards, tell)]


def _answers(parts: list[Part]) -> dict[int, int]:
    ids, labels = (
        np.concatenate(column) for column in ([p.product_id for p in parts], [p.labels[:, 0] for p in parts])
    )
    return dict(zip(ids.tolist(), labels.tolist(), strict=True))


def test_each_part_holds_the_products_of_its_shard_in_order(options: _Options, test_data: Manifest) -> None:
    parts = _parts(options(scores="kept", top_k=3))
    assert len(parts) == len(test_data.shards(schema.TEST)) > 1
    for number, part in enumerate(parts):
        records = test_data.records(schema.TEST, number)
        np.testing.assert_array_equal(part.product_id, records.product_id)
        np.testing.assert_array_equal(part.num_images, records.num_images)
        np.testing.assert_array_equal(part.category_id, records.category_id)
        assert part.labels.shape == part.probabilities.shape == (len(records.product_id), 3)
        assert part.labels.dtype == np.uint8
        assert part.probabilities.dtype == np.float16
        assert (np.diff(part.probabilities, axis=1) <= 0).all()


def test_the_submission_alone_needs_one_category(options: _Options) -> None:
    assert all(part.labels.shape[1] == 1 for part in _parts(options(top_k=3)))


def test_a_temperature_that_was_fitted_makes_probabilities_of_its_kind(
    options: _Options, trained_run: Run, tmp_path: Path
) -> None:
    run = replace(trained_run, folder=str(tmp_path / "calibrated"))
    shutil.copytree(trained_run.folder, run.folder)
    _, checkpoint = run.trained()
    Calibration(0.5, os.path.basename(checkpoint), "data", 10, (1.0, 0.9), (0.2, 0.1)).save(run)
    sure, unsure = (
        Predictor(options(runs=(run.folder,), scores="kept", calibrated=calibrated)) for calibrated in (True, False)
    )
    assert [item.identities[0]["temperature"] for item in (sure, unsure)] == [0.5, 1.0]
    (_, one), (_, other) = (next(iter(item.predict([0]))) for item in (sure, unsure))
    one_image = one.together.num_images == 1
    np.testing.assert_array_equal(one.together.labels[one_image, 0], other.together.labels[one_image, 0])
    assert (one.together.probabilities[one_image, 0] > other.together.probabilities[one_image, 0]).all()


class ResourceExhaustedError(Exception):
    """Stands for that of TensorFlow."""


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int, after: int = 0) -> list[int]:
    """Has scoring fail above some number of images, after some batches; returns the sizes that went well."""
    sizes: list[int] = []
    score = ProductScorer.score

    def limited(scorer: ProductScorer, batch: ProductBatch) -> Scores:
        if len(batch.images) > most and len(sizes) >= after:
            raise ResourceExhaustedError("OOM when allocating tensor")
        sizes.append(len(batch.images))
        return score(scorer, batch)

    monkeypatch.setattr(ProductScorer, "score", limited)
    return sizes


@pytest.mark.parametrize(("most", "after"), [(5, 0), (8, 3)])
def test_where_memory_runs_out_smaller_batches_give_the_same_answers(
    most: int, after: int, options: _Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = _answers(_parts(options()))
    sizes = _short_of_memory(monkeypatch, most, after)
    told: list[int] = []
    assert _answers(_parts(options(), told.append)) == expected
    assert sum(told) == len(expected)
    assert sizes[:after] == [16] * after
    assert set(sizes[after:]) == {4 if most == 5 else 8}
    assert "going on with batches of 8 images" in capsys.readouterr().out


def test_memory_that_does_not_suffice_for_one_image_ends_in_one_line(
    options: _Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    _short_of_memory(monkeypatch, 0)
    with pytest.raises(UserError, match="no memory even for one image at a time: OOM when"):
        _parts(options(batch_size=2))


def test_other_failures_are_not_taken_for_lack_of_memory(options: _Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Scores:
        raise ValueError("no such thing")

    monkeypatch.setattr(ProductScorer, "score", broken)
    with pytest.raises(ValueError, match="no such thing"):
        _parts(options())


def test_runs_of_one_decoded_size_share_a_pass(
    trained_run: Run, same_run: str, smaller_run: str, other_size_run: str
) -> None:
    assert share_a_pass([trained_run, Run.load(same_run), Run.load(smaller_run)])
    assert not share_a_pass([trained_run, Run.load(other_size_run)])


def test_each_run_of_a_pass_answers_as_by_itself(trained_run: Run, smaller_run: str, options: _Options) -> None:
    runs = (trained_run.folder, smaller_run)
    config = options(runs=runs, scores="kept", top_k=4)
    predictor = Predictor(config)
    [(_, together)] = predictor.predict([0])
    for folder, member in zip(runs, together.members, strict=True):
        alone = _parts(replace(config, runs=(folder,)))[0]
        np.testing.assert_array_equal(member.labels, alone.labels)
        np.testing.assert_allclose(member.probabilities, alone.probabilities, rtol=2e-3)


def test_a_damaged_shard_is_named(options: _Options, test_data: Manifest, tmp_path: Path) -> None:
    shutil.copytree(test_data.folder, tmp_path / "shards")
    data = Manifest.load(str(tmp_path / "shards"))
    path = Path(data.path(data.shards(schema.TEST)[1].name))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"-00001-of-.* is damaged: image [0-9] of record [0-9]+"):
        _parts(options(data=data.folder))


def test_runs_of_other_categories_are_not_averaged(trained_run: Run) -> None:
    other = replace(trained_run, folder="other", tree=taxonomy.flat([1, 2]))
    with pytest.raises(UserError, match=r"other and .* have another category tree"):
        share_a_pass([trained_run, other])


def test_a_split_that_the_data_lack_is_refused(options: _Options, train_data: Manifest) -> None:
    with pytest.raises(UserError, match="has no test split, only train, validation"):
        Predictor(options(data=train_data.folder))


def test_a_run_without_a_checkpoint_is_refused(
    trained_run: Run, train_data: Manifest, options: _Options, tmp_path: Path
) -> None:
    run = Run.begin(str(tmp_path / "run"), trained_run.config, train_data)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        Predictor(options(runs=(run.folder,)))


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"top_k": 0}, "--top_k is 0"),
        ({"batch_size": 0}, "--batch_size is 0"),
        ({"views": ("left",)}, "--views is 'left'"),
        ({"aggregate": "sum"}, "--aggregate is 'sum'"),
        ({"runs": ("a", "a")}, "--run names a run twice"),
    ],
)
def test_impossible_options_are_refused_by_name(changed: dict[str, object], shown: str, options: _Options) -> None:
    with pytest.raises(UserError) as caught:
        options(**changed)
    assert shown in str(caught.value)


def test_the_answers_are_categories_of_the_run_whatever_tree_the_test_set_has(
    trained_run: Run, catalogue: Path, options: _Options, tmp_path: Path
) -> None:
    inputs = (str(catalogue / synthetic_catalogue.TEST),)
    bare = shard_job.run(ShardConfig(inputs=inputs, output=str(tmp_path / "shards")))
    assert bare.taxonomy().fingerprint != trained_run.tree.fingerprint
    assert _answers(_parts(options(data=bare.folder))) == _answers(_parts(options()))
