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


_SMALLEST = {"xception": 71, "inception_v3": 75}
_FEATURES = {
    "simple_cnn": 256,
    "tutorial_cnn": 128,
    "resnet50": 2048,
    "vgg16": 512,
    "vgg19": 512,
    "xception": 2048,
    "inception_v3": 2048,
    "efficientnet_v2_b0": 1280,
    "efficientnet_v2_s": 1280,
    "convnext_tiny": 768,
    "mobilenet_v3_small": 576,
    "mobilenet_v3_large": 960,
}


@pytest.mark.parametrize("name", backbones.NAMES)
def test_a_backbone_turns_pictures_into_features_in_groups_of_layers(name: str) -> None:
    image_size = _SMALLEST.get(name, 32)
    backbone = backbones.build(name, image_size=image_size, weights="none")
    assert backbone.network.input_shape == (None, image_size, image_size, 3)
    assert backbone.network.output_shape == (None, _FEATURES[name])
    assert tuple(backbone.groups) == backbones.groups(name)
    firsts = list(backbone.groups.values())
    assert firsts[0] == 0
    with_weights = [number for number, layer in enumerate(backbone.network.layers) if layer.weights]
    for first, end in zip(firsts, [*firsts[1:], len(backbone.network.layers)], strict=True):
        assert any(first <= number < end for number in with_weights)


_GREY = np.full((1, 32, 32, 3), 51.0, np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simple_cnn", [-0.6] * 3),
        ("xception", [-0.6] * 3),
        ("inception_v3", [-0.6] * 3),
        ("resnet50", [51 - 103.939, 51 - 116.779, 51 - 123.68]),
        ("vgg16", [51 - 103.939, 51 - 116.779, 51 - 123.68]),
        ("efficientnet_v2_b0", [51.0] * 3),
        ("convnext_tiny", [51.0] * 3),
        ("mobilenet_v3_small", [51.0] * 3),
    ],
)
def test_pixels_are_prepared_as_the_weights_expect(name: str, expected: list[float]) -> None:
    backbone = backbones.build(name, image_size=_SMALLEST.get(name, 32), weights="none")
    np.testing.assert_allclose(np.asarray(backbone.preparation(_GREY))[0, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(backbone.preparation(_GREY.astype(np.uint8)))[0, 0, 0], expected, rtol=1e-5)


def test_xception_below_71_pixels_is_refused() -> None:
    assert "71x71" in _refusal("xception", image_size=70)


def test_an_unknown_backbone_is_refused_with_those_that_there_are() -> None:
    message = _refusal("resnet")
    assert "'resnet'" in message
    assert "simple_cnn" in message
    assert "xception" in message


@pytest.mark.parametrize("file", ["mine.weights.h5", "mine.keras", "mine.h5"])
def test_weights_come_from_a_file(file: str, tmp_path: Path) -> None:
    path = str(tmp_path / file)
    saved = backbones.build("simple_cnn", image_size=32, weights="none").network
    (saved.save_weights if ".weights." in file else saved.save)(path)
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


def test_a_keras_file_cannot_run_code(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "hostile.keras"

    def leave_a_trace(x):  # type: ignore[no-untyped-def]
        ran.touch()
        return x

    inputs = keras.Input((4,))
    hostile = keras.layers.Lambda(leave_a_trace, output_shape=(4,))(inputs)
    hostile_model = keras.Model(inputs, keras.layers.Dense(2)(hostile))
    hostile_model.save(path)
    hostile_model(np.zeros((1, 4)))
    ran.unlink()
    assert "cannot be used for simple_cnn" in _refusal("simple_cnn", weights=str(path))
    assert not ran.exists()


def test_a_failed_download_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise Exception("URL fetch failure on https://example.org/xception.h5:\nName or service not known")

    monkeypatch.setattr(keras.applications, "Xception", fail)
    message = _refusal("xception", image_size=71, weights="imagenet")
    assert "URL fetch failure" in message
    assert "the path of a .weights.h5, .h5 or .keras file" in message


def test_simple_cnn_has_no_published_weights() -> None:
    assert "no published weights of simple_cnn" in _refusal("simple_cnn", weights="imagenet")
