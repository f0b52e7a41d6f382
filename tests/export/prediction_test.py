"""Tests of predicting a split from runs to the submission."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import prediction
from export.predictor import PredictConfig
from export.scores import ScoreStore
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_pictures

_Options = Callable[..., PredictConfig]


@pytest.fixture(scope="module")
def undisturbed(options: _Options, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The submission of a prediction that nothing disturbed."""
    path = tmp_path_factory.mktemp("undisturbed") / "submission.csv"
    prediction.run(options(output=str(path)))
    return path.read_bytes()


class _Killed(BaseException):
    """Stands for a kill: nothing of the prediction runs after it."""


def _killed_after(parts: int, config: PredictConfig) -> None:
    """Predicts, and is killed when so many parts are written."""
    written = 0
    write = ScoreStore.write

    def counted(store: ScoreStore, *arguments: Any) -> None:
        nonlocal written
        if written == parts:
            raise _Killed
        write(store, *arguments)
        written += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoreStore, "write", counted)
        with pytest.raises(_Killed):
            prediction.run(config)
    assert not os.path.exists(config.output)


@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1, exclude_max=True), st.booleans())
def test_any_batch_size_shard_count_and_kill_point_give_the_same_csv(
    undisturbed: bytes,
    options: _Options,
    many_shards: Manifest,
    test_data: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
    first: int,
    second: int,
    when: float,
    many: bool,
) -> None:
    path = tmp_path_factory.mktemp("disturbed") / "submission.csv"
    data = many_shards if many else test_data
    changed = {"data": data.folder, "output": str(path)}
    _killed_after(int(when * len(data.shards(schema.TEST))), options(batch_size=first, **changed))
    prediction.run(options(batch_size=second, **changed))
    assert path.read_bytes() == undisturbed
    assert os.listdir(path.parent) == ["submission.csv"]


def test_a_rerun_at_the_same_batch_size_ends_in_the_same_bits(options: _Options, tmp_path: Path) -> None:
    stores = []
    for name in ("undisturbed", "killed"):
        config = options(scores=str(tmp_path / name), output=str(tmp_path / "submission.csv"), top_k=12)
        if name == "killed":
            os.unlink(config.output)
            _killed_after(1, config)
        prediction.run(config)
        stores.append(ScoreStore.load(str(tmp_path / name)))
    for mine, other in zip(stores[0].parts(), stores[1].parts(), strict=True):
        for one, two in zip(mine, other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_finished_parts_are_kept(options: _Options, tmp_path: Path) -> None:
    config = options(output=str(tmp_path / "submission.csv"))
    _killed_after(1, config)
    [kept] = (tmp_path / "submission.csv.parts" / "parts").iterdir()
    before = kept.stat().st_mtime_ns
    _killed_after(0, config)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"views": ("center", "flip")}, "views was center and is center,flip"),
        ({"aggregate": "max"}, "aggregate was mean and is max"),
        ({"scores": "kept"}, None),
    ],
)
def test_changed_options_are_refused_with_the_difference(
    changed: dict[str, Any], shown: str | None, options: _Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _killed_after(0, options())
    if shown is None:  # Kept elsewhere, so it disturbs nothing.
        assert prediction.run(options(**changed)).products == 80
        return
    with pytest.raises(UserError) as caught:
        prediction.run(options(**changed))
    assert shown in str(caught.value)


def test_other_data_and_another_run_are_refused(
    options: _Options, train_data: Manifest, smaller_run: str, tmp_path: Path
) -> None:
    output = str(tmp_path / "submission.csv")
    _killed_after(0, options(output=output))
    with pytest.raises(UserError, match=r"data was .* and is .*; split was test and is validation"):
        prediction.run(options(output=output, data=train_data.folder, split=schema.VALIDATION))
    with pytest.raises(UserError, match=r"runs was .*step-.* and is .*step-000000000"):
        prediction.run(options(output=output, runs=(smaller_run,)))


def test_a_run_averaged_with_itself_answers_the_same(
    options: _Options, trained_run: Run, same_run: str, undisturbed: bytes, tmp_path: Path
) -> None:
    output = str(tmp_path / "submission.csv")
    runs = (trained_run.folder, same_run)
    prediction.run(options(runs=runs, output=output, scores=str(tmp_path / "scores")))
    assert Path(output).read_bytes() == undisturbed
    stores = [ScoreStore.load(str(tmp_path / "scores" / os.path.basename(folder))) for folder in runs]
    for store, folder in zip(stores, runs, strict=True):
        assert store.content["runs"][0]["checkpoint"].startswith(folder)
    np.testing.assert_array_equal(stores[0].read(0).labels, stores[1].read(0).labels)


def test_runs_of_other_sizes_are_averaged_one_after_another(
    options: _Options, trained_run: Run, other_size_run: str, tmp_path: Path
) -> None:
    output, kept = str(tmp_path / "submission.csv"), tmp_path / "scores"
    runs = (trained_run.folder, other_size_run)
    prediction.run(options(runs=runs, output=output, scores=str(kept)))
    one_by_one = Path(output).read_bytes()
    assert sorted(os.listdir(kept)) == sorted(map(os.path.basename, runs))
    prediction.run(options(runs=runs, output=output))
    assert Path(output).read_bytes() == one_by_one
    assert sorted(os.listdir(tmp_path)) == ["scores", "submission.csv"]


def test_validation_products_are_kept_with_their_categories(
    options: _Options, train_data: Manifest, tmp_path: Path
) -> None:
    config = options(
        data=train_data.folder, split=schema.VALIDATION, scores=str(tmp_path / "s"), output=str(tmp_path / "v.csv")
    )
    prediction.run(config)
    found = np.concatenate([part.category_id for part in ScoreStore.load(str(tmp_path / "s")).parts()])
    numbers = range(len(train_data.shards(schema.VALIDATION)))
    expected = np.concatenate([train_data.records(schema.VALIDATION, number).category_id for number in numbers])
    np.testing.assert_array_equal(found, expected)
    assert schema.NO_CATEGORY not in found


def test_products_without_a_readable_image_are_answered_from_the_prior_and_listed(
    trained_run: Run, options: _Options, tmp_path: Path
) -> None:
    picture = synthetic_pictures.draw(trained_run.tree.paths[0], product=0, view=0, seed=0)
    pictures = {9: [b"broken", picture[:99]], 4: [picture], 6: [], 2: [b""], 8: [b"broken", picture, b""]}
    content = b"".join(synthetic_catalogue.document(number, own, None) for number, own in pictures.items())
    (tmp_path / "few.bson").write_bytes(content)
    data = shard_job.run(ShardConfig(inputs=(str(tmp_path / "few.bson"),), output=str(tmp_path / "shards")))
    path = tmp_path / "submission.csv"
    written = prediction.run(options(data=data.folder, output=str(path)))
    rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
    answers = {int(product_id): int(category_id) for product_id, category_id in rows}
    frequent = trained_run.tree.category_ids[int(np.argmax(trained_run.train_products))]
    assert list(answers) == [2, 4, 6, 8, 9]
    assert [answers[number] for number in (2, 6, 9)] == [frequent] * 3
    assert answers[4] == answers[8]
    assert written.unreadable is not None
    assert Path(written.unreadable).read_text() == "2\n6\n9\n"
