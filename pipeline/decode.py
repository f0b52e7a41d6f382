"""Encoded images to batches of pixels: one call a batch, one decoder everywhere.

JPEGs are decoded by libjpeg-turbo with the settings of `tf.io.decode_jpeg`, so
that training, prediction and an exported graph see the same pixels. What it
cannot decode as it is (PNG, CMYK, another size, a recoverable fault) takes a
slower way through TensorFlow.
"""

import mmap
import re
import struct
import weakref
from collections.abc import Iterable

import numpy as np
import simplejpeg
import tensorflow as tf

from pipeline.console import UserError
from pipeline.odd_images import CONVERT, ERROR, ImagePolicy, ImageReport

MAX_PIXELS = 64_000_000  # A larger image is refused before memory is asked for.
UNREADABLE = "unreadable"
_PLACE = re.compile(r"\{\{.*?\}\} | \[Op:\w+\]")  # What TensorFlow says of its graph around a message.
_JPEG = b"\xff\xd8\xff"
# A shop's pictures come from one encoder, so most begin with the same bytes: all of Cdiscount's sample do, up to here,
# where the frame header of a plain JFIF file ends.
_START_BYTES = 177
_MAX_STARTS = 256
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1.
_sizes: dict[bytes, tuple[int, int]] = {}
_PNG, _GIF, _BMP = b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"


class UnreadableImage(Exception):
    """Bytes that make no picture; the message says why."""


class BatchDecoder:
    """Decodes batches, each into one array whose memory is used again when nobody holds the array any more.

    Fresh memory would cost a fifth of the time: the system hands it out page by
    page, each filled with zeros. The array begins at a page, so TensorFlow takes
    it without a copy.

    Args:
      decode_size: Height and width to which pictures are decoded, in pixels;
        those of another size are resized, bilinear with antialiasing.
      image_size: Height and width of what is cut out of them.
      policy: What to do with pictures that are not as expected.
      report: Where these are counted.
    """

    def __init__(
        self,
        decode_size: int,
        image_size: int,
        *,
        policy: ImagePolicy | None = None,
        report: ImageReport | None = None,
    ) -> None:
        self._decode_size, self._image_size = decode_size, image_size
        self._policy = policy or ImagePolicy()
        self._report = report or ImageReport()
        self._free: list[mmap.mmap] = []

    def decode(
        self, encoded: Iterable[bytes | memoryview], *, corners: np.ndarray, product_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes images.

        Args:
          encoded: JPEG, PNG, GIF (its first frame) or BMP files. An empty one
            leaves a black picture that counts as unreadable.
          corners: Top and left of what is cut out of each decoded picture:
            integers of shape (images, 2).
          product_ids: Products that the images are of, integers of shape
            (images,).

        Returns:
          Pictures, uint8 of shape (images, image_size, image_size, 3),
          black where unreadable; and which are readable, bool of shape
          (images,).

        Raises:
          UserError: A picture is not as expected, and the policy is "error".
        """
        pictures = self._array(len(corners))
        readable = np.zeros(len(corners), np.bool_)
        size = self._image_size
        whole = np.empty((self._decode_size, self._decode_size, 3), np.uint8)
        cuts = size != self._decode_size
        for number, (data, picture, (top, left)) in enumerate(zip(encoded, pictures, corners.tolist(), strict=True)):
            # What is cut out is copied from a picture that is still in the cache.
            target = whole if cuts else picture
            if not data or not self._decode_one(data, target, product_ids[number]):
                picture[:] = 0
                continue
            readable[number] = True
            if cuts:
                picture[:] = whole[top : top + size, left : left + size]
        return pictures, readable

    def _decode_one(self, data: bytes | memoryview, picture: np.ndarray, product_id: int) -> bool:
        try:
            kind = decode_into(data, picture)
        except UnreadableImage as error:
            return self._odd(UNREADABLE, str(error), product_id, policy=self._policy.unreadable_images)
        return kind is None or self._odd(kind, "converted", product_id, policy=self._policy.odd_images)

    def _odd(self, kind: str, reason: str, product_id: int, *, policy: str) -> bool:
        """Counts a picture; returns whether to use it."""
        if policy == ERROR:
            raise UserError(
                f"product {product_id} has an image that is not as expected: {kind}, {reason}. Leave such images out "
                "with --odd_images=skip and --unreadable_images=skip."
            )
        self._report.add(kind, int(product_id))
        return policy == CONVERT

    def _array(self, count: int) -> np.ndarray:
        shape = (count, self._image_size, self._image_size, 3)
        size = max(1, int(np.prod(shape)))
        memory = self._free.pop() if self._free else mmap.mmap(-1, size)
        if len(memory) < size:
            memory = mmap.mmap(-1, size)
        # All views of this array hold on to it, so it outlives them.
        array = np.frombuffer(memory, np.uint8, int(np.prod(shape)))
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)


def decode_into(data: bytes | memoryview, picture: np.ndarray) -> str | None:
    """Decodes one image.

    Args:
      data: An encoded image.
      picture: Where it goes: uint8 of shape (height, width, 3), contiguous.

    Returns:
      None for a JPEG of that size in colour or grey; else what it was, such as
      "PNG", "CMYK JPEG" or "of another size".

    Raises:
      UnreadableImage: The bytes make no picture.
    """
    start = bytes(data[:_START_BYTES])
    if _sizes.get(start) == picture.shape[:2]:
        try:
            simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False, buffer=picture)
            return None
        except ValueError:
            pass  # What is wrong with it is found out below.
    kind, height, width = _kind(data, picture)
    if kind is None:
        try:
            simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=False, buffer=picture)
            _remember(start, height, width)
            return None
        except ValueError:
            kind = "JPEG with a fault"  # From some TensorFlow recovers, as an exported graph does.
    if height * width > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels; expected {MAX_PIXELS} at most")
    picture[:] = _decode_any(bytes(data), *picture.shape[:2])
    return kind


def _remember(start: bytes, height: int, width: int) -> None:
    """Notes that JPEGs with this start are of that size, in colour or grey, if it holds all that tells so."""
    position = 2
    while position + 4 <= len(start) and start[position] == 0xFF and len(_sizes) < _MAX_STARTS:
        marker = start[position + 1]
        position += 2 + int.from_bytes(start[position + 2 : position + 4], "big")
        if marker in _FRAME_MARKERS:
            if position <= len(start):
                _sizes[start] = (height, width)
            return


def _kind(data: bytes | memoryview, picture: np.ndarray) -> tuple[str | None, int, int]:
    """Returns what an image is, None for a JPEG that is decoded as it is; its height and its width.

    Without this libjpeg-turbo would also decode CMYK, to other pixels than
    TensorFlow. It costs 2% of decoding, so `decode_into` remembers starts.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: it finds no size at all.
        return _foreign(bytes(data))
    if (height, width) != picture.shape[:2]:
        return "of another size", height, width
    return None if space in ("YCbCr", "Gray") else f"{space} JPEG", height, width


def _foreign(data: bytes) -> tuple[str, int, int]:
    """Returns kind, height and width of what is no sound JPEG, from its header."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return "PNG", height, width
    if data.startswith(_GIF) and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return "GIF", height, width
    if data.startswith(_BMP) and len(data) >= 26:
        width, height = map(abs, struct.unpack_from("<ii", data, 18))
        return "BMP", height, width
    if data.startswith(_JPEG):
        return "JPEG of a rare kind", *_jpeg_dimensions(data)
    raise UnreadableImage("neither a sound JPEG nor a PNG, GIF or BMP")


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
