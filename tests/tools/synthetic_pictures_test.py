"""Tests of the made-up pictures."""

from collections.abc import Sequence

import numpy as np
import pytest
import simplejpeg

from pipeline import decode
from tools import synthetic_pictures, synthetic_tree
from tools.synthetic_pictures import SIZE

_TREE = synthetic_tree.make(60, seed=0)
_PATH = _TREE.paths[0]
_PRODUCTS = 8


def _draw(path: tuple[str, ...] = _PATH, *, product: int = 1, view: int = 0, seed: int = 0) -> bytes:
    return synthetic_pictures.draw(path, product=product, view=view, seed=seed)


def test_a_picture_is_a_colour_jpeg_of_180_pixels() -> None:
    assert simplejpeg.decode_jpeg_header(_draw())[:3] == (180, 180, "YCbCr")
    assert SIZE == 180


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert _draw(product=3, view=2, seed=9) == _draw(product=3, view=2, seed=9)
    assert synthetic_pictures.draw_category(_TREE, 0, product=3, view=2, seed=9) == _draw(product=3, view=2, seed=9)


@pytest.mark.parametrize(
    "other",
    [{"product": 2}, {"view": 1}, {"seed": 1}, {"seed": -1}, {"product": 1 << 33}, {"path": _TREE.paths[1]}],
)
def test_any_other_argument_gives_another_picture(other) -> None:  # type: ignore[no-untyped-def]
    assert _draw(**other) != _draw()


def test_sizes_are_those_of_cdiscounts_pictures() -> None:
    sizes = [len(_draw(path, product=product)) for path in _TREE.paths for product in range(4)]
    assert 4500 < np.mean(sizes) < 6500
    assert min(sizes) > 1600
    assert max(sizes) < 10600


def _thumbnails(labels: Sequence[int], seed: int) -> np.ndarray:
    """Returns pictures of each category at 18 pixels: float of shape (categories, products, values)."""
    encoded = [
        synthetic_pictures.draw_category(_TREE, label, product=product, view=0, seed=seed)
        for label in labels
        for product in range(_PRODUCTS)
    ]
    corners = np.zeros((len(encoded), 2), np.int64)
    pictures, _ = decode.BatchDecoder(SIZE, SIZE).decode(encoded, corners=corners, product_ids=np.arange(len(encoded)))
    small = pictures.reshape(len(labels), _PRODUCTS, 18, 10, 18, 10, 3).mean(axis=(3, 5))
    return small.reshape(len(labels), _PRODUCTS, -1)


def test_siblings_are_confused_more_often_than_strangers() -> None:
    labels = range(_TREE.num_categories)
    centroids = _thumbnails(labels, seed=1).mean(axis=1)
    asked = _thumbnails(labels, seed=2)
    distances = np.linalg.norm(asked[:, :, np.newaxis] - centroids, axis=-1)  # (category, product, centroid)
    nearer = distances < np.diagonal(distances, axis1=0, axis2=2).T[:, :, np.newaxis]
    wrong = nearer.mean(axis=1)  # How often a category is taken for each other one.
    parents = _TREE.ancestors(1)
    family = parents[:, np.newaxis] == parents
    siblings, strangers = wrong[family & ~np.eye(len(labels), dtype=bool)], wrong[~family]
    assert strangers.mean() < 0.5  # Of two strangers, guessing takes the wrong one half of the time.
    assert siblings.mean() > 1.2 * strangers.mean()
