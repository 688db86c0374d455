"""What is written past protobuf is what protobuf would have written, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.api.v1.log_service_pb2 import ProduceRequest, ProduceStreamRequest
from rakit.api.v1.record_pb2 import Records
from rakit.client.producing.encoding import encode_columns, encode_request
from rakit.client.records import HeaderPairs, fill_columns

MIB = 1 << 20
#: That it is small, that it is large of small values, that it is large of large ones.
SIZES = st.sampled_from([0, 100_000, MIB, 64 * MIB])
cells = (
    st.none() | st.binary(max_size=300) | st.sampled_from([bytes(127), bytes(128), bytes(20_000)])
)
rows = st.lists(
    st.tuples(
        cells,
        st.none() | st.binary(max_size=4),
        st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2),
        st.integers(0, 1 << 50),
    ),
    min_size=1,
    max_size=20,
)


@given(rows, SIZES)
def test_columns_are_what_protobuf_makes_of_them(
    written: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]], int]], size_bytes: int
) -> None:
    values, keys, headers, times = (list(column) for column in zip(*written, strict=True))
    whole = Records()
    arguments = (
        cast("Sequence[bytes | None]", values),
        cast("Sequence[bytes | None]", keys),
        cast("Sequence[HeaderPairs]", headers),
        cast("Sequence[int]", times),
    )
    fill_columns(whole, *arguments)
    assert b"".join(encode_columns(*arguments, size_bytes)) == whole.SerializeToString()


@pytest.mark.parametrize("count", [1, 1000, 10_000])
@pytest.mark.parametrize("value", [b"s" * 100, b"l" * 2000])
def test_batches_of_every_size_are_what_protobuf_makes_of_them(count: int, value: bytes) -> None:
    values = [value + bytes(at % 3) for at in range(count)]
    size = sum(map(len, values))
    pieces = encode_columns(values, (), (), (), size)
    assert b"".join(pieces) == Records(values=values).SerializeToString()
    if size > MIB:
        assert len(pieces) > 4, "protobuf is never given a megabyte"


@pytest.mark.parametrize("size_bytes", [0, 100_000, 64 * MIB])
@pytest.mark.parametrize("wrong", ["text", 5, bytearray(b"x"), memoryview(b"x")])
def test_what_is_no_bytes_is_refused_whatever_the_size(wrong: object, size_bytes: int) -> None:
    values = cast("list[bytes]", [b"a", wrong, b"b"])
    with pytest.raises(TypeError):
        encode_columns(values, (), (), (), size_bytes)


class Odd(bytes):
    """Says nothing true of itself."""

    def __len__(self) -> int:
        return 3

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("size_bytes", [100, 64 * MIB])
def test_of_a_subclass_of_bytes_the_bytes_count(size_bytes: int) -> None:
    pieces = encode_columns([b"a", Odd(b"subclass"), None], (), (), (), size_bytes)
    found = Records.FromString(b"".join(pieces))
    assert list(found.values) == [b"a", b"subclass", b""]
    assert list(found.null_values) == [2]


@given(st.integers(0, 1 << 40), st.integers(0, 5), st.sampled_from([0, 1, 127, 128, 70_000]))
def test_a_request_is_what_protobuf_makes_of_it(tag: int, partition: int, size: int) -> None:
    request = ProduceRequest(topic="t", partition=partition)
    request.producer.sequence = 7
    values = [bytes(size)]
    columns = encode_columns(values, (), (), (), 64 * MIB)
    expected = ProduceStreamRequest(tag=tag, produce=request)
    expected.produce.columns.values.extend(values)
    found = b"".join(encode_request(tag, request, columns))
    assert ProduceStreamRequest.FromString(found) == expected
    assert len(found) == expected.ByteSize()


def test_a_request_without_columns_has_none() -> None:
    request = ProduceRequest(topic="t")
    request.compressed.data = b"packed"
    found = ProduceStreamRequest.FromString(b"".join(encode_request(3, request, [])))
    assert found == ProduceStreamRequest(tag=3, produce=request)
