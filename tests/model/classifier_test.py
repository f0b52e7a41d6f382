"""Tests of the classifier of single pictures, and of what of it trains."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

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


def test_only_steps_of_training_are_augmented_each_by_its_number() -> None:
    model = _build(replace(_CONFIG, dropout=0.0))
    steps = []

    def blacken(images: Any, labels: Any, step: Any) -> tuple[Any, Any]:
        tf.py_function(lambda number: steps.append(int(number)), (step,), ())
        return keras.ops.zeros_like(images), labels

    model.augmentation = blacken
    before = model.predict_on_batch(_pictures())
    assert not steps
    assert not np.allclose(before, model.predict_on_batch(np.zeros_like(_pictures())))
    _train(model)
    model.train_on_batch(_pictures(), np.arange(4))
    assert steps == [0, 1]


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
    ("group", "frozen"),
    [
        ("block4", ("stem", "block1", "block2", "block3")),
        ("block2", ("stem", "block1")),
        ("block1", ("stem",)),
        ("stem", ("nothing",)),
    ],
)
def test_with_a_group_it_trains_and_all_above_it(group: str, frozen: tuple[str, ...]) -> None:
    model = _build()
    classifier.freeze(model, group)
    with_weights = {name for name, weights in _weights_by_layer(model).items() if weights}
    assert _changed(model) == {name for name in with_weights if not name.startswith(frozen)}


def test_depth_counts_groups_from_the_head_down() -> None:
    model = _build()
    found = classifier.depths(model)
    assert {path.split("/")[0].split("_")[0]: depth for path, depth in found.items() if "seed" not in path} == {
        "head": 0,
        "block4": 1,
        "block3": 2,
        "block2": 3,
        "block1": 4,
        "stem": 5,
    }
    assert set(found) == {variable.path for variable in model.variables}


@pytest.mark.parametrize("with_head", [True, False])
def test_weights_move_from_one_classifier_to_another(with_head: bool) -> None:
    source, target = _build(), _build()
    classifier.transfer(source, target, with_head=with_head)
    mine, other = _weights_by_layer(target), _weights_by_layer(source)
    with_weights = [name for name, weights in mine.items() if weights]
    different = {name for name in with_weights if not all(map(np.array_equal, mine[name], other[name]))}
    assert different == (set() if with_head else {"head"})


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_frozen_batch_normalisation_uses_its_moving_statistics(precision: str) -> None:
    model = _build(replace(_CONFIG, dropout=0.0, precision=precision))
    pictures = _pictures()
    assert not np.allclose(model(pictures, training=True), model(pictures, training=False), atol=1e-2)
    classifier.freeze(model, "head")
    np.testing.assert_array_equal(model(pictures, training=True), model(pictures, training=False))


@pytest.mark.parametrize("group", ["blok", "head2", "All", "block4_keep"])
def test_an_unknown_group_is_refused_with_those_that_there_are(group: str) -> None:
    model = _build()
    with pytest.raises(UserError, match="expected head, all, or one of stem, block1, block2, block3, block4") as caught:
        classifier.freeze(model, group)
    assert repr(group) in str(caught.value)
