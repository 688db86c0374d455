"""Protobuf as bytes: which fields stand in a message, without making the message, and the reverse.

Used where making it would be the attack (two bytes of a request make a record), would lose what
matters (a field that occurs twice), or would copy a megabyte once for each message that it is
nested in. Everything else belongs to the protobuf library.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError

from rakit.multiraft.bulk import varint
from rakit.raft import Payload

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_I64: 8, _I32: 4}
_VARINT_BYTES_MAX: Final = 10


def fields(data: Payload, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yields number, start and end of each field's value. Raises DecodeError.

    Fields need not be known; groups, which proto3 does not have, are an error.
    """
    at, end = start, len(data) if end is None else end
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        value = at
        if kind == _LEN:
            size, value = _varint(data, at, end)
            at = value + size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise DecodeError(f"a field of the kind {kind}")
        if at > end:
            raise DecodeError("a field that ends behind its message")
        yield key >> 3, value, at


def heading(number: int, size_bytes: int) -> bytes:
    """Returns what stands before a value of so many bytes: a message, a string or bytes."""
    return varint(number << 3 | _LEN) + varint(size_bytes)


def count_fields(data: bytes, most: int) -> int:
    """Counts the fields of a message, up to one more than `most`. Raises DecodeError."""
    return sum(1 for _ in islice(fields(data), most + 1))


def _varint(data: Payload, at: int, end: int) -> tuple[int, int]:
    """Returns a number and where it ends."""
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    for place in range(at, min(at + _VARINT_BYTES_MAX, end)):
        value |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return value, place + 1
        shift += 7
    raise DecodeError("a number without an end")
