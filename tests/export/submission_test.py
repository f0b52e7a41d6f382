"""Tests of merging parts into a submission."""

from pathlib import Path

import numpy as np
import pytest

from export import predictor, submission
from export.predictor import Part
from model.run import Run
from pipeline import schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_pictures


def _documents(folder: Path, pictures: dict[int, list[bytes]]) -> Manifest:
    """Returns a test set of products, by id."""
    path = folder / "few.bson"
    path.write_bytes(b"".join(synthetic_catalogue.document(number, own, None) for number, own in pictures.items()))
    return shard_job.run(ShardConfig(inputs=(str(path),), output=str(folder / "few-shards")))


def _part(folder: Path, name: str, rows: list[tuple[int, int, int]]) -> str:
    path = str(folder / f"{name}.npz")
    product_id, category_id, num_images = np.array(rows, np.int64).reshape(-1, 3).T
    predictor.save_part(path, Part(product_id, category_id, num_images.astype(np.int32)))
    return path


def test_every_product_stands_once_in_the_order_of_ids(trained_run: Run, test_data: Manifest, tmp_path: Path) -> None:
    parts = predictor.predict(trained_run, test_data, split=schema.TEST, folder=str(tmp_path / "parts"))
    path = tmp_path / "submission.csv"
    written = submission.write(str(path), parts, test_data, split=schema.TEST)
    header, *rows = path.read_text().splitlines()
    assert header == "_id,category_id"
    ids = [int(row.split(",")[0]) for row in rows]
    assert ids == sorted(test_data.product_ids(schema.TEST).tolist())
    assert {int(row.split(",")[1]) for row in rows} <= set(trained_run.tree.category_ids)
    assert (written.products, written.unreadable, written.unreadable_products) == (80, None, 0)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["parts", "submission.csv"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_bytes_do_not_depend_on_the_order_of_the_parts(order: tuple[int, int], tmp_path: Path) -> None:
    data = _documents(tmp_path, {5: [b""], -3: [b""], 2_000_000_000: [b""]})
    parts = [_part(tmp_path, "a", [(2_000_000_000, 7, 1), (-3, 8, 1)]), _part(tmp_path, "b", [(5, 9, 1)])]
    path = tmp_path / "out" / "submission.csv"
    submission.write(str(path), [parts[number] for number in order], data, split=schema.TEST)
    assert path.read_bytes() == b"_id,category_id\n-3,8\n5,9\n2000000000,7\n"


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([(1, 7, 1)], "1 are missing ([2])"),
        ([], "2 are missing ([1, 2])"),
        ([(1, 7, 1), (2, 7, 1), (3, 7, 1)], "1 are not in it"),
        ([(1, 7, 1), (2, 7, 1), (2, 7, 1)], "others repeat"),
        ([(1, 7, 1), (3, 7, 1)], "1 are missing ([2]), 1 are not in it"),
    ],
)
def test_parts_that_are_not_every_product_once_are_refused(
    rows: list[tuple[int, int, int]], shown: str, tmp_path: Path
) -> None:
    data = _documents(tmp_path, {1: [b""], 2: [b""]})
    path = tmp_path / "submission.csv"
    with pytest.raises(UserError) as caught:
        submission.write(str(path), [_part(tmp_path, "a", rows)], data, split=schema.TEST)
    assert shown in str(caught.value)
    assert not path.exists()


def test_products_without_a_readable_image_are_answered_from_the_prior_and_listed(
    trained_run: Run, tmp_path: Path
) -> None:
    picture = synthetic_pictures.draw(trained_run.tree.paths[0], product=0, view=0, seed=0)
    data = _documents(
        tmp_path, {9: [b"broken", picture[:99]], 4: [picture], 6: [], 2: [b""], 8: [b"broken", picture, b""]}
    )
    parts = predictor.predict(trained_run, data, split=schema.TEST, folder=str(tmp_path / "parts"))
    path = tmp_path / "submission.csv"
    written = submission.write(str(path), parts, data, split=schema.TEST)
    rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
    answers = {int(product_id): int(category_id) for product_id, category_id in rows}
    frequent = trained_run.tree.category_ids[int(np.argmax(trained_run.train_products))]
    assert list(answers) == [2, 4, 6, 8, 9]
    assert [answers[number] for number in (2, 6, 9)] == [frequent] * 3
    assert answers[4] == answers[8]
    assert written.unreadable_products == 3
    assert written.unreadable == str(tmp_path / "submission-unreadable.txt")
    assert Path(written.unreadable).read_text() == "2\n6\n9\n"


def test_a_list_of_an_earlier_prediction_does_not_outlive_it(tmp_path: Path) -> None:
    data = _documents(tmp_path, {1: [b""], 2: [b""]})
    path = str(tmp_path / "submission.csv")
    listed = tmp_path / "submission-unreadable.txt"
    for images, expected in ((0, True), (1, False)):
        part = _part(tmp_path, "a", [(1, 7, images), (2, 7, 1)])
        submission.write(path, [part], data, split=schema.TEST)
        assert listed.exists() == expected
