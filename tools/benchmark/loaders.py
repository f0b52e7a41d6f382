"""Ways to turn the shards of a dataset into batches of pixels: this project's, its limit, and the usual recipe.

Each is a `Loader`: it prepares once, and returns what yields the number of
images of each batch. Packages are imported inside, since each loader runs in a
process of its own.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline import schema
from pipeline.manifest import Manifest
from tools.benchmark.rates import Work

_RAW_IMAGES = 8192  # Kept in memory, about 45 MB: more than a cache holds.


def labelled_pictures(work: Work) -> Iterator[tuple[bytes, int]]:
    """Yields the encoded images of the train split in the order of the shards, each with its category's label."""
    from tensorflow import train as protos

    from pipeline import tfrecord

    data = Manifest.load(work.folder)
    label_key = schema.level_key(data.taxonomy().num_levels)
    for shard in data.shards(schema.TRAIN):
        with open(data.path(shard.name), "rb") as file:
            content = memoryview(file.read())
        for record in tfrecord.walk(content):
            features = protos.Example.FromString(record).features.feature
            for image in features[schema.IMAGES].bytes_list.value:
                yield image, features[label_key].int64_list.value[0]


def raw_decoder(work: Work) -> Callable[[], Iterator[int]]:
    """The limit: libjpeg-turbo on images in memory, into one array, with the settings and pixels of all others."""
    import simplejpeg

    images = [image for image, _ in itertools.islice(labelled_pictures(work), _RAW_IMAGES)]
    batch = np.empty((work.batch_size, work.decode_size, work.decode_size, 3), np.uint8)
    decode = functools.partial(simplejpeg.decode_jpeg, fastdct=True, fastupsample=False)

    def decode_rows(first: int, rows: range) -> None:
        for row in rows:
            decode(images[first + row], buffer=batch[row])

    def batches() -> Iterator[int]:
        shares = [range(core, work.batch_size, work.cores) for core in range(work.cores)]
        with ThreadPoolExecutor(work.cores) as pool:
            for first in range(0, len(images) - work.batch_size + 1, work.batch_size):
                list(pool.map(functools.partial(decode_rows, first), shares))
                yield work.batch_size

    return batches


def aisle(work: Work) -> Callable[[], Iterator[int]]:
    """This project's training input."""
    from pipeline.input import InputConfig, TrainInput

    config = InputConfig(
        batch_size=work.batch_size,
        decode_size=work.decode_size,
        image_size=work.image_size,
        shuffle_images=work.shuffle_images,
    )

    train_input = TrainInput(Manifest.load(work.folder), config)

    def batches() -> Iterator[int]:
        for images, _, _ in train_input.epoch(0):
            yield len(images)

    return batches


def naive_tf_data(work: Work) -> Callable[[], Iterator[int]]:
    """The recipe of TensorFlow's guides: parse, flatten, shuffle, decode and crop each image, batch, prefetch."""
    import tensorflow as tf

    data = Manifest.load(work.folder)
    paths = [data.path(shard.name) for shard in data.shards(schema.TRAIN)]
    features = {
        schema.level_key(data.taxonomy().num_levels): tf.io.FixedLenFeature((), tf.int64),
        schema.IMAGES: tf.io.RaggedFeature(tf.string),
    }

    def parse(serialized):  # type: ignore[no-untyped-def]
        label, images = tf.io.parse_single_example(serialized, features).values()
        return tf.data.Dataset.from_tensor_slices((images, tf.fill(tf.shape(images), label)))

    def decode(image, label):  # type: ignore[no-untyped-def]
        size = (work.image_size, work.image_size, 3)
        return tf.image.random_crop(tf.io.decode_jpeg(image, channels=3), size), label

    def batches() -> Iterator[int]:
        records = tf.data.TFRecordDataset(paths, num_parallel_reads=tf.data.AUTOTUNE)
        images = records.flat_map(parse).shuffle(work.shuffle_images).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        for batch, _ in images.batch(work.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE):
            yield len(batch)

    return batches


def tfds_decoded(work: Work) -> Callable[[], Iterator[int]]:
    """The shards by TensorFlow Datasets, product by product, decoded by it."""
    return _tfds(work, decode=True)


def tfds_encoded(work: Work) -> Callable[[], Iterator[int]]:
    """The same without decoding: what reading and parsing take there."""
    return _tfds(work, decode=False)


def _tfds(work: Work, *, decode: bool) -> Callable[[], Iterator[int]]:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(work.folder)
    decoders = None if decode else {schema.IMAGES: tfds.decode.SkipDecoding()}

    def batches() -> Iterator[int]:
        for product in builder.as_dataset(split=schema.TRAIN, decoders=decoders, shuffle_files=True):
            yield len(product[schema.IMAGES])

    return batches


OWN = {
    "raw decoder loop, images in memory": raw_decoder,
    "this input": aisle,
    "tf.data, the usual recipe": naive_tf_data,
    "TFDS on the same shards": tfds_decoded,
    "TFDS, decoding skipped": tfds_encoded,
}
LIMIT = next(iter(OWN))
