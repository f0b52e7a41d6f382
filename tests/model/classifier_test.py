"""Tests of the classifier of single pictures, and of what of it trains."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from model import classifier
from model.config import ModelConfig
from pipeline.console import UserError

_CONFIG = ModelConfig(backbone="simple_cnn")


def _build(config: ModelConfig = _CONFIG) -> keras.Model:
    return classifier.build(config, image_size=32, num_categories=5)


def _pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def _train(model: keras.Model) -> None:
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(_pictures(), np.arange(4))


def _weights_by_layer(model: keras.Model) -> dict[str, list[np.ndarray]]:
    network = model.get_layer("backbone")
    return {layer.name: layer.get_weights() for layer in [*network.layers, model.get_layer("head")]}


def _changed(model: keras.Model) -> set[str]:
    """Returns the layers with weights that a step of training changes."""
    before = _weights_by_layer(model)
    _train(model)
    after = _weights_by_layer(model)
    return {name for name in before if not all(map(np.array_equal, before[name], after[name]))}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_pictures_of_bytes_give_logits_in_float32(precision: str) -> None:
    model = _build(replace(_CONFIG, precision=precision))
    logits = model(_pictures())
    assert logits.shape == (4, 5)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_failed_build_leaves_the_precision_as_it_was() -> None:
    with pytest.raises(UserError):
        _build(replace(_CONFIG, precision="mixed_bfloat16", weights="absent.weights.h5"))
    assert keras.config.dtype_policy().name == "float32"


def test_weights_that_a_checkpoint_will_replace_are_not_looked_for() -> None:
    config = replace(_CONFIG, weights="absent.weights.h5")
    model = classifier.build(config, image_size=32, num_categories=5, pretrained=False)
    assert model.output_shape == (None, 5)


@pytest.mark.parametrize("flip", [True, False])
def test_pictures_are_mirrored_in_training_only(flip: bool) -> None:
    model = _build(replace(_CONFIG, flip=flip, dropout=0.0))
    classifier.freeze(model, "head")  # So that batch normalisation differs in nothing.
    pictures = np.repeat(_pictures(1), 32, axis=0)
    kinds = [len(np.unique(np.round(model(pictures, training=mode), 3), axis=0)) for mode in (True, False)]
    assert kinds == [2 if flip else 1, 1]


def test_with_all_every_layer_with_weights_trains() -> None:
    model = _build()
    classifier.freeze(model, "head")
    classifier.freeze(model, "all")
    assert _changed(model) == {name for name, weights in _weights_by_layer(model).items() if weights}


def test_with_head_only_the_head_trains_and_moving_statistics_stand_still() -> None:
    model = _build()
    classifier.freeze(model, "head")
    assert _changed(model) == {"head"}


@pytest.mark.parametrize(
    ("prefix", "frozen"),
    [
        ("block4", ("stem", "block1", "block2", "block3")),
        ("block4_keep", ("stem", "block1", "block2", "block3", "block4_down")),
        ("block", ("stem",)),
        ("stem_bn", ("stem_conv",)),
    ],
)
def test_with_a_prefix_its_first_layer_trains_and_all_after_it(prefix: str, frozen: tuple[str, ...]) -> None:
    model = _build()
    classifier.freeze(model, prefix)
    with_weights = {name for name, weights in _weights_by_layer(model).items() if weights}
    assert _changed(model) == {name for name in with_weights if not name.startswith(frozen)}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_frozen_batch_normalisation_uses_its_moving_statistics(precision: str) -> None:
    model = _build(replace(_CONFIG, flip=False, dropout=0.0, precision=precision))
    pictures = _pictures()
    assert not np.allclose(model(pictures, training=True), model(pictures, training=False), atol=1e-2)
    classifier.freeze(model, "head")
    np.testing.assert_array_equal(model(pictures, training=True), model(pictures, training=False))


@pytest.mark.parametrize("prefix", ["blok", "head2", "All"])
def test_an_unknown_layer_is_refused_with_the_name_of_one(prefix: str) -> None:
    model = _build()
    with pytest.raises(UserError, match="head, all, or the beginning of a layer's name") as caught:
        classifier.freeze(model, prefix)
    named = str(caught.value).rstrip(".").split("such as ")[1]
    assert repr(prefix) in str(caught.value)
    assert named in {layer.name for layer in model.get_layer("backbone").layers}
