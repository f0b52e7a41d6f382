"""Options of a model and of its training, as they are kept with a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from model import backbones, options, stages
from model.augment import AugmentConfig
from model.losses import LossConfig
from model.optimizers import OptimizerConfig
from model.stages import AT_ONCE, GRADUAL, Stage
from pipeline.input import InputConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is needed to build a model again.

    Attributes:
      backbone: The network under the last layer.
      weights: Where its weights come from: none (random), imagenet (downloaded
        by Keras), or a weights file of the backbone.
      init_from: Folder of another run with the same backbone, to begin with its
        weights, whatever --weights says; its last layer is kept where the
        categories are the same.
      dropout: Share of features dropped before the last layer, in [0, 1).
      precision: Dtype of the computation: float32, or mixed_bfloat16 for
        accelerators that have it.
    """

    backbone: str = options.choice("simple_cnn", backbones.NAMES)
    weights: str = "none"
    init_from: str | None = None
    dropout: float = 0.2
    precision: str = options.choice("float32", ("float32", "mixed_bfloat16"))

    def __post_init__(self) -> None:
        options.check(self)
        options.check_range(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that a run follows from.

    Attributes:
      model: The network.
      input: How batches are made; its seed is the seed of the whole run.
      augment: How training pictures are changed.
      optimization: How weights move.
      loss: What training minimises.
      fold: The fold to hold out, of a dataset with folds.
      stages: What trains for how many epochs, comma-separated
        LAYERS:EPOCHS[@RATE_FACTOR]; LAYERS are head, all, or a group of layers
        of the backbone with all above it, which a wrong name lists.
        head:1,block14:1,all:5@0.1 unfreezes gradually.
      unfreeze: at_once makes one stage of as many epochs, which trains all that
        the last stage trains, at its rate.
      patience: End training after so many epochs in a row, of whatever stage,
        that did not raise the best validation accuracy by product; 0 goes on to
        the end of the stages, as does data without validation.
      jit: Compile the step of training with XLA; auto does so on accelerators.
      checkpoint_seconds: Longest time of training that an interruption costs.
      keep_checkpoints: Number of newest checkpoints that stay, beside the best.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimization: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    fold: int | None = None
    stages: str = "all:10"
    unfreeze: str = options.choice(GRADUAL, (GRADUAL, AT_ONCE))
    patience: int = 0
    jit: str = options.choice("auto", ("auto", "on", "off"))
    checkpoint_seconds: float = 600.0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        options.check(self)
        options.check_range(self, "keep_checkpoints", least=1, below=float("inf"))
        options.check_range(self, "patience", below=float("inf"))
        for stage in self.plan:
            stages.check(stage.trainable, backbones.groups(self.model.backbone))

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        gradual = stages.parse(self.stages)
        return gradual if self.unfreeze == GRADUAL else stages.at_once(gradual)

    def to_json(self) -> dict[str, Any]:
        """Returns the options as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainConfig":
        """Reads what `to_json` gave, now or in an earlier version with fewer options."""
        return options.build(cls, value)
