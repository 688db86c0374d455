"""What travels of a batch: what protobuf would write, columns last, in pieces to be joined once.

Protobuf copies a column three times, and above a megabyte into memory that it asks the system for
each time and gives back: 1.2 to 1.8 ms for a batch of 1 MiB, of which its copies are a tenth. So
what is large goes past it: values of some size between their lengths, written here; small ones by
protobuf, but not all at once.

Left out: what a batch holds (`records`), who sends it (`link`), and that what is joined, and gRPC's
copy of it, are a megabyte each time as well (`freed_memory`).
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final, cast

from rakit.api.v1.log_service_pb2 import ProduceRequest, ProduceStreamRequest
from rakit.api.v1.record_pb2 import Records
from rakit.client.records import HeaderPairs, fill_columns, fill_other_columns, fill_values

#: Up to here protobuf writes a batch as a whole.
_PIECES_BYTES_MIN: Final = 64 << 10
#: Values of this size in the mean are written by hand. Below, protobuf takes less for each.
_BY_HAND_BYTES_MIN: Final = 512
#: What protobuf writes at a time, about: far from where the system's memory is asked for.
_STEP_BYTES: Final = 256 << 10
_LENGTH_DELIMITED: Final = 2
_VALUE_TAG: Final = bytes([Records.VALUES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
_COLUMNS_TAG: Final = bytes([ProduceRequest.COLUMNS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
_PRODUCE_TAG: Final = bytes([ProduceStreamRequest.PRODUCE_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])


def encode_columns(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None],
    headers: Sequence[HeaderPairs],
    timestamps_ms: Sequence[int],
    size_bytes: int,
) -> list[bytes]:
    """Returns serialised `Records`; raises TypeError for what is no bytes. As `fill_columns`.

    `size_bytes` is about what the batch takes.
    """
    columns = Records()
    if size_bytes < _PIECES_BYTES_MIN:
        fill_columns(columns, values, keys, headers, timestamps_ms)
        return [columns.SerializeToString()]
    if size_bytes < len(values) * _BY_HAND_BYTES_MIN:
        step = max(1, len(values) * _STEP_BYTES // size_bytes)
        pieces = _values_in_steps(values, step, columns.null_values)
    else:
        pieces = _values_by_hand(values, columns.null_values)
    fill_other_columns(columns, keys, headers, timestamps_ms)
    return [*pieces, columns.SerializeToString()]


def _values_in_steps(
    values: Sequence[bytes | None], step: int, nulls: MutableSequence[int]
) -> list[bytes]:
    pieces: list[bytes] = []
    for start in range(0, len(values), step):
        part, part_nulls = Records(), list[int]()
        fill_values(part.values, part_nulls, values[start : start + step])
        nulls.extend([start + at for at in part_nulls])
        pieces.append(part.SerializeToString())
    return pieces


def _values_by_hand(values: Sequence[bytes | None], nulls: MutableSequence[int]) -> list[bytes]:
    # A loop for each value would take several times as long as what the interpreter does by itself.
    there = cast("Sequence[bytes]", values)
    if set(map(type, values)) != {bytes}:
        there = [_content(value) for value in values]
        nulls.extend([at for at, value in enumerate(values) if value is None])
    sizes = list(map(len, there))
    headings = {size: _VALUE_TAG + _varint(size) for size in set(sizes)}
    # Of one size they are, as a rule.
    pieces = [next(iter(headings.values()), b"")] * (2 * len(sizes))
    if len(headings) > 1:
        pieces[::2] = [headings[size] for size in sizes]
    pieces[1::2] = there
    return pieces


def _content(value: object) -> bytes:
    """What a value holds; raises TypeError. A subclass may say anything of its length."""
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise TypeError(f"the value of a record is bytes or None, not {type(value).__name__}")
    return b"".join((value,))


def encode_request(tag: int, request: ProduceRequest, columns: Sequence[bytes]) -> list[bytes]:
    """Returns a serialised `ProduceStreamRequest`: that request with these columns, if any."""
    small = request.SerializeToString()
    size = sum(map(len, columns))
    before = _COLUMNS_TAG + _varint(size) if columns else b""
    outer = ProduceStreamRequest(tag=tag).SerializeToString()
    inner_bytes = len(small) + len(before) + size
    return [b"".join((outer, _PRODUCE_TAG, _varint(inner_bytes), small, before)), *columns]


def _varint(number: int) -> bytes:
    """Returns a length as protobuf writes it: seven bits a byte, the lowest first."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
