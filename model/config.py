"""Options of a model and of its training, as they are kept with a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from model import stages
from pipeline.console import UserError
from pipeline.input import InputConfig

PRECISIONS = ("float32", "mixed_bfloat16")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is needed to build a model again.

    Attributes:
      backbone: Name of the backbone, see `model.backbones`.
      weights: Where the backbone's weights come from: "none" (random),
        "imagenet" (downloaded by Keras), or the path of a weights file.
      dropout: Share of features dropped before the last layer, in [0, 1).
      flip: Whether training mirrors pictures at random.
      precision: Keras dtype policy, "float32" or "mixed_bfloat16".
    """

    backbone: str
    weights: str = "none"
    dropout: float = 0.2
    flip: bool = True
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout is {self.dropout}; expected a number in [0, 1).")
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that a run follows from.

    Attributes:
      model: The network.
      input: How batches are made; its seed is the seed of the whole run.
      fold: The fold that is held out, of a dataset with folds; None otherwise.
      stages: What trains for how long, see `model.stages`.
      optimizer: "adamw" or "sgd" (with Nesterov momentum 0.9).
      learning_rate: Peak of the schedule, for the batch size of `input`.
      weight_decay: Decoupled weight decay of the kernels.
      warmup: Share of a stage's steps during which the rate rises from 0.
      label_smoothing: Probability spread over all categories, in [0, 1).
      checkpoint_seconds: Longest time of training that an interruption costs.
      keep_checkpoints: Number of newest checkpoints that stay, beside the best.
    """

    model: ModelConfig
    input: InputConfig = field(default_factory=InputConfig)
    fold: int | None = None
    stages: str = "all:10"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    label_smoothing: float = 0.0
    checkpoint_seconds: float = 600.0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        stages.parse(self.stages)
        for name in ("label_smoothing", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; expected a number in [0, 1).")
        if self.keep_checkpoints < 1:
            raise UserError(f"--keep_checkpoints is {self.keep_checkpoints}; expected 1 or more.")
        if not self.learning_rate > 0:
            raise UserError(f"--learning_rate is {self.learning_rate}; expected a number above 0.")

    def to_json(self) -> dict[str, Any]:
        """Returns the options as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainConfig":
        """Reads what `to_json` gave."""
        return cls(**value | {"model": ModelConfig(**value["model"]), "input": InputConfig(**value["input"])})
