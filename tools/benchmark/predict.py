"""Prediction beside the bare forward pass and the ways of an earlier report, and its memory at growing sizes."""

import functools
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import simplejpeg
import tensorflow as tf

from export.predictor import PredictConfig, Predictor
from model import checkpoint
from model.checkpoint import Position
from model.config import ModelConfig, TrainConfig
from model.run import Run
from pipeline import files, schema, shard_job, tfrecord
from pipeline.input import InputConfig
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_catalogue, synthetic_tree
from tools.benchmark import process
from tools.benchmark.table import Table, best_seconds
from tools.synthetic_catalogue import CatalogueConfig

_CATEGORIES = 500
_TRAIN_PRODUCTS = 1_000  # Only to have a run to predict with; it is not trained.
_FEW_IMAGES = 100  # Predicted image by image.
_MEMORY_PRODUCTS = (10_000, 100_000, 1_000_000)
_SMALL_PICTURE = 16  # Pixels, of the pictures of the table of memory: what is measured there is not decoding.
_SMALL_PICTURES = 512
_PRODUCTS_PER_WRITE = 10_000


class _Size(NamedTuple):
    """What is predicted to measure speed."""

    backbone: str
    image_size: int
    products: int


_SIZES = (_Size("simple_cnn", 160, 1600), _Size("xception", 128, 500))


def measure(folder: str, *, rounds: int) -> Iterator[Table]:
    """Yields a table of speed for each of two models, then one of memory.

    Args:
      folder: Where files are made; needs 4 GB.
      rounds: Rounds of which the best counts.
    """
    train = _labelled(folder)
    for size in _SIZES:
        yield _speed(os.path.join(folder, size.backbone), train, size, rounds=rounds)
    yield _memory(os.path.join(folder, "memory"), train)


def _labelled(folder: str) -> Manifest:
    """Makes the dataset that gives runs their categories."""
    return _drawn(os.path.join(folder, "labelled"), synthetic_catalogue.TRAIN, _TRAIN_PRODUCTS)


def _drawn(folder: str, name: str, products: int) -> Manifest:
    """Draws products and shards them."""
    test = name == synthetic_catalogue.TEST
    tree = synthetic_tree.make(_CATEGORIES, seed=0)
    counts = {"products": 0 if test else products, "test_products": products if test else 0}
    config = CatalogueConfig(output=folder, tree=tree, workers=os.cpu_count() or 1, overwrite=True, **counts)
    synthetic_catalogue.write(config)
    categories = os.path.join(folder, synthetic_catalogue.CATEGORIES)
    inputs = (os.path.join(folder, name),)
    return shard_job.run(ShardConfig(inputs=inputs, output=os.path.join(folder, "shards"), categories=categories))


def _untrained(folder: str, data: Manifest, backbone: str, *, decode_size: int, image_size: int) -> Run:
    config = TrainConfig(
        model=ModelConfig(backbone=backbone), input=InputConfig(decode_size=decode_size, image_size=image_size)
    )
    run = Run.begin(folder, config, data)
    checkpoint.save(run.checkpoints, run.build(pretrained=False), Position())
    return run


def _speed(folder: str, train: Manifest, size: _Size, *, rounds: int) -> Table:
    data = _drawn(os.path.join(folder, "drawn"), synthetic_catalogue.TEST, size.products)
    run = _untrained(os.path.join(folder, "run"), train, size.backbone, decode_size=180, image_size=size.image_size)
    classifier, _ = run.trained()
    images = sum(shard.images for shard in data.shards(schema.TEST))
    unpacked = os.path.join(folder, "unpacked")
    few = _unpack(data, unpacked)[:_FEW_IMAGES]
    config = PredictConfig(runs=(run.folder,), data=data.folder, output=os.path.join(folder, "submission.csv"))
    predictor = Predictor(config)
    batch = np.random.default_rng(0).integers(
        0, 256, (predictor.batch_size, size.image_size, size.image_size, 3), np.uint8
    )
    batches = -(-images // len(batch))
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "bare forward pass": (functools.partial(_forward, classifier, batch, batches), batches * len(batch)),
        "prediction, once started": (lambda: list(predictor.predict([0])), images),
        "whole command": (functools.partial(_command, config), images),
        "generator over folders": (functools.partial(_by_generator, classifier, unpacked, size.image_size), images),
        "image by image": (functools.partial(_one_by_one, classifier, few, size.image_size), len(few)),
    }
    for call, _ in list(calls.values())[:2]:
        call()  # Traces the graphs.
    seconds = best_seconds({name: call for name, (call, _) in calls.items()}, rounds=rounds, prepare=int)
    table = Table(
        f"Predicting {size.products:,} products with {size.backbone} at {size.image_size} pixels, best of {rounds}",
        ["", "images", "s", "images/s", "of the forward pass", "times slower than prediction"],
    )
    rates = {name: amount / seconds[name] for name, (_, amount) in calls.items()}
    for name, (_, amount) in calls.items():
        share = rates[name] / rates["bare forward pass"]
        slower = rates["prediction, once started"] / rates[name]
        cells = [f"{amount:,}", f"{seconds[name]:.2f}", f"{rates[name]:,.1f}", f"{share:.3f}", f"{slower:.2f}"]
        table.rows.append([name, *cells])
    shutil.rmtree(folder)
    return table


def _forward(classifier: keras.Model, batch: np.ndarray, batches: int) -> None:
    for _ in range(batches):
        classifier.predict_on_batch(batch)


def _unpack(data: Manifest, folder: str) -> list[str]:
    """Writes every image into a folder of its product; returns the paths."""
    paths = []
    for shard in data.shards(schema.TEST):
        for record in tfrecord.walk(memoryview(files.read(data.path(shard.name)))):
            features = tf.train.Example.FromString(record).features.feature
            [product_id] = features[schema.PRODUCT_ID].int64_list.value
            for number, picture in enumerate(features[schema.IMAGES].bytes_list.value):
                paths.append(os.path.join(folder, str(product_id), f"{product_id}-{number}.jpg"))
                files.make_folder(os.path.dirname(paths[-1]))
                with open(paths[-1], "wb") as file:
                    file.write(picture)
    return paths


def _one_by_one(classifier: keras.Model, paths: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """Predicts each image by itself."""
    answers = {}
    for path in paths:
        picture = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(size, size)))
        answers[path] = classifier.predict(picture[np.newaxis].astype(np.uint8), verbose=0)
    return answers


def _by_generator(classifier: keras.Model, folder: str, size: int) -> dict[str, list[np.ndarray]]:
    """Predicts the images of folders through Keras's generator, and finds the products by the names of the files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = tf.keras.preprocessing.image.ImageDataGenerator().flow_from_directory(
            folder, target_size=(size, size), batch_size=64, class_mode=None, shuffle=False
        )
        answers = classifier.predict(generator, verbose=0)
    by_product: dict[str, list[np.ndarray]] = {}
    for name, row in zip(generator.filenames, answers, strict=True):
        by_product.setdefault(os.path.basename(name).split("-")[0], []).append(row)
    return by_product


def _command(config: PredictConfig) -> process.Run:
    words = ["--run", config.runs[0], "--data", config.data, "--output", config.output]
    return process.run("export.predict", *words)


def _memory(folder: str, train: Manifest) -> Table:
    table = Table(
        f"Memory of the whole command, pictures of {_SMALL_PICTURE} pixels, simple_cnn",
        ["products", "images", "s", "products/s", "peak MiB", "MB of CSV"],
    )
    run = _untrained(
        os.path.join(folder, "run"), train, "simple_cnn", decode_size=_SMALL_PICTURE, image_size=_SMALL_PICTURE
    )
    for products in _MEMORY_PRODUCTS:
        dump = os.path.join(folder, "many.bson")
        files.write(dump, _small_products(products))
        data = shard_job.run(ShardConfig(inputs=(dump,), output=os.path.join(folder, "shards")))
        os.unlink(dump)
        config = PredictConfig(runs=(run.folder,), data=data.folder, output=os.path.join(folder, "submission.csv"))
        seconds, peak = _command(config)
        images = sum(shard.images for shard in data.shards(schema.TEST))
        size = os.path.getsize(config.output) / 1e6
        cells = [f"{products:,}", f"{images:,}", f"{seconds:.1f}", f"{products / seconds:,.0f}"]
        table.rows.append([*cells, f"{peak / (1 << 20):.0f}", f"{size:.1f}"])
        shutil.rmtree(data.folder)
    return table


def _small_products(count: int) -> Iterator[bytes]:
    """Yields documents of products with one or two of a few small pictures."""
    random = np.random.default_rng(0)
    shape = (_SMALL_PICTURES, _SMALL_PICTURE, _SMALL_PICTURE, 3)
    pictures = [simplejpeg.encode_jpeg(picture) for picture in random.integers(0, 256, shape, np.uint8)]
    for first in range(0, count, _PRODUCTS_PER_WRITE):
        numbers = range(first, min(first + _PRODUCTS_PER_WRITE, count))
        yield b"".join(
            synthetic_catalogue.document(
                number, [pictures[(number + view) % _SMALL_PICTURES] for view in range(1 + (number % 4 == 0))], None
            )
            for number in numbers
        )
