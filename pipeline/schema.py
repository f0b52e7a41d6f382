"""The one schema of a record: feature keys, split names, file names, version.

Neither TensorFlow nor Beam is imported here, so that every worker may.
"""

DATASET_NAME = "products"
VERSION = "1.0.0"

PRODUCT_ID = "product_id"
CATEGORY_ID = "category_id"
IMAGES = "images"

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
SPLITS = (TRAIN, VALIDATION, TEST)

NO_CATEGORY = -1  # Of a product of the test split, as in TFDS for hidden labels.


def fold_name(fold: int) -> str:
    """Returns the name of the split of a fold, from 0."""
    return f"fold{fold}"


def level_key(level: int) -> str:
    """Returns the feature key of the dense label at a level of the tree, from 1."""
    return f"level{level}"


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of a shard, in TFDS's default template."""
    return f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{count:05d}"


SHARD_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # As TFDS spells `shard_name`.
