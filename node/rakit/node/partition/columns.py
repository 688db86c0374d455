"""Rows to columns and back, and what makes columns well-formed (contract 3).

The cluster stores columns; people write rows. The conversion is deterministic: the same rows give
the same bytes, because those bytes are what a retry is recognised by (S24). It loses nothing:

- An absent key or value (null) is an empty element whose position stands in an index list; with no
  keys at all the column is left out.
- A row's time is `base_timestamp_ms` plus its delta; 0 means that the producer gave none. The base
  is the first row's time, and the column is left out where every row has it.
- A column of headers is left out where no row has any.

`check` is the gate for columns that clients built. It must be cheap for 6,000 records a batch, so
it compares lengths and loops over index lists only; the one look at every record, for the range of
its times, is left to built-ins. The parse before it has checked that header names are UTF-8. Fields
that this version does not know are left alone: they are in the stored bytes and come out again.

Protobuf copies each value when it parses columns. Of large values only their lengths are of
interest here: `large_values` looks at these itself, and leaves what follows them to protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence, Sequence, Sized
from itertools import pairwise
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from rakit.api.v1 import error_pb2
from rakit.api.v1.record_pb2 import Headers, Record, Records
from rakit.node.errors import RakitError
from rakit.node.partition.producers import INTEGER_MAX
from rakit.node.partition.steps import STEP_ROWS, Steps
from rakit.node.partition.wire import heading
from rakit.raft import Payload

CellT = TypeVar("CellT")

#: From this size of a batch for each value on it costs less to look at lengths than to copy values.
LARGE_VALUE_BYTES_MIN: Final = 8 << 10
#: A look ends when it has met so many values more than large ones would fit into what it has
#: passed: to look at many lengths costs more than what it spares.
_SMALL_COUNT_MAX: Final = 8
_VALUES_KEY: Final = heading(Records.VALUES_FIELD_NUMBER, 0)[0]
#: Of the length of a value; protobuf reads one more, of which it believes a part.
_LENGTH_BYTES_MAX: Final = 4


def to_columns(records: Sequence[Record]) -> Steps[Records]:
    """Returns the columns of at least one row; raises INVALID_BATCH for an impossible time."""
    assert records, "the caller refuses empty batches"
    columns = Records()
    null_keys: list[int] = []
    times: list[int] = []
    has_headers = False
    for start in range(0, len(records), STEP_ROWS):
        some = records[start : start + STEP_ROWS]
        columns.values.extend([record.value for record in some])
        # One look at each: a pass for every column costs a record alone, that of unary calls, a
        # third more, and saves thousands nothing.
        for at, record in enumerate(some, start):
            if not record.HasField("value"):
                columns.null_values.append(at)
            if not record.HasField("key"):
                null_keys.append(at)
            if record.headers:
                has_headers = True
            times.append(record.timestamp_ms)
        yield
    _check_times(min(times), max(times))
    if len(null_keys) < len(records):
        yield from _extend(columns.keys, records, lambda record: record.key)
        columns.null_keys.extend(null_keys)
    if has_headers:
        yield from _extend(columns.headers, records, lambda record: Headers(headers=record.headers))
    columns.base_timestamp_ms = times[0]
    if times.count(times[0]) < len(times):
        columns.timestamp_deltas_ms.extend([time - times[0] for time in times])
    return columns


def _extend(
    column: MutableSequence[CellT], records: Sequence[Record], cell: Callable[[Record], CellT]
) -> Steps[None]:
    for start in range(0, len(records), STEP_ROWS):
        column.extend([cell(record) for record in records[start : start + STEP_ROWS]])
        yield


def large_values(content: Payload) -> tuple[Records, Sequence[Sized]] | None:
    """The other columns of a serialised `Records`, parsed, and for each value what has its length.

    None where the values are not large, do not stand first and together, as every encoder writes
    them, or where something is amiss: then protobuf has the say.
    """
    values: list[range] = []
    at, end = 0, len(content)
    while at < end and content[at] == _VALUES_KEY:
        size, shift, at = 0, 0, at + 1
        for place in range(at, min(at + _LENGTH_BYTES_MAX, end)):
            size |= (content[place] & 0x7F) << shift
            if content[place] < 0x80:
                break
            shift += 7
        else:
            return None
        at = place + 1 + size
        values.append(range(size))
        if at > end or len(values) > _SMALL_COUNT_MAX + at // LARGE_VALUE_BYTES_MIN:
            return None
    if not values or len(values) > end // LARGE_VALUE_BYTES_MIN:
        return None
    try:
        others = Records.FromString(bytes(content[at:]))
    except DecodeError:
        return None
    return None if others.values else (others, values)


def check(columns: Records, values: Sequence[Sized]) -> None:
    """Raises INVALID_BATCH for columns that do not fit together, EMPTY_BATCH for no record.

    The values are given beside the other columns.
    """
    count = len(values)
    lengths = {
        "keys": len(columns.keys),
        "timestamp_deltas_ms": len(columns.timestamp_deltas_ms),
        "headers": len(columns.headers),
    }
    if count == 0 and not any(lengths.values()):
        raise empty_batch()
    for name, length in lengths.items():
        if length not in {0, count}:
            raise invalid(
                f"Column {name} has {length} elements but values has {count};"
                " a column is either empty or as long as values."
            )
    if columns.null_keys and not columns.keys:
        raise invalid(
            "null_keys must be empty when the column keys is empty: every key is null then."
        )
    _check_nulls("null_keys", columns.null_keys, "keys", columns.keys)
    _check_nulls("null_values", columns.null_values, "values", values)
    base = columns.base_timestamp_ms
    # One copy into a list, which is searched twice as fast as the message's own container.
    deltas = columns.timestamp_deltas_ms[:] or [0]
    _check_times(base + min(deltas), base + max(deltas))


def _check_nulls(
    name: str, nulls: Sequence[int], column_name: str, column: Sequence[Sized]
) -> None:
    if not nulls:
        return
    if any(second <= first for first, second in pairwise(nulls)):
        raise invalid(f"{name} must ascend, without repeats.")
    if nulls[0] < 0 or nulls[-1] >= len(column):
        wrong = nulls[0] if nulls[0] < 0 else nulls[-1]
        raise invalid(
            f"{name} names position {wrong}, but the batch has positions 0 to {len(column) - 1}."
        )
    full = next((at for at in nulls if column[at]), None)
    if full is not None:
        raise invalid(
            f"{name} names position {full}, but {column_name} holds {len(column[full])} bytes"
            " there; a null is an empty element."
        )


def _check_times(lowest_ms: int, highest_ms: int) -> None:
    if lowest_ms < 0 or highest_ms > INTEGER_MAX:
        wrong = lowest_ms if lowest_ms < 0 else highest_ms
        raise invalid(
            f"A record has the timestamp {wrong}; timestamps are milliseconds since the epoch,"
            f" from 0 to {INTEGER_MAX}."
        )


def to_rows(
    columns: Records, base_offset: int, append_time_ms: int, wanted: range
) -> Iterable[Record]:
    """Yields the records at the wanted positions as rows, with their offsets and times."""
    null_keys = set(columns.null_keys)
    null_values = set(columns.null_values)
    keys, values = columns.keys, columns.values
    headers, deltas = columns.headers, columns.timestamp_deltas_ms
    base_time_ms = columns.base_timestamp_ms
    for at in wanted:
        time_ms = base_time_ms + deltas[at] if deltas else base_time_ms
        yield Record(
            key=keys[at] if keys and at not in null_keys else None,
            value=values[at] if at not in null_values else None,
            headers=headers[at].headers if headers else None,
            timestamp_ms=time_ms or append_time_ms,
            offset=base_offset + at,
            append_time_ms=append_time_ms,
        )


def invalid(message: str) -> RakitError:
    """Returns the error for a batch whose columns do not fit together."""
    return RakitError(error_pb2.ERROR_REASON_INVALID_BATCH, message)


def empty_batch() -> RakitError:
    """Returns the error for a batch without a record."""
    return RakitError(
        error_pb2.ERROR_REASON_EMPTY_BATCH,
        "The batch holds no record; a request appends at least one.",
    )
