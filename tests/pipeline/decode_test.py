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
from pipeline.console import UserError
from pipeline.decode import BatchDecoder, UnreadableImage
from pipeline.odd_images import ImagePolicy, ImageReport
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


def _cmyk() -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((_SIZE, _SIZE, 4), 200, np.uint8), colorspace="CMYK"))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (_jpeg(), None),
        (bytes(simplejpeg.encode_jpeg(_colour(90, 90))), "of another size"),
        (tf.io.encode_png(_colour()).numpy(), "PNG"),
        (_bmp(_colour()), "BMP"),
        (_GIF, "GIF"),
        (_cmyk(), "YCCK JPEG"),
    ],
)
def test_odd_files_say_what_they_are(data: bytes, kind: str | None) -> None:
    assert decode.decode_into(data, np.empty((_SIZE, _SIZE, 3), np.uint8)) == kind


def _batch(
    encoded: list[bytes], *, size: int = _SIZE, policy: ImagePolicy | None = None, report: ImageReport | None = None
) -> tuple[np.ndarray, np.ndarray]:
    decoder = BatchDecoder(_SIZE, size, policy=policy, report=report)
    return decoder.decode(
        encoded, corners=np.full((len(encoded), 2), (_SIZE - size) // 2), product_ids=100 + np.arange(len(encoded))
    )


def test_a_truncated_jpeg_costs_only_itself() -> None:
    whole = _jpeg()
    pictures, readable = _batch([whole, whole[: len(whole) // 2], b"", whole])
    assert readable.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(pictures[0], pictures[3])
    assert not pictures[~readable].any()


def test_a_picture_is_cut_out_where_it_is_told() -> None:
    whole = _decoded(_jpeg())
    pictures, _ = BatchDecoder(_SIZE, 100).decode(
        [_jpeg(), _jpeg()], corners=np.array([[0, 80], [33, 7]]), product_ids=np.zeros(2, np.int64)
    )
    np.testing.assert_array_equal(pictures[0], whole[:100, 80:])
    np.testing.assert_array_equal(pictures[1], whole[33:133, 7:107])


def test_a_batch_lies_where_tensorflow_takes_it_without_a_copy() -> None:
    pictures, _ = _batch([_jpeg()] * 3)
    assert pictures.ctypes.data % 64 == 0
    assert pictures.flags.c_contiguous


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    decoder = BatchDecoder(_SIZE, _SIZE)
    corners, ids = np.zeros((1, 2), np.int64), np.zeros(1, np.int64)
    first, _ = decoder.decode([_jpeg(1)], corners=corners, product_ids=ids)
    row, address = first[0, 3:5], first.ctypes.data
    expected = row.copy()
    second, _ = decoder.decode([_jpeg(2)], corners=corners, product_ids=ids)
    assert second.ctypes.data != address
    del first  # A part of it is still held.
    third, _ = decoder.decode([_jpeg(3)], corners=corners, product_ids=ids)
    assert third.ctypes.data != address
    np.testing.assert_array_equal(row, expected)
    del row
    fourth, _ = decoder.decode([_jpeg(4)], corners=corners, product_ids=ids)
    assert fourth.ctypes.data == address


def test_odd_pictures_are_counted_and_listed_by_product() -> None:
    report = ImageReport()
    png = tf.io.encode_png(_colour()).numpy()
    _batch([_jpeg(), png, b"broken", png], report=report)
    assert report.to_json() == {
        "PNG": {"images": 2, "products": [101, 103]},
        "unreadable": {"images": 1, "products": [102]},
    }
    assert report.summary() == "2 PNG, 1 unreadable"


def test_odd_pictures_are_left_out_where_that_is_asked_for() -> None:
    png = tf.io.encode_png(_colour()).numpy()
    pictures, readable = _batch([_jpeg(), png], policy=ImagePolicy(odd_images="skip"))
    assert readable.tolist() == [True, False]
    assert not pictures[1].any()


@pytest.mark.parametrize(
    ("data", "policy"),
    [
        (b"broken", ImagePolicy(unreadable_images="error")),
        (tf.io.encode_png(_colour()).numpy(), ImagePolicy(odd_images="error")),
    ],
)
def test_odd_pictures_end_the_work_where_that_is_asked_for(data: bytes, policy: ImagePolicy) -> None:
    with pytest.raises(UserError, match="product 101 has an image that is not as expected"):
        _batch([_jpeg(), data], policy=policy)


@pytest.mark.parametrize("options", [{"odd_images": "ignore"}, {"unreadable_images": "convert"}])
def test_policies_that_are_not_there_are_refused_by_name(options: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        ImagePolicy(**options)


@pytest.mark.parametrize("kept", [177, 200, 2000, -2])
def test_a_cut_picture_is_the_same_whether_its_start_is_known_or_not(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome() -> tuple[str | None, bytes]:
        picture = np.zeros((_SIZE, _SIZE, 3), np.uint8)
        try:
            return decode.decode_into(_jpeg()[:kept], picture), picture.tobytes()
        except UnreadableImage as error:
            return str(error), b""

    monkeypatch.setattr(decode, "_sizes", {})
    unknown = outcome()
    _decoded(_jpeg(1))
    assert len(decode._sizes) == 1
    assert outcome() == unknown


def test_a_start_without_the_frame_header_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_sizes", {})
    data = _jpeg()
    comment = b"\xff\xfe" + (300).to_bytes(2, "big") + bytes(298)
    longer = data[:2] + comment + data[2:]
    np.testing.assert_array_equal(_decoded(longer), _decoded(data))
    assert list(decode._sizes) == [data[:177]]
