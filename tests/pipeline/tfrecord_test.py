"""Tests of TFRecord framing; records_test.py compares it with TensorFlow's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import tfrecord
from pipeline.tfrecord import CorruptRecord


def _file(records: list[bytes]) -> bytes:
    headers = tfrecord.headers(np.array(list(map(len, records)), np.int64))
    footers = tfrecord.footers(np.array([tfrecord.extend_crc(0, record) for record in records]))
    parts = zip(headers, records, footers, strict=True)
    return b"".join(header.tobytes() + record + footer.tobytes() for header, record, footer in parts)


@given(st.lists(st.binary(max_size=100)))
def test_a_walk_yields_what_was_written(records: list[bytes]) -> None:
    assert list(tfrecord.walk(memoryview(_file(records)))) == records


@given(st.lists(st.binary(max_size=100), min_size=1), st.data())
def test_a_flipped_bit_anywhere_is_found_in_its_record(records: list[bytes], data: st.DataObject) -> None:
    content = bytearray(_file(records))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    ends = [len(_file(records[: number + 1])) for number in range(len(records))]
    with pytest.raises(CorruptRecord) as caught:
        list(tfrecord.walk(memoryview(content)))
    assert caught.value.number == next(number for number, end in enumerate(ends) if place < end)


@given(st.lists(st.binary(max_size=100), min_size=1), st.data())
def test_a_cut_inside_a_record_is_found(records: list[bytes], data: st.DataObject) -> None:
    content = _file(records)
    start = len(_file(records[:-1]))
    size = data.draw(st.integers(start + 1, len(content) - 1))
    with pytest.raises(CorruptRecord, match=f"record {len(records) - 1}, at byte {start}: the file ends inside"):
        list(tfrecord.walk(memoryview(content)[:size]))


@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1))
def test_headers_are_the_same_by_table_and_by_checksum(lengths: list[int]) -> None:
    found = tfrecord.headers(np.array(lengths, np.int64))
    expected = [length.to_bytes(8, "little") for length in lengths]
    crcs = tfrecord.footers(np.array([tfrecord.extend_crc(0, packed) for packed in expected]))
    assert found.tobytes() == b"".join(packed + crc.tobytes() for packed, crc in zip(expected, crcs, strict=True))
