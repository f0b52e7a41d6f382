"""Tests of the backbones."""

from pathlib import Path

import keras
import numpy as np
import pytest

from model import backbones
from pipeline.console import UserError


def _refusal(name: str, *, image_size: int = 32, weights: str = "none") -> str:
    with pytest.raises(UserError) as caught:
        backbones.build(name, image_size=image_size, weights=weights)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("name", "image_size", "features"), [("simple_cnn", 32, 256), ("xception", 71, 2048)])
def test_a_backbone_turns_pictures_into_features(name: str, image_size: int, features: int) -> None:
    backbone = backbones.build(name, image_size=image_size, weights="none")
    assert backbone.network.input_shape == (None, image_size, image_size, 3)
    assert backbone.network.output_shape == (None, features)
    black, white = backbone.preparation(np.array([0.0, 255.0], np.float32))
    assert (float(black), float(white)) == pytest.approx((-1, 1))


def test_xception_below_71_pixels_is_refused() -> None:
    assert "71x71" in _refusal("xception", image_size=70)


def test_an_unknown_backbone_is_refused_with_those_that_there_are() -> None:
    message = _refusal("resnet")
    assert "'resnet'" in message
    assert "simple_cnn, xception" in message


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "mine.weights.h5")
    saved = backbones.build("simple_cnn", image_size=32, weights="none").network
    saved.save_weights(path)
    loaded = backbones.build("simple_cnn", image_size=48, weights=path).network
    random = backbones.build("simple_cnn", image_size=32, weights="none").network
    assert all(map(np.array_equal, saved.get_weights(), loaded.get_weights()))
    assert not all(map(np.array_equal, saved.get_weights(), random.get_weights()))


def _other_network(path: Path) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("absent.weights.h5", lambda path: None),
        ("text.weights.h5", lambda path: path.write_text("no weights\n" * 99)),
        ("other.weights.h5", _other_network),
        ("suffix.bin", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n")),
    ],
)
def test_a_file_that_holds_no_weights_of_the_backbone_is_refused(name: str, write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / name
    write(path)
    message = _refusal("simple_cnn", weights=str(path))
    assert f"--weights={path} cannot be used for simple_cnn" in message


def test_a_failed_download_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise Exception("URL fetch failure on https://example.org/xception.h5:\nName or service not known")

    monkeypatch.setattr(keras.applications, "Xception", fail)
    message = _refusal("xception", image_size=71, weights="imagenet")
    assert "URL fetch failure" in message
    assert "the path of a .weights.h5 file" in message


def test_simple_cnn_has_no_published_weights() -> None:
    assert "no published weights of simple_cnn" in _refusal("simple_cnn", weights="imagenet")
