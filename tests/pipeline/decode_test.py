"""Tests of decoding pictures: TensorFlow's pixels, and odd files."""

import struct
from collections.abc import Callable
from pathlib import Path

import bson
import numpy as np
import pytest
import simplejpeg
import tensorflow as tf

from pipeline import decode
from pipeline.decode import UnreadableImage
from tools import synthetic_pictures

_SIZE = synthetic_pictures.SIZE


def _jpeg(product: int = 0) -> bytes:
    return synthetic_pictures.draw(("A", "B", "C"), product=product, view=0, seed=0)


def _decoded(data: bytes, size: int = _SIZE) -> np.ndarray:
    picture = np.empty((size, size, 3), np.uint8)
    decode.decode_into(data, picture)
    return picture


def _colour(width: int = _SIZE, height: int = _SIZE) -> np.ndarray:
    return np.full((height, width, 3), (200, 100, 50), np.uint8)


def test_jpegs_have_the_pixels_of_tensorflow() -> None:
    for product in range(5):
        data = _jpeg(product)
        np.testing.assert_array_equal(_decoded(data), tf.io.decode_jpeg(data).numpy())


def test_real_jpegs_have_the_pixels_of_tensorflow(real_data: Callable[[str], Path]) -> None:
    products = bson.decode_all(real_data("cdiscount/train_example.bson").read_bytes())
    pictures = [image["picture"] for product in products for image in product["imgs"]]
    for data in pictures:
        np.testing.assert_array_equal(_decoded(data), tf.io.decode_jpeg(data).numpy())
    assert len(pictures) == 110


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "grey png", "grey jpeg", "transparent png"])
def test_odd_files_become_three_channels(kind: str) -> None:
    colour = _colour()
    encoders: dict[str, Callable[[], bytes]] = {
        "png": lambda: tf.io.encode_png(colour).numpy(),
        "bmp": lambda: _bmp(colour),
        "gif": lambda: _GIF,
        "grey png": lambda: tf.io.encode_png(colour[..., :1]).numpy(),
        "grey jpeg": lambda: simplejpeg.encode_jpeg(np.ascontiguousarray(colour[..., :1]), colorspace="GRAY"),
        "transparent png": lambda: tf.io.encode_png(np.dstack([colour, colour[..., :1]])).numpy(),
    }
    encoded = encoders[kind]()
    expected = {"grey png": (200,) * 3, "grey jpeg": (200,) * 3, "gif": (255, 0, 0)}.get(kind, (200, 100, 50))
    found = _decoded(encoded)
    np.testing.assert_allclose(found.reshape(-1, 3).mean(axis=0), expected, atol=3)


# A red picture of one pixel.
_GIF = b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def _bmp(picture: np.ndarray) -> bytes:
    height, width, _ = picture.shape
    rows = picture[::-1, :, ::-1].tobytes()  # From the bottom, blue first.
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


@pytest.mark.parametrize(("width", "height"), [(90, 90), (400, 200), (1, 1), (180, 181)])
def test_other_sizes_are_resized(width: int, height: int) -> None:
    found = _decoded(bytes(simplejpeg.encode_jpeg(_colour(width, height), quality=95)))
    np.testing.assert_allclose(found.reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=4)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(30), b"GIF89a", b"BM"])
def test_garbage_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        _decoded(data)


def test_a_picture_of_billions_of_pixels_is_refused_before_it_is_decoded() -> None:
    data = bytearray(_jpeg())
    frame = data.index(b"\xff\xc0")  # Start of frame: length, precision, height, width.
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(UnreadableImage, match="65000x65000 pixels"):
        _decoded(bytes(data))
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 60_000, 60_000)
    with pytest.raises(UnreadableImage, match="60000x60000 pixels"):
        _decoded(png)


def test_a_truncated_jpeg_costs_only_itself() -> None:
    whole = _jpeg()
    pictures, readable = decode.decode_batch([whole, whole[: len(whole) // 2], b"", whole], _SIZE)
    assert readable[[0, 3]].all()
    assert not readable[2]
    np.testing.assert_array_equal(pictures[0], pictures[3])
    assert not pictures[~readable].any()


def test_a_batch_lies_where_tensorflow_takes_it_without_a_copy() -> None:
    pictures, _ = decode.decode_batch([_jpeg()] * 3, _SIZE)
    assert pictures.ctypes.data % 64 == 0
    assert pictures.flags.c_contiguous
