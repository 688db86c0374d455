"""Messages as protobuf and back: nothing is lost, nothing that was damaged gets through."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft import codec, stored_entries
from rakit.multiraft.checksum import crc32c_extend_payload
from rakit.multiraft.effects import Envelope
from rakit.multiraft.stored_entries import join_payload
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import ConfState, Entry, EntryType, Message, MessageType, Payload, Snapshot
from tests.multiraft.host.support import encoded

IDS = st.integers(1, (1 << 53) - 1)
NUMBERS = st.integers(0, (1 << 53) - 1)
ID_TUPLES = st.lists(IDS, max_size=3).map(lambda ids: tuple(sorted(ids)))
CONF_STATES = st.builds(ConfState, ID_TUPLES, ID_TUPLES, ID_TUPLES, ID_TUPLES, st.booleans())
SNAPSHOTS = st.builds(Snapshot, NUMBERS, NUMBERS, CONF_STATES, st.binary(max_size=64))
PAYLOADS = st.one_of(
    st.binary(max_size=32),
    st.sampled_from([4000, 5000, 16383, 16384, 20_000]).map(
        lambda size: bytes([size % 251]) * size
    ),
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    index = draw(st.integers(0, 1 << 40))
    term = draw(NUMBERS)
    bodies = draw(
        st.lists(st.tuples(st.one_of(st.just(term), NUMBERS), st.sampled_from(EntryType), PAYLOADS))
    )
    return Message(
        type=draw(st.sampled_from(MessageType)),
        to=draw(IDS),
        from_=draw(IDS),
        term=term,
        log_term=draw(NUMBERS),
        index=index,
        entries=tuple(
            Entry(entry_term, index + 1 + position, kind, data)
            for position, (entry_term, kind, data) in enumerate(bodies)
        ),
        commit=draw(NUMBERS),
        reject=draw(st.booleans()),
        reject_hint=draw(NUMBERS),
        context=draw(st.binary(max_size=16)),
        snapshot=draw(st.none() | SNAPSHOTS),
    )


def envelope(message: Message, group_id: int = 7) -> Envelope:
    return Envelope(group_id, message.from_, message.to, message)


def append(*payloads: bytes, index: int = 10, term: int = 3) -> Envelope:
    entries = tuple(
        Entry(term, index + 1 + position, EntryType.NORMAL, data)
        for position, data in enumerate(payloads)
    )
    return envelope(Message(MessageType.APP, 2, 1, term, term, index, entries, index))


def in_order(found: list[Envelope]) -> list[str]:
    """Heartbeats lose their place between the others; a payload may be a view."""
    plain: list[Envelope] = []
    for each in found:
        entries = [
            dataclasses.replace(entry, data=bytes(entry.data)) for entry in each.message.entries
        ]
        message = dataclasses.replace(each.message, entries=tuple(entries))
        plain.append(dataclasses.replace(each, message=message))
    return sorted(map(repr, plain))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(IDS, messages()), max_size=6))
def test_a_request_comes_back_as_it_was(found: list[tuple[int, Message]]) -> None:
    sent = [envelope(message, group_id) for group_id, message in found]
    request = codec.decode_request(encoded(5, sent))
    assert request.number == 5
    got = codec.envelopes_of(request)
    assert in_order(got) == in_order(sent)
    appends = [each for each in sent if each.message.type is not MessageType.HEARTBEAT]
    assert [each for each in got if each.message.type is not MessageType.HEARTBEAT] == appends


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(IDS, messages()), max_size=6))
def test_a_response_comes_back_as_it_was(found: list[tuple[int, Message]]) -> None:
    sent = [envelope(message, group_id) for group_id, message in found]
    response = codec.decode_response(codec.encode_response(9, sent))
    assert response.processed == 9
    assert in_order(codec.envelopes_of(response)) == in_order(sent)


def test_heartbeats_travel_as_columns_that_cost_a_few_bytes_each() -> None:
    beats = [
        envelope(Message(MessageType.HEARTBEAT, 2 << 24 | 1, 1 << 24 | 1, 5, commit=100), group)
        for group in range(1, 1001)
    ]
    data = encoded(1, beats)
    assert len(data) < 15_000
    assert not codec.decode_request(data).messages
    assert codec.envelopes_of(codec.decode_request(data)) == beats


def test_bulk_keeps_its_place_among_small_messages() -> None:
    # Appends of one group must arrive in order, or the follower rejects the second.
    sent = [append(b"a"), append(b"b" * 10_000, index=11), append(b"c", index=12)]
    assert codec.envelopes_of(codec.decode_request(encoded(1, sent))) == sent


@pytest.mark.parametrize("size", [20, 100_000], ids=["small", "bulk"])
def test_a_bit_that_flipped_in_a_payload_is_found(size: int) -> None:
    payload = b"P" * size
    data = encoded(1, [append(payload)])
    at = data.index(payload) + size // 2
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(codec.MalformedMessageError, match="entry 11 of group 7 was damaged"):
        codec.envelopes_of(codec.decode_request(damaged))


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_a_payload_is_gone_over_once_by_each_node(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(crc: int, data: Payload) -> int:
        taken.append(len(data))
        return crc32c_extend_payload(crc, data)

    monkeypatch.setattr(stored_entries, "crc32c_extend_payload", counted)
    payload, checksum = join_payload(7, (3, 11), [b"P", b"P" * (size - 1)])
    assert taken == [1, size - 1]
    taken.clear()
    entry = Entry(3, 11, EntryType.NORMAL, payload, checksum)
    sent = envelope(Message(MessageType.APP, 2, 1, 3, 3, 10, (entry,), 10))
    data = [encoded(number, [sent]) for number in (1, 2)]
    stored = stored_entries.encode_entry(sent.group_id, entry)
    assert not taken
    (received,) = codec.read_request(data[1])[1]
    arrived = received.message.entries[0]
    assert stored_entries.encode_entry(sent.group_id, arrived) == stored
    assert len(taken) == 1
    if size >= stored_entries.VIEWED_BYTES_MIN:
        assert isinstance(arrived.data, memoryview)
        value = stored_entries.encode_entry(sent.group_id, arrived)
        assert (value.obj if isinstance(value, memoryview) else value) is arrived.data.obj


@pytest.mark.parametrize("change", ["group_id", "index", "term"])
def test_an_entry_is_bound_to_its_place(change: str) -> None:
    request = codec.decode_request(encoded(1, [append(b"x")]))
    setattr(request.messages[0], change, 99)
    with pytest.raises(codec.MalformedMessageError, match="damaged on the way"):
        codec.envelopes_of(request)


def test_a_damaged_base_state_is_found() -> None:
    message = Message(MessageType.SNAP, 2, 1, 3, snapshot=Snapshot(5, 2, ConfState((1,)), b"base"))
    data = encoded(1, [envelope(message)])
    with pytest.raises(codec.MalformedMessageError, match="base state at 5 was damaged"):
        codec.envelopes_of(codec.decode_request(data.replace(b"base", b"bass")))


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (MessageType.SNAP, Snapshot(5, 2, ConfState((1,)), parts=(7, 0, 1 << 31))),
        (MessageType.BASE_PULL, Snapshot(5, 2, ConfState(), part=3)),
        (MessageType.BASE_PART, Snapshot(5, 2, ConfState(), b"z" * 70_000, part=3)),
    ],
)
def test_a_base_travels_in_parts(kind: MessageType, base: Snapshot) -> None:
    sent = [append(b"a" * 9_000), envelope(Message(kind, 2, 1, 3, snapshot=base)), append(b"b")]
    assert codec.read_request(encoded(1, sent))[1] == sent
    assert codec.envelopes_of(codec.decode_response(codec.encode_response(1, sent))) == sent


def test_columns_of_different_length_are_refused() -> None:
    request = wire.ExchangeRequest(number=1)
    request.heartbeats.group_ids.extend([1, 2])
    request.heartbeats.from_replicas.extend([1])
    with pytest.raises(codec.MalformedMessageError, match="columns differ"):
        codec.envelopes_of(request)


def test_entries_without_checksums_are_refused() -> None:
    request = codec.decode_request(encoded(1, [append(b"x")]))
    request.messages[0].ClearField("entries")
    with pytest.raises(codec.MalformedMessageError, match="do not fit"):
        codec.envelopes_of(request)


def test_an_unknown_kind_is_refused() -> None:
    request = wire.ExchangeRequest(messages=[wire.GroupMessage(type=99)])
    with pytest.raises(codec.MalformedMessageError, match="type 99"):
        codec.envelopes_of(request)


@pytest.mark.parametrize("decode", [codec.decode_request, codec.decode_response])
def test_bytes_that_are_no_message_are_refused(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(codec.MalformedMessageError, match="3 bytes are no"):
        decode(b"\xff\xff\xff")


def test_the_size_of_a_message_counts_its_payloads() -> None:
    small, big = append(b"x"), append(b"x" * 1000, b"y" * 500)
    assert codec.message_bytes(big.message) - codec.message_bytes(small.message) >= 1499
    base = Snapshot(1, 1, ConfState((1,)), b"z" * 700)
    message = dataclasses.replace(small.message, snapshot=base)
    assert codec.message_bytes(message) - codec.message_bytes(small.message) == 700
