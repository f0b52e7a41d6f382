"""Tests of augmentation."""

from typing import Any

import numpy as np
import pytest

from model.augment import Augmentation, AugmentConfig
from pipeline.console import UserError

_OFF = {"flip": False}
_EVERYTHING: dict[str, Any] = {
    "flip": True,
    "zoom": 0.3,
    "stretch": 0.2,
    "translate": 0.1,
    "rotate": 20.0,
    "colour": 0.2,
    "erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}


def _pictures(count: int = 8, size: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _augment(images: np.ndarray, *, step: int = 3, seed: int = 1, counts: Any = 9, **changes: Any) -> Any:
    augmentation = Augmentation(
        AugmentConfig(**(_OFF | changes)), seed=seed, train_products=np.broadcast_to(counts, (len(images),))
    )
    found, labels = augmentation(images, np.arange(len(images), dtype=np.int32), step)
    return np.asarray(found), np.asarray(labels)


def test_with_all_off_pictures_and_labels_stay() -> None:
    images, labels = _augment(_pictures())
    np.testing.assert_array_equal(images, _pictures())
    np.testing.assert_array_equal(labels, np.arange(8))


def test_the_same_seed_and_batch_give_the_same_and_others_do_not() -> None:
    images, labels = _augment(_pictures(), **_EVERYTHING)
    assert images.dtype == np.uint8
    for other, same in (
        (_augment(_pictures(), **_EVERYTHING), True),
        (_augment(_pictures(), step=4, **_EVERYTHING), False),
        (_augment(_pictures(), seed=2, **_EVERYTHING), False),
    ):
        assert np.array_equal(images, other[0]) == same
        assert np.array_equal(labels, other[1]) == same


def test_flip_mirrors_some_pictures_and_leaves_the_others() -> None:
    before, (after, _) = _pictures(32), _augment(_pictures(32), flip=True)
    mirrored = [np.array_equal(new, old[:, ::-1]) for old, new in zip(before, after, strict=True)]
    same = [np.array_equal(new, old) for old, new in zip(before, after, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 28


@pytest.mark.parametrize("change", [{"zoom": 0.5}, {"stretch": 0.5}, {"translate": 0.3}, {"rotate": 45.0}])
def test_geometry_moves_what_is_there_and_invents_nothing(change: dict[str, Any]) -> None:
    rows = np.broadcast_to(np.linspace(50, 200, 16), (8, 16, 16))
    before = np.repeat((rows + np.swapaxes(rows, 1, 2))[..., None] / 2, 3, -1).astype(np.uint8)
    after, _ = _augment(before, **change)
    assert all(not np.array_equal(new, old) for new, old in zip(after, before, strict=True))
    assert after.min() >= before.min() - 1
    assert after.max() <= before.max() + 1


def test_rotation_by_the_whole_range_keeps_the_middle() -> None:
    picture = np.zeros((8, 15, 15, 3), np.uint8)
    picture[:, 7, 7] = 200
    after, _ = _augment(picture, rotate=180.0)
    np.testing.assert_array_equal(after[:, 7, 7], picture[:, 7, 7])


def test_colour_changes_whole_pictures_and_keeps_grey_grey() -> None:
    grey = np.broadcast_to(np.arange(60, 140, 5, dtype=np.uint8)[None, :, None, None], (8, 16, 16, 3))
    after, _ = _augment(np.ascontiguousarray(grey), colour=0.3)
    assert np.ptp(after, axis=-1).max() <= 1
    assert len(np.unique(after[:, 0, 0, 0])) > 1


def test_erasing_paints_one_rectangle_in_that_share_of_the_pictures() -> None:
    before = np.full((64, 20, 20, 3), 77, np.uint8)
    after, _ = _augment(before, erase=0.5)
    painted = (after != before).any(-1)
    assert 16 < painted.any((1, 2)).sum() < 48
    for mask in painted[painted.any((1, 2))]:
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)


def test_mixup_blends_pictures_as_labels() -> None:
    before = np.repeat(np.array([0, 200], np.uint8), 4)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
    after, labels = _augment(before, mixup=1.0)
    own, other, share = labels.T
    np.testing.assert_array_equal(own, np.arange(8))
    np.testing.assert_array_equal(other, np.roll(np.arange(8), 1))
    assert share.max() <= 0.5
    expected = before[:, 0, 0, 0] * (1 - share) + np.roll(before[:, 0, 0, 0], 1) * share
    np.testing.assert_allclose(after[:, 0, 0, 0], expected, atol=0.51)


def test_cutmix_pastes_as_much_as_the_label_says() -> None:
    before = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.full((1, 20, 20, 3), 30, np.uint8)
    after, labels = _augment(before, cutmix=1.0)
    foreign = (after != before).any(-1).mean((1, 2))
    np.testing.assert_allclose(labels[:, 2], foreign, atol=1e-5)
    assert foreign.max() > 0.05
    assert np.isin(after, before).all()


def test_only_a_share_of_the_pictures_is_mixed() -> None:
    _, labels = _augment(_pictures(64), mixup=1.0, mixed=0.25)
    assert 4 < (labels[:, 2] > 0).sum() < 32


def test_with_a_limit_only_pictures_of_rare_categories_change() -> None:
    counts = np.array([3, 30] * 4)
    images, labels = _augment(_pictures(), counts=counts, augment_below=10, **_EVERYTHING)
    changed = [not np.array_equal(new, old) for new, old in zip(images, _pictures(), strict=True)]
    assert changed == [True, False] * 4
    assert not labels[1::2, 2].any()


@pytest.mark.parametrize("name", ["zoom", "colour", "erase", "mixup", "rotate"])
def test_a_negative_strength_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        AugmentConfig(**dict[str, Any]({name: -0.1}))
