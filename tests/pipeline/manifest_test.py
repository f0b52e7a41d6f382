"""Tests of datasets as readers see them: several folders as one."""

from collections.abc import Sequence
from pathlib import Path

import bson
import numpy as np
import pytest

from pipeline import product_batches, shard_job
from pipeline.console import UserError
from pipeline.input import InputConfig, TrainInput
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_pictures

_CONFIG = InputConfig(batch_size=4, decode_size=36, image_size=36, shuffle_images=16)


def _folder(parent: Path, name: str, products: Sequence[int], **options: object) -> str:
    """Shards products of two categories; the image of a product is that of its id modulo 100."""
    documents = [
        {"_id": number, "imgs": [{"picture": _picture(number % 100)}], "category_id": number % 2} for number in products
    ]
    (parent / f"{name}.bson").write_bytes(b"".join(map(bson.encode, documents)))
    output = str(parent / name)
    shard_job.run(
        ShardConfig(inputs=(str(parent / f"{name}.bson"),), output=output, **options)  # type: ignore[arg-type]
    )
    return output


def _picture(number: int) -> bytes:
    return synthetic_pictures.draw(("A", "B"), product=number, view=0, seed=0)


def test_several_folders_are_read_as_one(tmp_path: Path) -> None:
    one = _folder(tmp_path, "one", range(20), validation_fraction=0.2)
    two = _folder(tmp_path, "two", range(50, 80), validation_fraction=0.2)
    both = Manifest.load(f"{one},{two}")
    parts = [Manifest.load(one), Manifest.load(two)]
    for split in ("train", "validation"):
        expected = np.concatenate([part.product_ids(split) for part in parts])
        np.testing.assert_array_equal(both.product_ids(split), expected)
    np.testing.assert_array_equal(
        both.products_per_category("train"), sum(part.products_per_category("train") for part in parts)
    )
    assert TrainInput(both, _CONFIG).steps == sum(len(part.product_ids("train")) for part in parts) // 4
    assert len(list(TrainInput(both, _CONFIG).epoch(0))) == TrainInput(both, _CONFIG).steps
    batches = product_batches.products(both, _CONFIG, split="validation")
    found = np.concatenate([batch.product_ids[: int(batch.products)] for batch in batches])
    np.testing.assert_array_equal(found, both.product_ids("validation"))


def test_validation_products_whose_image_another_folder_trains_on_are_seen(tmp_path: Path) -> None:
    one = _folder(tmp_path, "one", range(20), validation_fraction=0.2)
    two = _folder(tmp_path, "two", range(100, 120), validation_fraction=0.2)  # The same pictures under other ids.
    both = Manifest.load(f"{one},{two}")
    assert not len(Manifest.load(one).seen_in_train())
    trained_on = set((both.product_ids("train") % 100).tolist())
    expected = [number for number in sorted(both.product_ids("validation").tolist()) if number % 100 in trained_on]
    assert both.seen_in_train().tolist() == expected != []


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = _folder(tmp_path, "one", range(20))
    other_tree = _folder(tmp_path, "other", range(0, 40, 2))
    with pytest.raises(UserError, match="another category tree or other folds"):
        Manifest.load(f"{one},{other_tree}")
    with pytest.raises(UserError, match="the same products twice"):
        Manifest.load(f"{one},{one}")
