"""Produce requests by their opaque twins, with the public meaning.

On the wire a sub-message and `bytes` are the same, with one exception: a sub-message that occurs
twice is merged, of `bytes` the last one counts. A request that holds a batch twice is therefore
refused: half of it would be stored, and acknowledged. No encoder writes one; joining two serialised
requests does, which protobuf calls a merge.

Seeing it costs a look at the outermost fields. Where everything in the message adds up to its size,
nothing was dropped and there is nothing to see; a large message, which that would copy, is looked
at instead.

Large columns are taken out of a request before it is parsed, and stay where they are: a copy less,
into memory that would have to be cleared first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError, Message

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import RestartPartition
from rakit.node.errors import RakitError
from rakit.node.partition.wire import fields, heading
from rakit.node.services.handlers import parsed
from rakit.peer.v1.opaque_pb2 import (
    OpaqueProduceMixedRequest,
    OpaqueProduceRequest,
    OpaqueProduceStreamRequest,
)
from rakit.raft import Payload

#: Up to this size a message is summed up, beyond it looked at: about the same time.
SUMMED_BYTES_MAX: Final = 8 << 10
#: Outermost fields of a request that are looked at. There are ten today, and each stands once.
FIELDS_COUNT_MAX: Final = 256
#: From this size on columns are taken out of their request.
LIFTED_BYTES_MIN: Final = 32 << 10

_BATCH: Final = frozenset(
    field.number for field in OpaqueProduceRequest.DESCRIPTOR.oneofs_by_name["batch"].fields
)
_MIXED_ROWS: Final = frozenset({OpaqueProduceMixedRequest.ROWS_FIELD_NUMBER})
_PRODUCE: Final = frozenset({OpaqueProduceStreamRequest.PRODUCE_FIELD_NUMBER})
_REQUEST: Final = frozenset(
    field.number for field in OpaqueProduceStreamRequest.DESCRIPTOR.oneofs_by_name["request"].fields
)
#: A key of one byte and a length of five, which protobuf reads at most.
_HEADING_BYTES_MAX: Final = 6
_NO_COLUMNS: Final = heading(OpaqueProduceRequest.COLUMNS_FIELD_NUMBER, 0)
#: The keys of the two fields, as they are written.
_COLUMNS_KEY: Final = _NO_COLUMNS[0]
_PRODUCE_KEY: Final = heading(OpaqueProduceStreamRequest.PRODUCE_FIELD_NUMBER, 0)[0]


@dataclass(frozen=True, slots=True)
class Produced:
    """A request to append a batch."""

    message: OpaqueProduceRequest
    #: The message's columns, which are empty there then; None: what the message has is all.
    columns: Payload | None = None


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a produce stream carries: one of both, or neither, which nobody should send."""

    tag: int
    produce: Produced | None
    restart: RestartPartition | None


def produce_request(data: bytes) -> Produced:
    """A ProduceRequest. Raises INVALID_REQUEST."""
    if (lifted := _lifted(data, 0, len(data))) is not None:
        return lifted
    request = parsed(OpaqueProduceRequest, data)
    if not _adds_up(request, data):
        _refuse_two(_spans(data, _BATCH))
    return Produced(request)


def mixed_request(data: bytes) -> OpaqueProduceMixedRequest:
    """A ProduceMixedRequest. Raises INVALID_REQUEST."""
    request = parsed(OpaqueProduceMixedRequest, data)
    if not _adds_up(request, data):
        _refuse_two(_spans(data, _MIXED_ROWS))
    return request


def stream_request(data: bytes) -> StreamRequest:
    """A ProduceStreamRequest. Raises INVALID_REQUEST."""
    place = None
    if len(data) >= LIFTED_BYTES_MIN:
        place = _only(_REQUEST, _PRODUCE_KEY, data, 0, len(data))
    if place is not None:
        key, start, end = place
        if (lifted := _lifted(data, start, end)) is not None:
            outer = parsed(OpaqueProduceStreamRequest, data[:key] + data[end:])
            return StreamRequest(outer.tag, lifted, None)
    request = parsed(OpaqueProduceStreamRequest, data)
    if not _adds_up(request, data):
        requests = _spans(data, _PRODUCE)
        _refuse_two(batch for span in requests for batch in _spans(data, _BATCH, *span))
    match request.WhichOneof("request"):
        case "produce":
            return StreamRequest(request.tag, Produced(request.produce), None)
        case "restart":
            return StreamRequest(request.tag, None, request.restart)
        case None:
            return StreamRequest(request.tag, None, None)


def _lifted(data: bytes, start: int, end: int) -> Produced | None:
    """The request that stands there, its columns taken out.

    None where they are not large, or not the one batch, or where something is amiss.
    """
    if end - start < LIFTED_BYTES_MIN:
        return None
    place = _only(_BATCH, _COLUMNS_KEY, data, start, end)
    if place is None or place[2] - place[1] < LIFTED_BYTES_MIN:
        return None
    key, begins, ends = place
    rest = b"".join((data[start:key], _NO_COLUMNS, data[ends:end]))
    try:
        return Produced(OpaqueProduceRequest.FromString(rest), memoryview(data)[begins:ends])
    except DecodeError:
        return None


def _only(
    numbers: frozenset[int], key: int, data: bytes, start: int, end: int
) -> tuple[int, int, int] | None:
    """Where the one field with any of these numbers stands: its key, its value, its end.

    None where there is none or more than one, or where it is written with another key, or with a
    length of more bytes than protobuf reads.
    """
    found: tuple[int, int, int] | None = None
    at = start
    try:
        for count, (number, begins, ends) in enumerate(fields(data, start, end)):
            if count >= FIELDS_COUNT_MAX:
                return None
            if number in numbers:
                if found is not None or data[at] != key or begins - at > _HEADING_BYTES_MAX:
                    return None
                found = at, begins, ends
            at = ends
    except DecodeError:
        return None
    return found


def _adds_up(message: Message, data: bytes) -> bool:
    return len(data) <= SUMMED_BYTES_MAX and message.ByteSize() == len(data)


def _spans(
    data: bytes, numbers: frozenset[int], start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Where the fields with these numbers stand."""
    for count, (number, begins, ends) in enumerate(fields(data, start, end)):
        if count >= FIELDS_COUNT_MAX:
            raise DecodeError("too many fields")
        if number in numbers:
            yield begins, ends


def _refuse_two(batches: Iterable[tuple[int, int]]) -> None:
    try:
        count = sum(1 for _ in islice(batches, 2))
    except DecodeError as error:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"The request holds {error}, which none of its known forms does.",
        ) from error
    if count > 1:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "The request holds more than one batch, or one in several pieces; send each by itself.",
        )
