"""Tests of TFRecord framing; records_test.py compares it with TensorFlow's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import tfrecord
from pipeline.tfrecord import CorruptRecord


def _file(records: list[bytes]) -> bytes:
    return b"".join(
        tfrecord.header(len(record)) + record + tfrecord.masked(tfrecord.extend_crc(0, record)) for record in records
    )


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
