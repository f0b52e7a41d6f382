"""How weights move: the optimizer, its schedule, and what differs from weight to weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from model import options

_UNDECAYED = ("bias", "gamma", "beta")  # Moving these towards 0 helps nothing (He et al., 2019, arXiv:1812.01187).


class _Paced:
    """Gives each weight a rate, decay and age of its own; mixed into an optimizer of Keras.

    Decay is decoupled (Loshchilov and Hutter, 2019, arXiv:1711.05101) and, unlike
    that of Keras, follows the rate of the weight.
    """

    _paces: "tuple[Pace, ...]"
    _decay: float

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        pace = self._paces[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        rate = learning_rate * pace.factor
        if self._decay and pace.decays:
            self.assign_sub(variable, variable * ops.cast(rate * self._decay, variable.dtype))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate * self._age_correction(pace))  # type: ignore[misc]

    def _age_correction(self, pace: "Pace") -> Any:
        """Returns what makes the bias correction of Adam that of a weight which began to train later."""
        if not pace.born or not isinstance(self, keras.optimizers.Adam):
            return 1.0
        now = ops.cast(self.iterations + 1, "float32")

        def correction(age: Any) -> Any:
            return ops.sqrt(1 - self.beta_2**age) / (1 - self.beta_1**age)

        return correction(now - pace.born) / correction(now)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Does nothing: Keras puts averages in the place of weights at the end of `fit`, which here is each epoch."""


class Pace(NamedTuple):
    """How one weight moves.

    Attributes:
      factor: Factor on the learning rate.
      decays: Whether it decays.
      born: Number of updates of the run before it began to train.
    """

    factor: float
    decays: bool
    born: int


_OPTIMIZERS: Mapping[str, Callable[..., keras.optimizers.Optimizer]] = MappingProxyType(
    {
        name: type(f"Paced{base.__name__}", (_Paced, base), {"__init__": base.__init__})
        for name, base in {
            "adamw": keras.optimizers.Adam,  # Its decay is that of `_Paced`.
            "adam": keras.optimizers.Adam,
            "sgd": keras.optimizers.SGD,
            "rmsprop": keras.optimizers.RMSprop,
            "lamb": keras.optimizers.Lamb,
            "lion": keras.optimizers.Lion,
        }.items()
    }
)
_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"sgd": {"momentum": 0.9, "nesterov": True}}
_SHAPES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "cosine": lambda done: 0.5 * (1 + ops.cos(np.pi * done)),
        "linear": lambda done: 1 - done,
        "step": lambda done: 0.1 ** ops.floor(3 * done),
        "constant": ops.ones_like,
    }
)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move.

    Attributes:
      optimizer: The rule: adamw, sgd (with Nesterov momentum 0.9), adam
        (adamw without decay), rmsprop, lamb or lion.
      learning_rate: Peak of the schedule, for the batch size that is given.
      schedule: How the rate falls in each stage: cosine or linear to 0, step
        (to a tenth after each third), or constant.
      warmup: Share of a stage's steps during which the rate rises from 0.
      weight_decay: Decoupled weight decay of the kernels.
      layer_decay: Factor on the rate from each group of layers to the one
        below it, the last layer having the whole rate (discriminative rates,
        Howard and Ruder, 2018, section 3.1: 1 / 2.6); 1 is off.
      clip_norm: Longest gradient, over all weights together; 0 is off.
      accumulate: Number of batches whose gradients make one update.
      ema: Decay of the moving average of the weights, which validation and
        prediction use, such as 0.999; 0 is off.
    """

    optimizer: str = options.choice("adamw", tuple(_OPTIMIZERS))
    learning_rate: float = 1e-3
    schedule: str = options.choice("cosine", tuple(_SHAPES))
    warmup: float = 0.05
    weight_decay: float = 1e-4
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    accumulate: int = 1
    ema: float = 0.0

    def __post_init__(self) -> None:
        options.check(self)
        options.check_range(self, "warmup", "ema")
        options.check_range(self, "learning_rate", "layer_decay", least=1e-30, below=float("inf"))
        options.check_range(self, "weight_decay", "clip_norm", below=float("inf"))
        options.check_range(self, "accumulate", least=1, below=float("inf"))


class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate over a stage, by the number of batches since the run began.

    Args:
      config: Its shape.
      peak: Its greatest value.
      first: Number of batches before the stage.
      steps: Number of batches of the stage.
    """

    def __init__(self, config: OptimizerConfig, *, peak: float, first: int, steps: int) -> None:
        self._shape = _SHAPES[config.schedule]
        self._peak, self._first = peak, first
        self._warmup = round(steps * config.warmup)
        self._falling = max(1, steps - self._warmup)

    def __call__(self, step: Any) -> Any:
        """Returns the rate of a batch: a float32 scalar."""
        done = ops.cast(step, "float32") - self._first
        falling = self._shape(ops.clip((done - self._warmup) / self._falling, 0, 1))
        return self._peak * ops.where(done < self._warmup, done / max(1, self._warmup), falling)


def build(
    config: OptimizerConfig, schedule: StageSchedule, variables: Sequence[Any], paces: Sequence[Pace]
) -> keras.optimizers.Optimizer:
    """Builds an optimizer for some variables.

    Args:
      config: What it is.
      schedule: Its learning rate.
      variables: What it moves.
      paces: How each of them moves.
    """
    optimizer = _OPTIMIZERS[config.optimizer](
        learning_rate=schedule,
        global_clipnorm=config.clip_norm or None,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
        use_ema=bool(config.ema),
        ema_momentum=config.ema,
        **_ARGUMENTS.get(config.optimizer, {}),
    )
    optimizer._paces = tuple(paces)
    optimizer._decay = 0.0 if config.optimizer == "adam" else config.weight_decay
    optimizer.build(list(variables))
    for variable, average in averages(optimizer):
        average.assign(variable)
    return optimizer


def decays(variable: Any) -> bool:
    """Returns whether weight decay applies to a variable."""
    return variable.name not in _UNDECAYED


def carry_over(before: keras.optimizers.Optimizer, after: keras.optimizers.Optimizer) -> None:
    """Gives an optimizer what another knows of the same variables: momentum and the like, averages, and the time."""
    known = {_name(variable): variable for variable in before.variables}
    for variable in after.variables:
        if _name(variable) in known:
            variable.assign(known[_name(variable)])


def averages(optimizer: keras.optimizers.Optimizer | None) -> list[tuple[Any, Any]]:
    """Returns pairs of a variable and its moving average; none where no averages are kept."""
    if optimizer is None or not optimizer.use_ema:
        return []
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Puts moving averages, where the model's optimizer keeps them, in the place of the weights for a while."""
    pairs = averages(getattr(model, "optimizer", None))
    kept = [ops.convert_to_numpy(variable) for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, kept, strict=True):
            variable.assign(value)


def _name(variable: Any) -> str:
    return str(variable.path).rpartition("/")[2]  # Before it stands the optimizer's own name, which changes.
