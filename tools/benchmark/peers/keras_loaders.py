"""Loaders of Keras: from folders of images, and from BSON the way competitors read it."""

import collections
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any

import bson
import numpy as np

from tools.benchmark.peers.images import Images, made
from tools.benchmark.rates import Loader, Work

_Batches = Callable[[], Iterator[int]]


def _folders(work: Work) -> str:
    """Returns a folder with a folder for each category, and a file for each image in it."""

    def write(folder: str) -> None:
        images = Images(work)
        for row in range(len(images)):
            category = os.path.join(folder, f"{images.labels[row]:05d}")
            os.makedirs(category, exist_ok=True)
            with open(os.path.join(category, f"{row:08d}.jpg"), "wb") as file:
                file.write(images[row])

    return made(work, "folders", write)


def image_dataset_from_directory(work: Work) -> _Batches:
    """`keras.utils.image_dataset_from_directory`: a tf.data pipeline that decodes image by image to float32."""
    import tensorflow as tf

    size = (work.decode_size, work.decode_size)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        dataset = tf.keras.utils.image_dataset_from_directory(
            _folders(work), image_size=size, batch_size=work.batch_size, shuffle=True
        )

    def batches() -> Iterator[int]:
        for images, _ in dataset.prefetch(tf.data.AUTOTUNE):
            yield len(images)

    return batches


def image_data_generator(work: Work) -> _Batches:
    """`ImageDataGenerator.flow_from_directory`, which Keras keeps for old code: PIL, image by image, to float32."""
    import tensorflow as tf

    generator = tf.keras.preprocessing.image.ImageDataGenerator()
    size = (work.decode_size, work.decode_size)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        batches = generator.flow_from_directory(
            _folders(work), target_size=size, batch_size=work.batch_size, class_mode="sparse"
        )
    return _in_threads(batches, work)


def bson_iterator(work: Work) -> _Batches:
    """A Keras iterator over the BSON file itself, by a table of offsets: the best known way into this dataset.

    After the public "Keras generator for reading directly from BSON" of the
    challenge: seek, read and parse a document for each image, decode it by PIL,
    as float32 into the batch.
    """
    import tensorflow as tf
    from keras.src.legacy.preprocessing.image import Iterator as KerasIterator

    with open(work.dump, "rb") as file:
        content = file.read()
    documents = []
    for begin, end in _documents(content):
        product = bson.decode(content[begin:end])
        documents += [(begin, end, image, product["category_id"]) for image in range(len(product["imgs"]))]
    categories = {of: number for number, of in enumerate(sorted({row[-1] for row in documents}))}
    generator = tf.keras.preprocessing.image.ImageDataGenerator()
    shape = (work.decode_size, work.decode_size, 3)
    lock = threading.Lock()
    dump = open(work.dump, "rb")  # noqa: SIM115  Kept open, as the process is short.

    class BSONIterator(KerasIterator):
        def _get_batches_of_transformed_samples(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            images = np.zeros((len(rows), *shape), np.float32)
            labels = np.zeros((len(rows), len(categories)), np.float32)
            for number, row in enumerate(rows):
                begin, end, image, category = documents[row]
                with lock:
                    dump.seek(begin)
                    document = dump.read(end - begin)
                encoded = bson.decode(document)["imgs"][image]["picture"]
                picture = tf.keras.utils.load_img(BytesIO(encoded), target_size=shape[:2])
                array = tf.keras.utils.img_to_array(picture)
                images[number] = generator.standardize(generator.random_transform(array))
                labels[number, categories[category]] = 1
            return images, labels

    return _in_threads(BSONIterator(len(documents), work.batch_size, shuffle=True, seed=0), work)


def _documents(content: bytes) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < len(content):
        end = begin + int.from_bytes(content[begin : begin + 4], "little")
        yield begin, end
        begin = end


def _in_threads(batches: Any, work: Work) -> _Batches:
    """Returns a function that fetches batches in as many threads as there are cores, as `fit(workers=...)` did."""

    def passes() -> Iterator[int]:
        begun: collections.deque[Future[Any]] = collections.deque()
        with ThreadPoolExecutor(work.cores) as pool:
            for number in range(len(batches)):
                begun.append(pool.submit(batches.__getitem__, number))
                if len(begun) > 2 * work.cores:
                    yield len(begun.popleft().result()[0])
            while begun:
                yield len(begun.popleft().result()[0])

    return passes


ALL: dict[str, Loader] = {
    "Keras image_dataset_from_directory, 180 px, float32": image_dataset_from_directory,
    "Keras ImageDataGenerator, 180 px, float32": image_data_generator,
    "BSONIterator (PIL), 180 px, float32": bson_iterator,
}
