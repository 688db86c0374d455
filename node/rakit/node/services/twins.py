"""Produce requests by their opaque twins, with the public meaning.

On the wire a sub-message and `bytes` are the same, with one exception: a sub-message that occurs
twice is merged, of `bytes` the last one counts. A request that holds a batch twice is therefore
refused: half of it would be stored, and acknowledged. No encoder writes one; joining two serialised
requests does, which protobuf calls a merge.

Seeing it costs a look at the outermost fields. Where everything in the message adds up to its size,
nothing was dropped and there is nothing to see; a large message, which that would copy, is looked
at instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError, Message

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition.wire import fields
from rakit.node.services.handlers import parsed
from rakit.peer.v1.opaque_pb2 import (
    OpaqueProduceMixedRequest,
    OpaqueProduceRequest,
    OpaqueProduceStreamRequest,
)

#: Up to this size a message is summed up, beyond it looked at: about the same time.
SUMMED_BYTES_MAX: Final = 8 << 10
#: Outermost fields of a request that are looked at. There are ten today, and each stands once.
FIELDS_COUNT_MAX: Final = 256

_BATCH: Final = frozenset(
    field.number for field in OpaqueProduceRequest.DESCRIPTOR.oneofs_by_name["batch"].fields
)
_MIXED_ROWS: Final = frozenset({OpaqueProduceMixedRequest.ROWS_FIELD_NUMBER})
_PRODUCE: Final = frozenset({OpaqueProduceStreamRequest.PRODUCE_FIELD_NUMBER})


def produce_request(data: bytes) -> OpaqueProduceRequest:
    """A ProduceRequest. Raises INVALID_REQUEST."""
    request = parsed(OpaqueProduceRequest, data)
    if not _adds_up(request, data):
        _refuse_two(_spans(data, _BATCH))
    return request


def mixed_request(data: bytes) -> OpaqueProduceMixedRequest:
    """A ProduceMixedRequest. Raises INVALID_REQUEST."""
    request = parsed(OpaqueProduceMixedRequest, data)
    if not _adds_up(request, data):
        _refuse_two(_spans(data, _MIXED_ROWS))
    return request


def stream_request(data: bytes) -> OpaqueProduceStreamRequest:
    """A ProduceStreamRequest. Raises INVALID_REQUEST."""
    request = parsed(OpaqueProduceStreamRequest, data)
    if not _adds_up(request, data):
        requests = _spans(data, _PRODUCE)
        _refuse_two(batch for span in requests for batch in _spans(data, _BATCH, *span))
    return request


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
