"""Prediction beside the bare forward pass and the ways of an earlier report, and its memory at growing sizes."""

import dataclasses
import functools
import os
import shutil
import time
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
from pipeline import files, product_batches, schema, shard_job, tfrecord
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
_BARE, _STARTED = "bare forward pass", "prediction, once started"
_READ = "reading and decoding alone"  # On a processor it takes its time from the forward pass.
_SMALL_PICTURE = 8  # Pixels, of the pictures of the table of memory: what is measured there is not decoding.
_SMALL_PICTURES = 512
_PRODUCTS_PER_WRITE = 10_000


class _Size(NamedTuple):
    """What is predicted to measure speed."""

    backbone: str
    image_size: int
    products: int
    peers: bool


_SIZES = (_Size("simple_cnn", 160, 3_000, peers=True), _Size("xception", 128, 600, peers=False))


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
    config = PredictConfig(runs=(run.folder,), data=data.folder, output=os.path.join(folder, "submission.csv"))
    calls = _calls(config, os.path.join(folder, "unpacked"), size)
    for name in (_BARE, _STARTED):
        calls[name].call()  # Traces the graphs.
    cpu: dict[str, float] = {}
    noted = {name: functools.partial(_note_cpu, name, item.call, cpu) for name, item in calls.items()}
    seconds = best_seconds(noted, rounds=rounds, prepare=int)
    table = Table(
        f"Predicting {size.products:,} products with {size.backbone} at {size.image_size} pixels, best of {rounds}",
        ["", "images", "s", "images/s", "of the forward pass", "slower than prediction", "CPU ms/image", "of its CPU"],
    )
    rates = {name: item.images / seconds[name] for name, item in calls.items()}
    costs = {name: 1000 * cpu[name] / item.images for name, item in calls.items()}
    for name, item in calls.items():
        cells = [f"{item.images:,}", f"{seconds[name]:.2f}", f"{rates[name]:,.1f}"]
        cells += [f"{rates[name] / rates[_BARE]:.3f}", f"{rates[_STARTED] / rates[name]:.2f} times"]
        table.rows.append([name, *cells, f"{costs[name]:.3f}", f"{costs[_BARE] / costs[name]:.3f}"])
    shutil.rmtree(folder)
    return table


class _Call(NamedTuple):
    """Something to measure, and the number of images it predicts."""

    call: Callable[[], object]
    images: int


def _calls(config: PredictConfig, unpacked: str, size: _Size) -> dict[str, _Call]:
    [run] = config.load_runs()
    classifier, _ = run.trained()
    data, predictor = config.load_data(), Predictor(config)
    shards = range(len(data.shards(schema.TEST)))
    images = sum(shard.images for shard in data.shards(schema.TEST))
    batch_size = predictor.batch_size
    shape = (batch_size, size.image_size, size.image_size, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batches = -(-images // batch_size)
    calls = {
        _BARE: _Call(functools.partial(_forward, classifier, batch, batches), batches * batch_size),
        _READ: _Call(lambda: _read(data, run, batch_size), images),
        _STARTED: _Call(lambda: list(predictor.predict(shards)), images),
        "whole command": _Call(functools.partial(_command, config), images),
    }
    if size.peers:
        few = _unpack(data, unpacked)[:_FEW_IMAGES]
        by_generator = functools.partial(_by_generator, classifier, unpacked, size.image_size)
        one_by_one = functools.partial(_one_by_one, classifier, few, size.image_size)
        calls |= {"generator over folders": _Call(by_generator, images), "image by image": _Call(one_by_one, len(few))}
    return calls


def _note_cpu(name: str, call: Callable[[], object], cpu: dict[str, float]) -> None:
    """Calls, and notes the least seconds of processors that it took; others on the machine change them little."""
    begun = time.process_time()
    result = call()
    spent = result.cpu if isinstance(result, process.Run) else time.process_time() - begun
    cpu[name] = min(cpu.get(name, spent), spent)


def _forward(classifier: keras.Model, batch: np.ndarray, batches: int) -> None:
    for _ in range(batches):
        classifier.predict_on_batch(batch)


def _read(data: Manifest, run: Run, batch_size: int) -> None:
    config = dataclasses.replace(run.config.input, batch_size=batch_size)
    for _ in product_batches.products(data, config, split=schema.TEST):
        pass


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
        ["products", "s", "products/s", "peak MiB", "MB of CSV"],
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
        seconds, _, peak = _command(config)
        size = os.path.getsize(config.output) / 1e6
        cells = [f"{products:,}", f"{seconds:.1f}", f"{products / seconds:,.0f}"]
        table.rows.append([*cells, f"{peak / (1 << 20):.0f}", f"{size:.1f}"])
        shutil.rmtree(data.folder)
    return table


def _small_products(count: int) -> Iterator[bytes]:
    """Yields documents of products with one of a few small pictures each."""
    random = np.random.default_rng(0)
    shape = (_SMALL_PICTURES, _SMALL_PICTURE, _SMALL_PICTURE, 3)
    pictures = [simplejpeg.encode_jpeg(picture) for picture in random.integers(0, 256, shape, np.uint8)]
    for first in range(0, count, _PRODUCTS_PER_WRITE):
        numbers = range(first, min(first + _PRODUCTS_PER_WRITE, count))
        yield b"".join(
            synthetic_catalogue.document(number, [pictures[number % _SMALL_PICTURES]], None) for number in numbers
        )
