"""Tests of the options of a run."""

import json
from typing import Any

import pytest

from model.config import ModelConfig, TrainConfig
from pipeline.console import UserError
from pipeline.input import InputConfig


def test_options_come_back_from_json_the_same() -> None:
    config = TrainConfig(
        model=ModelConfig(backbone="xception", weights="w.weights.h5", flip=False),
        input=InputConfig(batch_size=3, seed=-4),
        stages="head:1,all:2@0.1",
        optimizer="sgd",
    )
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("value", [0, 0.5, 0.999])
@pytest.mark.parametrize("name", ["label_smoothing", "warmup"])
def test_shares_from_0_to_below_1_are_taken(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    assert getattr(TrainConfig(model=ModelConfig(backbone="simple_cnn"), **options), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_smoothing", -0.1),
        ("label_smoothing", 1),
        ("warmup", -0.1),
        ("warmup", 1),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("stages", "all"),
    ],
)
def test_an_option_of_training_out_of_range_is_refused_by_its_flag(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        TrainConfig(model=ModelConfig(backbone="simple_cnn"), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("dropout", -0.1), ("dropout", 1), ("dropout", float("nan")), ("precision", "float16")]
)
def test_an_option_of_the_model_out_of_range_is_refused_by_its_flag(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        ModelConfig(backbone="simple_cnn", **{name: value})
