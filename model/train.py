r"""Trains a classifier on a dataset of shards.

    python -m model.train --flagfile=simple_cnn.flags --data data/train-shards --workdir runs/first

A flagfile holds the flags of an experiment; flags after it override it. Bare
names are looked up in model/flags/: simple_cnn.flags, xception.flags. The
working folder keeps options, checkpoints, logs and a card with curves, card.md;
the same command again continues the run where it stopped.
"""

from collections.abc import Sequence

from absl import flags

from model import backbones, devices, flagfile, trainer
from model.config import OPTIMIZERS, PRECISIONS, ModelConfig, TrainConfig
from model.run import Run
from pipeline import console
from pipeline.input import InputConfig
from pipeline.manifest import Manifest

_DATA = flags.DEFINE_string("data", None, "Folder that pipeline.shard wrote.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_FOLD = flags.DEFINE_integer("fold", None, "The fold to hold out, where the data was sharded with --folds.")
_BACKBONE = flags.DEFINE_enum("backbone", "simple_cnn", backbones.NAMES, "The network under the last layer.")
_WEIGHTS = flags.DEFINE_string("weights", "none", "Where its weights come from: none, imagenet, or a file.")
_DROPOUT = flags.DEFINE_float("dropout", 0.2, "Share of features dropped before the last layer.")
_FLIP = flags.DEFINE_bool("flip", True, "Mirror pictures at random.")
_PRECISION = flags.DEFINE_enum("precision", "float32", PRECISIONS, "mixed_bfloat16 for accelerators that have it.")
_STAGES = flags.DEFINE_string(
    "stages", "all:10", "LAYERS:EPOCHS[@RATE_FACTOR], comma-separated: head:1,block14:1,all:5@0.1 unfreezes gradually."
)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "adamw", OPTIMIZERS, "How weights move.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Peak of the cosine schedule of each stage.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "Decoupled weight decay of the kernels.")
_WARMUP = flags.DEFINE_float("warmup", 0.05, "Share of a stage during which the rate rises.")
_LABEL_SMOOTHING = flags.DEFINE_float("label_smoothing", 0.0, "Probability spread over all categories.")
_CHECKPOINT_SECONDS = flags.DEFINE_float("checkpoint_seconds", 600, "Longest training time an interruption costs.")
_KEEP_CHECKPOINTS = flags.DEFINE_integer("keep_checkpoints", 2, "Newest checkpoints that stay, beside the best.")
_DEVICES = flags.DEFINE_integer("devices", 0, "Devices of this host that share each batch; 0 takes all accelerators.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch, of all devices together.")
_DECODE_SIZE = flags.DEFINE_integer("decode_size", 180, "Height and width to which pictures are decoded.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 180, "Height and width that the network sees, cut out of those.")
_SHUFFLE_IMAGES = flags.DEFINE_integer("shuffle_images", 16_384, "Encoded images in the shuffle buffer, 6 KB each.")
_SEED = flags.DEFINE_integer("seed", 0, "Determines first weights, order and crops.")


def main(_: Sequence[str]) -> None:
    """Trains the run that the flags describe."""
    config = TrainConfig(
        model=ModelConfig(
            backbone=_BACKBONE.value,
            weights=_WEIGHTS.value,
            dropout=_DROPOUT.value,
            flip=_FLIP.value,
            precision=_PRECISION.value,
        ),
        input=InputConfig(
            batch_size=_BATCH_SIZE.value,
            decode_size=_DECODE_SIZE.value,
            image_size=_IMAGE_SIZE.value,
            shuffle_images=_SHUFFLE_IMAGES.value,
            seed=_SEED.value,
        ),
        fold=_FOLD.value,
        stages=_STAGES.value,
        optimizer=_OPTIMIZER.value,
        learning_rate=_LEARNING_RATE.value,
        weight_decay=_WEIGHT_DECAY.value,
        warmup=_WARMUP.value,
        label_smoothing=_LABEL_SMOOTHING.value,
        checkpoint_seconds=_CHECKPOINT_SECONDS.value,
        keep_checkpoints=_KEEP_CHECKPOINTS.value,
    )
    data = Manifest.load(_DATA.value).hold_out(config.fold)
    where = devices.open_devices(_DEVICES.value)
    run = where.in_turn(lambda: Run.begin(_WORKDIR.value, config, data))
    trainer.train(run, data, where)
    if where.writes:
        console.say(f"Wrote {run.folder}. Next: {run.next_command()}")


if __name__ == "__main__":
    console.run(main, flags_parser=flagfile.parse)
