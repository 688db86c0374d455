"""Frames made and read by hand are what protobuf makes and reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft import bulk, codec, stored_entries
from rakit.multiraft.effects import Envelope
from rakit.multiraft.pages import PAGE_BYTES, Lent
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import Entry, EntryType, Message, MessageType
from tests.multiraft.host.support import encoded

NUMBERS = st.integers(0, (1 << 62) - 1)
GROUP_MESSAGES = st.builds(
    wire.GroupMessage,
    group_id=NUMBERS,
    term=NUMBERS,
    reject=st.booleans(),
    context=st.binary(max_size=200),
    entries=st.builds(
        wire.EntryMetadata,
        crc32c=st.lists(st.integers(0, (1 << 32) - 1), max_size=3),
        terms=st.lists(NUMBERS, max_size=3),
    ),
    entry_data=st.lists(st.binary(max_size=300), max_size=4),
)


@settings(deadline=None)
@given(NUMBERS, st.lists(GROUP_MESSAGES, max_size=4), st.booleans())
def test_taking_apart_and_framing_again_changes_nothing(
    number: int, messages: list[wire.GroupMessage], beats: bool
) -> None:
    request = wire.ExchangeRequest(number=number, messages=messages)
    if beats:
        request.heartbeats.group_ids.extend([1, 2])
    rest, parts = bulk.split(request.SerializeToString())
    assert [payloads for _head, payloads in parts] == [list(each.entry_data) for each in messages]
    frames = [piece for head, payloads in parts for piece in bulk.frame(head, payloads)]
    assert wire.ExchangeRequest.FromString(rest + b"".join(frames)) == request


@given(st.binary(max_size=60))
def test_what_protobuf_cannot_read_is_refused_or_harmless(data: bytes) -> None:
    try:
        rest, parts = bulk.split(data)
    except bulk.MalformedFrameError:
        return
    assert len(rest) + sum(len(head) + sum(map(len, found)) for head, found in parts) <= len(data)


@pytest.mark.parametrize(
    "data", [b"\x1a\x05abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0b\x00", b"\x1a\x02\x72\x09"]
)
def test_a_frame_that_breaks_the_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(bulk.MalformedFrameError):
        bulk.split(data)


def large(*sizes: int) -> list[Envelope]:
    entries = tuple(
        Entry(3, 11 + position, EntryType.NORMAL, bytes([position]) * size)
        for position, size in enumerate(sizes)
    )
    append = Message(MessageType.APP, 2, 1, 3, 3, 10, entries, 10)
    beat = Message(MessageType.VOTE, 2, 1, 3)
    return [Envelope(7, 1, 2, append), Envelope(8, 1, 2, beat)]


@pytest.mark.parametrize("sizes", [(10,), (100_000,), (5, 1 << 20, 0, 40_000), (17 << 20,)])
def test_small_and_large_requests_are_read_alike(sizes: tuple[int, ...]) -> None:
    sent = large(*sizes)
    data = encoded(4, sent)
    # As gRPC hands a message over, and as frames do.
    for each in (data, memoryview(bytearray(data))):
        request, got = codec.read_request(each)
        assert request.number == 4
        assert got == sent
        # None keeps the memory of the whole request.
        for entry in got[0].message.entries:
            found = entry.data
            held: object = found.obj if isinstance(found, memoryview) else found
            most = len(found) + stored_entries.ENTRY_HEAD_BYTES
            if isinstance(held, Lent):
                assert len(held.memory) <= most + most // 4 + 2 * PAGE_BYTES
            else:
                assert isinstance(held, bytes)
                assert len(held) <= most


@settings(report_multiple_bugs=False)
@given(st.integers(0, 1 << 40), st.integers(40_000, 200_000), st.integers(0, 5000))
def test_the_payload_that_ends_a_request_is_found_by_its_first_bytes(
    number: int, size: int, there: int
) -> None:
    append, vote = large(size)
    data = encoded(number, [append])
    assert bulk.payload_at(data[: 100 + there], len(data)) == len(data) - size
    short = data[: min(there, len(data) - size - 1)]
    assert bulk.payload_at(short, len(data)) == 0, "its heading is not all there"
    for others in (large(size, size)[:1], [append, append], [append, vote]):
        data = encoded(number, others)
        assert bulk.payload_at(data[: 100 + there], len(data)) == 0
    behind = encoded(number, [vote, append])
    assert bulk.payload_at(behind[:200], len(behind)) == len(behind) - size


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_what_is_no_request_has_no_payload_to_be_found(data: bytes, more: int) -> None:
    at = bulk.payload_at(data, len(data) + more)
    assert 0 <= at <= len(data)
    if at and not more:
        assert bulk.split(data)[1][-1][1] == [data[at:]]


def test_damage_in_bulk_is_found() -> None:
    data = bytearray(encoded(4, large(100_000)))
    data[50_000] ^= 4
    with pytest.raises(codec.MalformedMessageError, match="damaged on the way"):
        codec.read_request(bytes(data))
    with pytest.raises(codec.MalformedMessageError, match="are no request"):
        codec.read_request(bytes(data[:60_000]))
