"""Columns hold exactly the records that went in, also after compression and in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.api.v1.record_pb2 import Batch, Records
from rakit.client import codecs
from rakit.client.codecs import CodecName
from rakit.client.errors import RakitError
from rakit.client.records import Record, RecordBatch, fill_columns
from rakit.node.partition import columns as server_columns

Nullable = st.none() | st.binary(max_size=20)
Pairs = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple)
Row = st.tuples(Nullable, Nullable, Pairs, st.integers(0, 2**40))
EVERYTHING = range(1 << 62)


def columns_of(
    rows: list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...], int]],
) -> Records:
    columns = Records()
    keys, values, headers, times = zip(*rows, strict=True)
    fill_columns(columns, values, keys, headers, times)
    return columns


def stored(columns: Records, base_offset: int = 0) -> Batch:
    count = len(columns.values)
    return Batch(base_offset=base_offset, record_count=count, append_time_ms=77, records=columns)


@given(st.lists(Row, min_size=1, max_size=8), st.integers(0, 1000), st.data())
def test_what_goes_in_comes_out(
    rows: list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...], int]],
    base: int,
    data: st.DataObject,
) -> None:
    columns = columns_of(rows)
    server_columns.check(columns, columns.values)
    whole = [
        Record("t", 3, base + at, key, value, headers, time or 77, 77)
        for at, (key, value, headers, time) in enumerate(rows)
    ]
    first = data.draw(st.integers(0, len(rows) - 1))
    end = data.draw(st.integers(first + 1, len(rows)))
    batch = RecordBatch("t", 3, stored(columns, base), range(base + first, base + end))
    assert list(batch) == whole[first:end]
    assert len(batch) == end - first
    assert list(batch.values) == [record.value for record in whole[first:end]]


def test_a_column_that_no_record_needs_is_left_out() -> None:
    columns = Records()
    fill_columns(columns, [b"a", b"b"], [None, None], [(), ()], [5, 5])
    assert not columns.keys
    assert not columns.null_keys
    assert not columns.headers
    assert not columns.timestamp_deltas_ms
    assert columns.base_timestamp_ms == 5


@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip"])
def test_every_codec_gives_back_what_it_got(codec: CodecName) -> None:
    content = columns_of([(b"k", b"v" * 1000, (), 0)]).SerializeToString()
    packed = codecs.compress(codec, content, 1)
    assert len(packed.data) < len(content)
    assert codecs.decompress(packed) == content
    batch = Batch(base_offset=4, record_count=1, append_time_ms=1, compressed=packed)
    assert next(iter(RecordBatch("t", 0, batch, EVERYTHING))).value == b"v" * 1000


@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip"])
def test_a_frame_that_holds_more_than_it_says_is_refused(codec: CodecName) -> None:
    bomb = codecs.compress(codec, b"\0" * 1_000_000, 1)
    bomb.uncompressed_bytes = 1000
    with pytest.raises(RakitError, match="CORRUPT_BATCH"):
        codecs.decompress(bomb)
    bomb.uncompressed_bytes = codecs.DECOMPRESSED_BYTES_MAX + 1
    with pytest.raises(RakitError, match="CORRUPT_BATCH"):
        codecs.decompress(bomb)
    broken = codecs.compress(codec, b"content" * 10, 1)
    broken.data = broken.data[:-8]
    with pytest.raises(RakitError, match="CORRUPT_BATCH"):
        codecs.decompress(broken)
