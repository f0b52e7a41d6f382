"""Tests of optimizers, their schedules, and what differs from weight to weight."""

from typing import Any

import keras
import numpy as np
import pytest

from model import optimizers
from model.optimizers import OptimizerConfig, Pace, StageSchedule
from pipeline.console import UserError

_NAMES = ("adamw", "adam", "sgd", "rmsprop", "lamb", "lion")


def _variables(count: int = 2) -> list[Any]:
    return [keras.Variable(np.linspace(1, 2, 3, dtype=np.float32), name=f"kernel{number}") for number in range(count)]


def _build(variables: list[Any], *, paces: list[Pace] | None = None, rate: float = 0.1, **options: Any) -> Any:
    config = OptimizerConfig(schedule="constant", warmup=0, **options)
    schedule = StageSchedule(config, peak=rate, first=0, steps=100)
    return optimizers.build(config, schedule, variables, paces or [Pace(1.0, True, 0)] * len(variables))


def _gradient(step: int) -> Any:
    return keras.ops.convert_to_tensor(np.random.default_rng(step).normal(size=3).astype(np.float32))


def _apply(optimizer: Any, variables: list[Any], steps: range) -> None:
    for step in steps:
        optimizer.apply([_gradient(step) for _ in variables], variables)


def _value(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


@pytest.mark.parametrize("name", _NAMES)
def test_each_rule_moves_weights_and_a_factor_slows_them(name: str) -> None:
    fast, slow = variables = _variables()
    before = _value(fast)
    _apply(_build(variables, paces=[Pace(1.0, False, 0), Pace(0.1, False, 0)], optimizer=name), variables, range(1))
    np.testing.assert_allclose(_value(slow) - before, 0.1 * (_value(fast) - before), rtol=1e-3)
    assert not np.array_equal(_value(fast), before)


def test_adamw_is_that_of_keras() -> None:
    [mine], [theirs] = _variables(1), _variables(1)
    _apply(_build([mine], weight_decay=0.3), [mine], range(5))
    reference = keras.optimizers.AdamW(0.1, weight_decay=0.3)
    reference.build([theirs])
    _apply(reference, [theirs], range(5))
    np.testing.assert_allclose(_value(mine), _value(theirs), rtol=1e-5)


def test_decay_follows_the_factor_and_spares_some() -> None:
    full, tenth, none = variables = _variables(3)
    paces = [Pace(1.0, True, 0), Pace(0.1, True, 0), Pace(1.0, False, 0)]
    before = _value(full)
    optimizer = _build(variables, paces=paces, optimizer="sgd", weight_decay=0.5)
    optimizer.apply([keras.ops.zeros(3)] * 3, variables)
    np.testing.assert_allclose(_value(full), before * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(_value(tenth), before * (1 - 0.1 * 0.05), rtol=1e-6)
    np.testing.assert_array_equal(_value(none), before)


@pytest.mark.parametrize("name", _NAMES)
def test_what_is_known_of_a_weight_is_carried_over(name: str) -> None:
    """Two optimizers one after the other, on more weights, end where a single one ends."""
    kept, new = _variables()
    [alone] = [keras.Variable(_value(kept), name="kernel0")]
    undisturbed = _build([alone], optimizer=name, ema=0.5)
    _apply(undisturbed, [alone], range(6))

    first = _build([kept], optimizer=name, ema=0.5)
    _apply(first, [kept], range(3))
    second = _build([kept, new], paces=[Pace(1.0, True, 0), Pace(1.0, True, 3)], optimizer=name, ema=0.5)
    optimizers.carry_over(first, second)
    assert int(second.iterations) == 3
    _apply(second, [kept, new], range(3, 6))
    np.testing.assert_allclose(_value(kept), _value(alone), rtol=1e-6)
    np.testing.assert_allclose(
        _value(optimizers.averages(second)[0][1]), _value(optimizers.averages(undisturbed)[0][1]), rtol=1e-6
    )


def test_a_weight_that_begins_late_moves_as_one_that_begins_first() -> None:
    [early], late = _variables(1), _variables(2)
    _apply(_build([early], weight_decay=0), [early], range(4))
    begun = _build([late[0]], weight_decay=0)
    _apply(begun, [late[0]], range(20))
    optimizer = _build(late, paces=[Pace(1.0, True, 0), Pace(1.0, True, 20)], weight_decay=0)
    optimizers.carry_over(begun, optimizer)
    _apply(optimizer, late, range(4))
    np.testing.assert_allclose(_value(late[1]), _value(early), rtol=1e-4)


def test_averages_begin_with_the_weights_and_stand_in_for_them_for_a_while() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    [kernel] = model.trainable_variables
    optimizer = _build([kernel], ema=0.9)
    model.compile(optimizer, "mse")
    [(_, average)] = optimizers.averages(optimizer)
    np.testing.assert_array_equal(_value(average), _value(kernel))
    model.fit(np.ones((8, 3)), np.full((8, 1), 5.0), epochs=2, batch_size=2, verbose=0)
    raw, mean = _value(kernel), _value(average)
    assert not np.allclose(raw, mean)  # Keras would have put the mean in the place of the weights.
    with optimizers.averaged(model):
        np.testing.assert_array_equal(_value(kernel), mean)
    np.testing.assert_array_equal(_value(kernel), raw)


def test_without_averages_nothing_stands_in() -> None:
    assert optimizers.averages(None) == []
    assert optimizers.averages(_build(_variables())) == []


def test_gradients_of_several_batches_make_one_update() -> None:
    [several], [one] = _variables(1), _variables(1)
    _apply(_build([several], accumulate=2, optimizer="sgd"), [several], range(2))
    mean = (_gradient(0) + _gradient(1)) / 2
    _build([one], optimizer="sgd").apply([mean], [one])
    np.testing.assert_allclose(_value(several), _value(one), rtol=1e-6)


def test_a_long_gradient_is_cut() -> None:
    [variable] = _variables(1)
    before = _value(variable)
    _build([variable], optimizer="sgd", clip_norm=1e-3, weight_decay=0).apply([_gradient(0)], [variable])
    assert np.linalg.norm(_value(variable) - before) == pytest.approx(0.1 * 1.9e-3, rel=1e-3)  # Nesterov's first step.


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0, 0.5, 1, 0.854, 0.5, 0.146, 0]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
        ("constant", [0, 0.5, 1, 1, 1, 1, 1]),
        ("step", [0, 0.5, 1, 1, 0.1, 0.01, 0.001]),
    ],
)
def test_the_rate_rises_and_then_falls_from_its_peak(schedule: str, expected: list[float]) -> None:
    config = OptimizerConfig(schedule=schedule, warmup=1 / 3)
    rate = StageSchedule(config, peak=0.2, first=60, steps=12)
    found = [float(rate(60 + step)) / 0.2 for step in (0, 2, 4, 6, 8, 10, 12)]
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgdw"},
        {"schedule": "exp"},
        {"ema": 1.0},
        {"learning_rate": 0},
        {"accumulate": 0},
        {"clip_norm": -1},
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))} is "):
        OptimizerConfig(**options)
