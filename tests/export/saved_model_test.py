"""Tests of the exported graph: TensorFlow alone, prediction's answers, decoding's pixels."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import simplejpeg
import tensorflow as tf

from export import parity, pictures, saved_model
from model.run import Run
from model.scoring import ProductScorer
from pipeline import product_batches, schema, taxonomy
from pipeline.input import InputConfig
from pipeline.manifest import Manifest
from tools import synthetic_pictures

_SIZE, _CUT = 36, 6
_PIXELS = _CUT * _CUT * 3
_CONFIG = InputConfig(decode_size=_SIZE, image_size=_CUT)
_PRIOR = np.arange(1, _PIXELS + 1) / np.arange(1, _PIXELS + 1).sum()


@pytest.fixture(scope="module")
def pixels() -> saved_model.Service:
    """The graph around a network whose logits are the pixels, so that answers tell them apart."""
    images = keras.Input((_CUT, _CUT, 3), dtype="uint8")
    logits = keras.layers.Rescaling(1 / 16, dtype="float32")(keras.layers.Flatten()(images))
    tree = taxonomy.flat(range(_PIXELS))
    return saved_model.Service(keras.Model(images, logits), tree, prior=_PRIOR, config=_CONFIG, top_k=_PIXELS)


def _by_category(answers: dict[str, tf.Tensor]) -> np.ndarray:
    order = np.argsort(answers["category_ids"].numpy(), axis=1)
    return np.take_along_axis(answers["probabilities"].numpy(), order, axis=1)


def _softmax(decoded: np.ndarray) -> np.ndarray:
    powers = np.exp(decoded.reshape(len(decoded), -1) / 16)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _jpeg(size: int, product: int = 0) -> bytes:
    """Returns a made-up picture, drawn smaller."""
    picture = simplejpeg.decode_jpeg(synthetic_pictures.draw(("A", "B", str(product)), product=product, view=0, seed=0))
    step = len(picture) // size
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture[::step, ::step][:size, :size]), quality=85))


def _odd_files() -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(np.uint8)
    grey = np.ascontiguousarray(picture[..., :1])
    bomb = bytearray(_jpeg(_SIZE))
    frame = bomb.index(b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return [
        tf.io.encode_png(picture).numpy(),
        tf.io.encode_png(grey).numpy(),
        b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        bytes(simplejpeg.encode_jpeg(grey, colorspace="GRAY")),
        bytes(simplejpeg.encode_jpeg(picture)),
        b"BM" + bytes(16) + struct.pack("<ii", 1 << 20, 1 << 20),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 60_000, 60_000),
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        bytes(bomb),
        b"\xff\xd8",
        b"",
        b"x",
    ]


def _damaged(count: int) -> list[bytes]:
    """Returns pictures with a few wrong bytes, some of them cut short."""
    numbers = np.random.default_rng(1)
    whole = [_jpeg(_SIZE, product) for product in range(20)]
    found = []
    for number in range(count):
        data = bytearray(whole[number % len(whole)])
        for position in numbers.integers(0, len(data), 2):
            data[position] = numbers.integers(0, 256)
        end = int(numbers.integers(0, len(data))) if number % 5 == 0 else len(data)
        found.append(bytes(data[:end]))
    return found


def test_every_picture_is_read_or_refused_as_prediction_does_it(pixels: saved_model.Service) -> None:
    encoded = [_jpeg(_SIZE), _jpeg(60), *_odd_files(), *_damaged(300)]
    expected, readable = product_batches.decode_middle(encoded, _CONFIG)
    answers = pixels.classify(tf.constant(encoded))
    np.testing.assert_array_equal(answers["readable_images"].numpy(), readable)
    assert readable[:7].all()
    assert not readable[7 : 2 + len(_odd_files())].any()
    assert readable.sum() > 50
    assert (~readable).sum() > 50
    np.testing.assert_allclose(_by_category(answers)[readable], _softmax(expected[readable]), atol=1e-6)
    np.testing.assert_allclose(_by_category(answers)[~readable], np.tile(_PRIOR, ((~readable).sum(), 1)), atol=1e-6)


@pytest.mark.parametrize("encoded", [[b""], [b"no picture", b"\xff\xd8\xff"]])
def test_a_request_without_a_readable_picture_gets_the_prior(pixels: saved_model.Service, encoded: list[bytes]) -> None:
    answers = pixels.classify(tf.constant(encoded))
    np.testing.assert_allclose(_by_category(answers), np.tile(_PRIOR, (len(encoded), 1)), atol=1e-6)
    assert answers["readable_images"].numpy().tolist() == [0] * len(encoded)


def test_a_request_without_a_picture_gets_no_row(pixels: saved_model.Service) -> None:
    nothing = tf.constant([], tf.string)
    assert pixels.classify(nothing)["category_ids"].shape == (0, _PIXELS)
    assert pixels.classify_products(nothing, tf.constant([], tf.int32))["category_ids"].shape == (0, _PIXELS)


def test_a_product_gets_the_mean_over_its_readable_pictures_in_any_order(pixels: saved_model.Service) -> None:
    encoded = [_jpeg(_SIZE, 0), b"broken", _jpeg(_SIZE, 1), _jpeg(60, 2), b""]
    answers = pixels.classify_products(tf.constant(encoded), tf.constant([2, 2, 0, 2, 1]))
    decoded, _ = product_batches.decode_middle(encoded, _CONFIG)
    single = _softmax(decoded)
    expected = [single[2], _PRIOR, single[[0, 3]].mean(axis=0)]
    np.testing.assert_allclose(_by_category(answers), expected, atol=1e-6)
    assert answers["readable_images"].numpy().tolist() == [1, 0, 2]


@pytest.mark.parametrize("products", [[0, 7], [-1, 0], [0], [0, 1 << 30]])
def test_numbers_of_products_that_could_ask_for_any_memory_are_refused(
    pixels: saved_model.Service, products: list[int]
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
        pixels.classify_products(tf.constant([_jpeg(_SIZE)] * 2), tf.constant(products))


def test_a_saved_model_answers_as_prediction_from_the_shards(
    trained_run: Run, test_data: Manifest, model_folder: Path
) -> None:
    classifier, _ = trained_run.trained()
    config = trained_run.config.input
    scorer = ProductScorer(classifier, trained_run.tree, prior=trained_run.prior, capacity=config.batch_size, top_k=4)
    exported = saved_model.answers(str(model_folder / "1"))
    compared = 0
    for batch in product_batches.products(test_data, config, split=schema.TEST):
        scores = scorer.score(batch)
        ids = np.asarray(batch.product_ids)[: len(scores.num_images)].tolist()
        encoded = pictures.of_products(test_data, split=schema.TEST, product_ids=ids)
        found = exported([encoded[product_id] for product_id in ids])
        expected = np.array(trained_run.tree.category_ids)[scores.top_labels]
        np.testing.assert_array_equal(found.category_ids[:, 0], expected[:, 0])
        np.testing.assert_allclose(found.probabilities, scores.top_probabilities, atol=parity.TOLERANCE)
        compared += len(ids)
    assert compared == 80


_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pipeline", "model", "export", "tools", "simplejpeg"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
jpeg = tf.io.read_file(sys.argv[2])
answers = model.signatures["serving_default"](image_bytes=tf.stack([jpeg]))
print(answers["category_ids"].numpy()[0, 0], answers["category_paths"].numpy()[0, 0].decode())
"""


def test_a_saved_model_loads_where_this_project_is_not(trained_run: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(
        synthetic_pictures.draw(trained_run.tree.paths[0], product=0, view=0, seed=0)
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-I", "-c", _ALONE, str(model_folder / "1"), "picture.jpg"]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    category_id, path = result.stdout.strip().split(" ", maxsplit=1)
    assert path == " > ".join(trained_run.tree.paths[trained_run.tree.label_of[int(category_id)]])
