"""Raft messages as protobuf and back: the only module that knows both.

Rules:

- Nothing is lost: what `decode` returns equals what was encoded, for every kind of message.
- Heartbeats and their answers travel as columns, the rest one by one. A thousand heartbeats are
  then six long lists instead of a thousand small objects.
- Entries of an append follow each other by construction, so their indexes are not sent. Terms and
  types are sent only when one differs from the default.
- Every entry carries a CRC32C over place and payload, checked here, so that a bit that flips on the
  way becomes an error instead of a replica that differs (P9). It is the one that is stored with the
  entry on either side: taken once, by the leader, it covers a payload from there to the disks, and
  a megabyte is gone over once by each node instead of two or three times.
- A large payload goes past protobuf (`bulk`): 0.15 instead of 0.6 ms for 1 MiB on the way out.

Left out: who may send what to whom (the transport checks nodes, the driver checks replicas), and
whether terms and indexes make sense (the core does).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from rakit.multiraft import bulk
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.effects import Envelope
from rakit.multiraft.stored_entries import arrived_entry, entry_checksum
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import ConfState, Entry, EntryType, Message, MessageType, Payload, Snapshot

#: What a message costs in a queue or on the wire beside its payloads, roughly.
MESSAGE_OVERHEAD_BYTES: Final = 64
#: The same for one entry of an append.
ENTRY_OVERHEAD_BYTES: Final = 24

#: A payload, and a request, from this size on go past protobuf.
_BULK_BYTES_MIN: Final = 4096
_BULK_REQUEST_BYTES_MIN: Final = 32 << 10
_TYPES: Final = {int(each): each for each in MessageType}
_ENTRY_TYPES: Final = {int(each): each for each in EntryType}
_COLUMNS: Final = (MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP)


class MalformedMessageError(Exception):
    """Bytes from a peer that are no message, or that were damaged on the way."""


def message_bytes(message: Message) -> int:
    """Returns about how many bytes a message takes in a queue and on the wire."""
    size = MESSAGE_OVERHEAD_BYTES + len(message.context)
    for entry in message.entries:
        size += ENTRY_OVERHEAD_BYTES + len(entry.data)
    if message.snapshot is not None:
        size += len(message.snapshot.data)
    return size


def encode_request(number: int, envelopes: Sequence[Envelope]) -> list[Payload]:
    """Returns a numbered request that carries these messages, in pieces to be sent in a row."""
    request = wire.ExchangeRequest(number=number)
    if any(_is_bulk(each.message) for each in envelopes):
        parts: list[Payload] = [request.SerializeToString()]
        for each in envelopes:
            head = _encode(each, payloads=False).SerializeToString()
            parts += bulk.frame(head, [entry.data for entry in each.message.entries])
        return parts
    _fill(request, envelopes, MessageType.HEARTBEAT)
    return [request.SerializeToString()]


def encode_response(
    processed: int, envelopes: Sequence[Envelope], pong: wire.Ping | None = None
) -> bytes:
    """Returns a response: answers, and the number up to which requests are worked off."""
    response = wire.ExchangeResponse(processed=processed, pong=pong)
    _fill(response, envelopes, MessageType.HEARTBEAT_RESP)
    return response.SerializeToString()


def read_request(data: Payload) -> tuple[wire.ExchangeRequest, list[Envelope]]:
    """Returns a request and the messages in it; raises `MalformedMessageError`.

    One that was lent memory is used up: its last entry may lie in it from now on.
    """
    if len(data) < _BULK_REQUEST_BYTES_MIN:
        request = decode_request(bytes(data))
        return request, envelopes_of(request)
    try:
        rest, messages = bulk.split(data)
        # In their order: the last payload may take the place of what stands before it.
        found = [
            _decode(wire.GroupMessage.FromString(head), payloads) for head, payloads in messages
        ]
    except (bulk.MalformedFrameError, DecodeError) as error:
        raise MalformedMessageError(f"{len(data)} bytes are no request: {error}") from error
    request = decode_request(rest)
    return request, found + envelopes_of(request)


def decode_request(data: bytes) -> wire.ExchangeRequest:
    """Parses a request; raises `MalformedMessageError`."""
    try:
        return wire.ExchangeRequest.FromString(data)
    except DecodeError as error:
        raise MalformedMessageError(f"{len(data)} bytes are no request: {error}") from error


def decode_response(data: bytes) -> wire.ExchangeResponse:
    """Parses a response; raises `MalformedMessageError`."""
    try:
        return wire.ExchangeResponse.FromString(data)
    except DecodeError as error:
        raise MalformedMessageError(f"{len(data)} bytes are no response: {error}") from error


def envelopes_of(carrier: wire.ExchangeRequest | wire.ExchangeResponse) -> list[Envelope]:
    """Returns the messages that a request or response carries; raises `MalformedMessageError`."""
    found = [_decode(each, each.entry_data) for each in carrier.messages]
    if carrier.HasField("heartbeats"):
        kind = (
            MessageType.HEARTBEAT
            if isinstance(carrier, wire.ExchangeRequest)
            else MessageType.HEARTBEAT_RESP
        )
        found += _decode_columns(carrier.heartbeats, kind)
    return found


def _fill(
    carrier: wire.ExchangeRequest | wire.ExchangeResponse,
    envelopes: Sequence[Envelope],
    column_kind: MessageType,
) -> None:
    columns: list[Envelope] = []
    for each in envelopes:
        message = each.message
        if message.type is column_kind and _fits_columns(message):
            columns.append(each)
        else:
            carrier.messages.append(_encode(each))
    if columns:
        _encode_columns(carrier.heartbeats, columns)


def _is_bulk(message: Message) -> bool:
    return max([len(entry.data) for entry in message.entries], default=0) >= _BULK_BYTES_MIN


def _fits_columns(message: Message) -> bool:
    return not (
        message.index
        or message.log_term
        or message.reject
        or message.reject_hint
        or message.entries
        or message.snapshot
    )


def _encode_columns(into: wire.Heartbeats, envelopes: list[Envelope]) -> None:
    messages = [each.message for each in envelopes]
    into.group_ids.extend([each.group_id for each in envelopes])
    into.from_replicas.extend([each.from_replica for each in envelopes])
    into.to_replicas.extend([each.to_replica for each in envelopes])
    into.terms.extend([each.term for each in messages])
    if any(commits := [each.commit for each in messages]):
        into.commits.extend(commits)
    if any(contexts := [each.context for each in messages]):
        into.contexts.extend(contexts)


def _decode_columns(columns: wire.Heartbeats, kind: MessageType) -> list[Envelope]:
    count = len(columns.group_ids)
    commits = columns.commits or [0] * count
    contexts = columns.contexts or [b""] * count
    rows = zip(
        columns.group_ids,
        columns.from_replicas,
        columns.to_replicas,
        columns.terms,
        commits,
        contexts,
        strict=True,
    )
    try:
        return [
            Envelope(
                group,
                sender,
                to,
                Message(kind, to, sender, term, commit=commit, context=context),
            )
            for group, sender, to, term, commit, context in rows
        ]
    except ValueError as error:
        raise MalformedMessageError(f"heartbeat columns differ in length: {error}") from error


def _encode(envelope: Envelope, *, payloads: bool = True) -> wire.GroupMessage:
    message = envelope.message
    encoded = wire.GroupMessage(
        group_id=envelope.group_id,
        from_replica=envelope.from_replica,
        to_replica=envelope.to_replica,
        type=message.type,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        commit=message.commit,
    )
    # The rest is rare: setting a field costs as much as asking for it.
    if message.reject:
        encoded.reject = True
        encoded.reject_hint = message.reject_hint
    elif message.reject_hint:
        encoded.reject_hint = message.reject_hint
    if message.context:
        encoded.context = message.context
    if message.entries:
        _encode_entries(encoded, envelope.group_id, message)
        if payloads:
            encoded.entry_data.extend([bytes(entry.data) for entry in message.entries])
    if message.snapshot is not None:
        _encode_snapshot(encoded.snapshot, message.snapshot)
    return encoded


def _encode_entries(encoded: wire.GroupMessage, group_id: int, message: Message) -> None:
    entries, term = message.entries, message.term
    assert entries[0].index == message.index + 1, "entries start right behind the message's index"
    assert entries[-1].index == message.index + len(entries), "entries of a message have no gap"
    columns = encoded.entries
    columns.crc32c.extend([entry_checksum(group_id, entry) for entry in entries])
    if any(entry.term != term for entry in entries):
        columns.terms.extend([entry.term for entry in entries])
    if any(entry.type for entry in entries):
        columns.types.extend([entry.type for entry in entries])


def _encode_snapshot(into: wire.RaftSnapshot, snapshot: Snapshot) -> None:
    into.index, into.term = snapshot.index, snapshot.term
    state = snapshot.conf_state
    into.voters.extend(state.voters)
    into.learners.extend(state.learners)
    into.voters_outgoing.extend(state.voters_outgoing)
    into.learners_next.extend(state.learners_next)
    into.auto_leave = state.auto_leave
    into.data = snapshot.data
    into.data_crc32c = crc32c(snapshot.data)
    into.part_crc32cs.extend(snapshot.parts)
    into.part_number = snapshot.part


def _decode(encoded: wire.GroupMessage, payloads: Sequence[Payload]) -> Envelope:
    kind = _TYPES.get(encoded.type)
    if kind is None:
        raise MalformedMessageError(f"message type {encoded.type} is unknown")
    group_id, sender, to = encoded.group_id, encoded.from_replica, encoded.to_replica
    message = Message(
        kind,
        to,
        sender,
        encoded.term,
        encoded.log_term,
        encoded.index,
        (),
        encoded.commit,
        encoded.reject,
        encoded.reject_hint,
        encoded.context,
    )
    if encoded.HasField("entries") or payloads:
        message.entries = _decode_entries(encoded, message, payloads)
    if encoded.HasField("snapshot"):
        message.snapshot = _decode_snapshot(encoded.snapshot)
    return Envelope(group_id, sender, to, message)


def _decode_entries(
    encoded: wire.GroupMessage, message: Message, payloads: Sequence[Payload]
) -> tuple[Entry, ...]:
    columns, group_id = encoded.entries, encoded.group_id
    count = len(payloads)
    entries: list[Entry] = []
    try:
        for term, index, kind, data, crc in zip(
            columns.terms or [message.term] * count,
            range(message.index + 1, message.index + 1 + count),
            columns.types or [0] * count,
            payloads,
            columns.crc32c,
            strict=True,
        ):
            entry = arrived_entry(group_id, (term, index), _ENTRY_TYPES[kind], data, crc)
            if entry is None:
                raise MalformedMessageError(
                    f"entry {index} of group {group_id} was damaged on the way"
                )
            entries.append(entry)
    except (ValueError, KeyError, struct.error) as error:
        raise MalformedMessageError(f"the columns of the entries do not fit: {error}") from error
    return tuple(entries)


def _decode_snapshot(encoded: wire.RaftSnapshot) -> Snapshot:
    if crc32c(encoded.data) != encoded.data_crc32c:
        raise MalformedMessageError(f"base state at {encoded.index} was damaged on the way")
    return Snapshot(
        encoded.index,
        encoded.term,
        ConfState(
            tuple(encoded.voters),
            tuple(encoded.learners),
            tuple(encoded.voters_outgoing),
            tuple(encoded.learners_next),
            encoded.auto_leave,
        ),
        encoded.data,
        tuple(encoded.part_crc32cs),
        encoded.part_number,
    )
