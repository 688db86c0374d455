"""Large payloads past protobuf: framing on the way out, slicing on the way in.

Protobuf copies a payload three times when it is sent and twice when it is received, into memory
that the kernel has to clear first. For a megabyte that is a large part of what a message costs. On
the wire a field is its tag, its length and its bytes, and concatenated messages merge; so for bulk
this module writes and reads these frames itself, and protobuf sees only the small rest. A payload
is then not copied at all here.

It knows the two nested fields `ExchangeRequest.messages` and `GroupMessage.entry_data`, and skips
everything else by the rules of the encoding. A test holds it against protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import Payload

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MESSAGES: Final = wire.ExchangeRequest.MESSAGES_FIELD_NUMBER << 3 | _LENGTH
_PAYLOAD: Final = wire.GroupMessage.ENTRY_DATA_FIELD_NUMBER << 3 | _LENGTH
_MESSAGES_TAG: Final = bytes([_MESSAGES])
_PAYLOAD_TAG: Final = bytes([_PAYLOAD])


class MalformedFrameError(Exception):
    """Bytes that do not follow the encoding."""


def frame(head: bytes, payloads: Sequence[Payload]) -> list[Payload]:
    """Returns one element of `messages` in pieces: its small part, then its payloads untouched."""
    pieces: list[Payload] = [head]
    for payload in payloads:
        pieces += (_PAYLOAD_TAG + varint(len(payload)), payload)
    size = sum([len(piece) for piece in pieces])
    return [_MESSAGES_TAG + varint(size), *pieces]


def split(data: Payload) -> tuple[bytes, list[tuple[bytes, list[memoryview]]]]:
    """Takes a request apart: the request without messages; each message's small part, payloads.

    Payloads stay where they are. Raises `MalformedFrameError`.
    """
    data = memoryview(data)
    rest: list[Payload] = []
    messages: list[tuple[bytes, list[memoryview]]] = []
    for tag, start, value, end in _fields(data, 0, len(data)):
        if tag == _MESSAGES:
            messages.append(_split_message(data, value, end))
        else:
            rest.append(data[start:end])
    return b"".join(rest), messages


def payload_at(beginning: Payload, size_bytes: int) -> int:
    """Returns where the payload begins that is all the rest of a request of this size.

    To be told by its first bytes; 0 where they do not tell it, or it is not so.
    """
    try:
        for tag, _, value, end in _fields(beginning, 0, size_bytes):
            if tag == _MESSAGES and end == size_bytes:
                for inner, _, at, to in _fields(beginning, value, end):
                    if inner == _PAYLOAD:
                        return at if to == end else 0
    except MalformedFrameError:
        pass
    return 0


def _split_message(data: memoryview, at: int, to: int) -> tuple[bytes, list[memoryview]]:
    small: list[memoryview] = []
    payloads: list[memoryview] = []
    for tag, start, value, end in _fields(data, at, to):
        if tag == _PAYLOAD:
            payloads.append(data[value:end])
        else:
            small.append(data[start:end])
    return b"".join(small), payloads


def _fields(data: Payload, at: int, to: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (tag, start, start of the value, end) of each field."""
    while at < to:
        start = at
        tag, at = _read_varint(data, at)
        value, kind = at, tag & 7
        if kind == _LENGTH:
            size, value = _read_varint(data, at)
            at = value + size
        elif kind == _VARINT:
            at = _read_varint(data, at)[1]
        elif kind == _FIXED32:
            at += 4
        elif kind == _FIXED64:
            at += 8
        else:
            raise MalformedFrameError(f"wire type {kind} is unknown")
        if at > to:
            raise MalformedFrameError("a field ends behind its message")
        yield tag, start, value, at


def varint(number: int) -> bytes:
    """Returns a length as it is written: seven bits a byte, the lowest first."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _read_varint(data: Payload, at: int) -> tuple[int, int]:
    """Returns a number and where it ends."""
    number = shift = 0
    while at < len(data) and shift < 70:
        digit = data[at]
        at += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number, at
        shift += 7
    raise MalformedFrameError("a number has no end")
