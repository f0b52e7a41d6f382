"""Tests of the options of a run."""

import json
from dataclasses import replace
from typing import Any

import pytest

from model.augment import AugmentConfig
from model.config import ModelConfig, TrainConfig
from model.losses import LossConfig
from model.optimizers import OptimizerConfig
from pipeline.console import UserError
from pipeline.input import InputConfig


def test_options_come_back_from_json_the_same() -> None:
    config = TrainConfig(
        model=ModelConfig(backbone="xception", weights="w.weights.h5"),
        input=InputConfig(batch_size=3, seed=-4),
        augment=AugmentConfig(mixup=0.2, flip=False),
        stages="head:1,all:2@0.1",
        optimization=OptimizerConfig(optimizer="sgd"),
    )
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_options_of_a_run_from_before_they_were_grouped_are_read() -> None:
    old = {
        "model": {"backbone": "xception", "weights": "none", "dropout": 0.1, "flip": False, "precision": "float32"},
        "input": {"batch_size": 8, "seed": 3},
        "fold": None,
        "stages": "all:3",
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "label_smoothing": 0.1,
        "checkpoint_seconds": 600.0,
    }
    config = TrainConfig.from_json(old)
    assert config.model == ModelConfig(backbone="xception", dropout=0.1)
    assert not config.augment.flip
    assert config.optimization == OptimizerConfig(optimizer="sgd", learning_rate=0.5)
    assert config.loss == LossConfig(label_smoothing=0.1)
    assert (config.input.batch_size, config.stages) == (8, "all:3")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (LossConfig, "label_smoothing", -0.1),
        (LossConfig, "label_smoothing", 1),
        (OptimizerConfig, "warmup", -0.1),
        (OptimizerConfig, "warmup", 1),
        (OptimizerConfig, "learning_rate", 0),
        (OptimizerConfig, "learning_rate", -1e-3),
        (OptimizerConfig, "learning_rate", float("nan")),
        (TrainConfig, "stages", "all"),
        (TrainConfig, "stages", "blok:1"),
        (TrainConfig, "unfreeze", "never"),
        (TrainConfig, "jit", "yes"),
        (ModelConfig, "backbone", "resnet"),
        (ModelConfig, "dropout", -0.1),
        (ModelConfig, "dropout", 1),
        (ModelConfig, "dropout", float("nan")),
        (ModelConfig, "precision", "float16"),
    ],
)
def test_an_option_out_of_range_is_refused_by_its_flag(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        kind(**{name: value})


def test_a_wrong_layer_is_refused_with_the_layers_of_the_backbone() -> None:
    with pytest.raises(UserError, match=r"expected head, all, or one of block1, .*, block14"):
        TrainConfig(model=ModelConfig(backbone="xception"), stages="head:1,block15:1")


def test_the_plan_is_gradual_or_at_once() -> None:
    config = TrainConfig(stages="head:1,block4:2@0.3,all:3@0.1")
    assert [stage.trainable for stage in config.plan] == ["head", "block4", "all"]
    [stage] = replace(config, unfreeze="at_once").plan
    assert stage == ("all", 6, 0.1)
