"""Entries of a partition: a large one is taken apart by hand, and means what protobuf says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.node.partition.commands import (
    Append,
    MalformedCommandError,
    append_pieces,
    batches_in,
    decode,
)
from rakit.node.partition.producers import Stamp
from rakit.peer.v1 import partition_command_pb2 as pb

LARGE = bytes(5000)

_stamps = st.builds(
    Stamp,
    producer_id=st.integers(1, 1 << 40),
    epoch=st.integers(0, 1 << 20),
    sequence=st.integers(0, 1 << 40),
    previous_sequence=st.none() | st.integers(0, 1 << 40),
)
_appends = st.builds(
    Append,
    base_offset=st.integers(0, 1 << 50),
    record_count=st.integers(1, 1 << 20),
    append_time_ms=st.integers(0, 1 << 45),
    stamp=st.none() | _stamps,
    content_crc32c=st.integers(0, (1 << 32) - 1),
    compressed=st.booleans(),
    checkpoint=st.booleans(),
)


def plain(number: int = 7) -> Append:
    return Append(number, 1, 0, None, 0, compressed=False, checkpoint=False)


@given(append=_appends, content=st.binary(max_size=40).map(lambda end: LARGE + end))
def test_a_large_append_is_what_protobuf_reads(append: Append, content: bytes) -> None:
    payload = b"".join(append_pieces(append, content))
    assert decode(payload) == append
    [(head, taken)] = batches_in(payload)
    assert taken == content
    whole = pb.PartitionCommand.FromString(payload).append
    assert whole.content == content
    whole.ClearField("content")
    assert head == whole


def test_the_content_of_a_large_append_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b"".join(append_pieces(plain(), LARGE))

    def refuse(_payload: bytes) -> pb.PartitionCommand:
        raise AssertionError("the whole entry was parsed")

    monkeypatch.setattr("rakit.node.partition.commands.parse", refuse)
    assert decode(payload) == plain()
    assert batches_in(payload)


def field(message: pb.AppendBatch) -> bytes:
    return pb.PartitionCommand(append=message).SerializeToString()


@pytest.mark.parametrize(
    "payload",
    [
        field(pb.AppendBatch(content=LARGE)) + field(pb.AppendBatch(base_offset=7)),
        field(pb.AppendBatch(content=b"first" + LARGE)) + field(pb.AppendBatch(content=LARGE)),
        field(pb.AppendBatch(content=LARGE, checkpoint=True)),
    ],
    ids=["two messages that merge", "two contents", "fields behind the content"],
)
def test_another_layout_of_the_same_fields_means_the_same(payload: bytes) -> None:
    whole = pb.PartitionCommand.FromString(payload).append
    [(head, content)] = batches_in(payload)
    assert content == whole.content == LARGE
    command = decode(payload)
    assert isinstance(command, Append)
    assert (command.base_offset, command.checkpoint) == (whole.base_offset, whole.checkpoint)
    assert head.base_offset == whole.base_offset


def tagged(number: int, kind: int, rest: bytes) -> bytes:
    return bytes([number << 3 | kind]) + rest


def around(inner: bytes) -> bytes:
    assert 1 << 7 <= len(inner) < 1 << 14, "its length takes two bytes"
    return tagged(1, 2, bytes([len(inner) & 0x7F | 0x80, len(inner) >> 7])) + inner


@pytest.mark.parametrize(
    "inner",
    [
        tagged(12, 2, b"\x88\x27" + LARGE) + tagged(9, 1, bytes(8)),
        tagged(12, 3, b"") + tagged(12, 4, b"") + tagged(9, 2, b"\x88\x27" + LARGE),
    ],
    ids=["a fixed number as content", "a group"],
)
def test_what_protobuf_reads_in_another_way_is_left_to_it(inner: bytes) -> None:
    payload = around(inner)
    whole = pb.PartitionCommand.FromString(payload).append
    [(head, content)] = batches_in(payload)
    assert content == whole.content
    assert head.base_offset == whole.base_offset
    assert isinstance(decode(payload), Append)


def test_a_large_command_of_another_kind_is_no_append() -> None:
    expire = pb.ExpireProducers(producer_ids=range(5000))
    assert batches_in(pb.PartitionCommand(expire=expire).SerializeToString()) == []


@pytest.mark.parametrize("cut_bytes", [1, 100, 4000])
def test_an_append_that_breaks_off_is_malformed(cut_bytes: int) -> None:
    payload = b"".join(append_pieces(plain(), LARGE + bytes(4000)))[:-cut_bytes]
    for read in (decode, batches_in):
        with pytest.raises(MalformedCommandError):
            read(payload)


def test_what_protobuf_refuses_is_malformed() -> None:
    length_of_nine_bytes = b"\x88\xa7" + b"\x80" * 6 + b"\x00"
    payload = around(tagged(9, 2, length_of_nine_bytes + LARGE))
    for read in (decode, batches_in):
        with pytest.raises(MalformedCommandError):
            read(payload)
