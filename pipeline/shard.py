r"""Turns a BSON dump of a catalogue into a dataset of TFRecord shards.

    python -m pipeline.shard --input data/train.bson

Each document becomes one record: product id, category at every level, JPEG
bytes. Documents with a category are split by product into train and
validation; documents without one make a test split. The dataset is one folder
that the other commands take as --data, and that TFDS reads as it is.

The work survives interruption: the same command continues where it stopped.
Options of Apache Beam (--runner=..., --direct_num_workers=...) may follow; by
default everything runs on this machine, on all its cores.
"""

from collections.abc import Sequence

from absl import flags

from pipeline import console, engines, records, shard_config, shard_job

_INPUT = flags.DEFINE_list("input", [], "BSON files or glob patterns, comma-separated; together they make one dataset.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the dataset; by default beside the input, as train-shards.")
_CATEGORIES = flags.DEFINE_string(
    "categories", None, "CSV of the category tree; by default category_names.csv beside the input, if it is there."
)
_SPLIT_BY = flags.DEFINE_enum(
    "split_by",
    shard_config.PRODUCT,
    [shard_config.PRODUCT, shard_config.DUPLICATES],
    "What stays in one split: a product, or all products that share an image, directly or through others.",
)
_VALIDATION_FRACTION = flags.DEFINE_float("validation_fraction", 0.1, "Share of each category's products held out.")
_FOLDS = flags.DEFINE_integer(
    "folds", 0, "Deal products out to so many folds for cross-validation; model.train --fold=0 holds out the first."
)
_SEED = flags.DEFINE_integer("seed", 0, "Determines the split and the order of records.")
_PIECE_BYTES = flags.DEFINE_integer(
    "piece_bytes", 1 << 20, "Bytes of the runs that are shuffled across the input; 4-8 MiB suit hard disks."
)
_SHARD_BYTES = flags.DEFINE_integer("shard_bytes", 128 << 20, "Bytes of a shard; a worker holds one in memory.")
_ID_FIELD = flags.DEFINE_string("id_field", "_id", "Field of the product's identifier, a whole number.")
_IMAGES_FIELD = flags.DEFINE_string("images_field", "imgs", "Field of the array of images.")
_PICTURE_FIELD = flags.DEFINE_string("picture_field", "picture", "Field, in each image, of its encoded bytes.")
_CATEGORY_FIELD = flags.DEFINE_string("category_field", "category_id", "Field of the category, a whole number.")
_POLICIES = [shard_config.ERROR, shard_config.SKIP]
_DUPLICATE_IDS = flags.DEFINE_enum("duplicate_ids", "error", _POLICIES, "What to do with an id's later documents.")
_UNKNOWN_CATEGORIES = flags.DEFINE_enum(
    "unknown_categories", "error", _POLICIES, "What to do with documents whose category is not in the tree."
)
_CROISSANT = flags.DEFINE_bool("croissant", False, "Write Croissant metadata; its SHA-256 costs a quarter more time.")
_TOLERATE_DAMAGE = flags.DEFINE_bool(
    "tolerate_damage", False, "Make the dataset although parts of the input make no product; keeps them aside."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing dataset, or unfinished work of other options.")


def main(argv: Sequence[str]) -> None:
    """Shards the inputs that the flags name."""
    engines.prepare(argv[1:])
    config = shard_config.ShardConfig(
        inputs=tuple(_INPUT.value),
        output=_OUTPUT.value or (shard_config.default_output(_INPUT.value) if _INPUT.value else ""),
        categories=_CATEGORIES.value or (shard_job.beside(_INPUT.value) if _INPUT.value else None),
        split_by=_SPLIT_BY.value,
        validation_fraction=_VALIDATION_FRACTION.value,
        folds=_FOLDS.value,
        seed=_SEED.value,
        piece_bytes=_PIECE_BYTES.value,
        shard_bytes=_SHARD_BYTES.value,
        fields=records.Fields(_ID_FIELD.value, _IMAGES_FIELD.value, _PICTURE_FIELD.value, _CATEGORY_FIELD.value),
        duplicate_ids=_DUPLICATE_IDS.value,
        unknown_categories=_UNKNOWN_CATEGORIES.value,
        croissant=_CROISSANT.value,
        tolerate_damage=_TOLERATE_DAMAGE.value,
        overwrite=_OVERWRITE.value,
    )
    data = shard_job.run(config, argv[1:])
    console.say(f"{data.summary()}\nWrote {data.folder}. Next: {data.next_command()}")


if __name__ == "__main__":
    console.run(main, flags_parser=console.parse_known_flags)
