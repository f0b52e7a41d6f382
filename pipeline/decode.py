"""Encoded images to batches of pixels: one call a batch, one decoder everywhere.

JPEGs are decoded by libjpeg-turbo with the settings of `tf.io.decode_jpeg`, so
that training, prediction and an exported graph see the same pixels. What it
cannot decode as it is (PNG, CMYK, another size, a recoverable fault) takes a
slower way through TensorFlow.
"""

import re
import struct
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import simplejpeg
import tensorflow as tf

MAX_PIXELS = 64_000_000  # A larger image is refused before memory is asked for.
_ALIGNMENT = 64  # TensorFlow takes an array that is aligned so without a copy.
_PLACE = re.compile(r"\{\{.*?\}\} | \[Op:\w+\]")  # What TensorFlow says of its graph around a message.
_JPEG = b"\xff\xd8\xff"
_PNG, _GIF, _BMP = b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"


class UnreadableImage(Exception):
    """Bytes that make no picture; the message says why."""


def decode_batch(encoded: Sequence[bytes] | np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Decodes images into one array.

    Args:
      encoded: JPEG, PNG, GIF (its first frame) or BMP files. An empty one
        leaves a black picture that counts as unreadable.
      size: Height and width of the result in pixels; pictures of another size
        are resized, bilinear with antialiasing.

    Returns:
      Pictures, uint8 of shape (len(encoded), size, size, 3), black where
      unreadable; and which are readable, bool of shape (len(encoded),).
    """
    pictures = _aligned((len(encoded), size, size, 3))
    readable = np.zeros(len(encoded), np.bool_)
    for number, data in enumerate(encoded):
        try:
            decode_into(data, pictures[number])
            readable[number] = True
        except UnreadableImage:
            pictures[number] = 0
    return pictures, readable


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    return buffer[offset : offset + size].reshape(shape)


def decode_into(data: bytes, picture: np.ndarray) -> None:
    """Decodes one image.

    Args:
      data: An encoded image.
      picture: Where it goes: uint8 of shape (height, width, 3), contiguous.

    Raises:
      UnreadableImage: The bytes make no picture.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: it finds no size at all.
        height, width = _dimensions(data)
        space = ""
    if (height, width) == picture.shape[:2] and space in ("YCbCr", "Gray"):
        with suppress(ValueError):  # Of a fault, which TensorFlow may recover from, as an exported graph does.
            simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False, buffer=picture)
            return
    if height * width > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels; expected {MAX_PIXELS} at most")
    picture[:] = _decode_any(data, *picture.shape[:2])


def _dimensions(data: bytes) -> tuple[int, int]:
    """Returns height and width of what is no sound JPEG, from its header."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
    elif data.startswith(_GIF) and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
    elif data.startswith(_BMP) and len(data) >= 26:
        width, height = map(abs, struct.unpack_from("<ii", data, 18))
    elif data.startswith(_JPEG):
        return _jpeg_dimensions(data)
    else:
        raise UnreadableImage("neither a sound JPEG nor a PNG, GIF or BMP")
    return height, width


def _jpeg_dimensions(data: bytes) -> tuple[int, int]:
    """Returns height and width of a JPEG of which simplejpeg makes nothing, such as one with rare subsampling."""
    with tf.device("CPU"):
        try:
            height, width, _ = tf.image.extract_jpeg_shape(data).numpy().tolist()
        except tf.errors.InvalidArgumentError as error:
            raise _unreadable(error) from None
    return height, width


def _unreadable(error: tf.errors.InvalidArgumentError) -> UnreadableImage:
    return UnreadableImage(_PLACE.sub("", " ".join(error.message.split())))


def _decode_any(data: bytes, height: int, width: int) -> np.ndarray:
    with tf.device("CPU"):
        try:
            picture = tf.io.decode_image(data, channels=3, expand_animations=False)
        except tf.errors.InvalidArgumentError as error:
            raise _unreadable(error) from None
        if picture.shape[:2] != (height, width):
            picture = resized(picture, height, width)
        return np.asarray(picture)


def resized(picture: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes a picture, uint8 of shape (any, any, 3), bilinear with antialiasing; a graph may hold it too."""
    values = tf.image.resize(picture, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)
