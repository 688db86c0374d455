"""What a caller may hand over: what could not be sent is refused at the call, where the mistake is.

A record shares its batch with the records of others, so one that cannot be encoded, or that the
node must refuse, would take them along. What is cheap is checked for each record; the types of a
whole column are checked by the encoder, which looks at each element anyway.

Mistakes in types and ranges are `TypeError` and `ValueError`, as everywhere in Python; a record
that is too large, which may depend on data, is a `RakitError` with the reason of the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from rakit.client.config import BATCH_BYTES_LIMIT, BATCH_COUNT_LIMIT
from rakit.client.errors import RakitError, make_error
from rakit.client.records import HeaderPairs

#: What a record takes on the wire beside its key and value, about.
RECORD_OVERHEAD_BYTES: Final = 8
#: Where int64 ends for JavaScript; the node refuses later times.
TIME_MS_MAX: Final = (1 << 53) - 1


def too_large(size_bytes: int) -> RakitError:
    """Returns the error of a record or batch that no topic takes, compressed or not."""
    return make_error(
        "BATCH_TOO_LARGE",
        f"{size_bytes:,} bytes are to be stored together; no topic takes more than"
        f" {BATCH_BYTES_LIMIT:,}",
        {"limit": str(BATCH_BYTES_LIMIT), "actual": str(size_bytes)},
    )


def length(what: str, data: object) -> int:
    """Returns the length of a key or value that may be of a subclass; raises TypeError."""
    if not isinstance(data, bytes):
        raise TypeError(f"the {what} of a record is bytes or None, not {type(data).__name__}")
    return len(data)


def checked_headers(headers: Iterable[tuple[object, object]]) -> tuple[tuple[str, bytes], ...]:
    """Returns headers as they are now, because their owner may change the list later."""
    checked: list[tuple[str, bytes]] = []
    for name, value in headers:
        if not isinstance(name, str) or not isinstance(value, bytes):
            kinds = f"{type(name).__name__} and {type(value).__name__}"
            raise TypeError(f"a header is a name (str) and a value (bytes), not {kinds}")
        # Half a surrogate pair is no text: that is a UnicodeEncodeError, which is a ValueError.
        name.encode()
        checked.append((name, value))
    return tuple(checked)


def headers_bytes(headers: HeaderPairs) -> int:
    """Returns what the headers of a record take on the wire, about."""
    return sum(RECORD_OVERHEAD_BYTES + len(name.encode()) + len(value) for name, value in headers)


def check_time(time_ms: object) -> None:
    """Raises TypeError or ValueError for a time that a record cannot have."""
    if not isinstance(time_ms, int) or isinstance(time_ms, bool):
        raise TypeError(f"a record's time is in milliseconds (int), not {time_ms!r}")
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise ValueError(
            f"a record's time is in milliseconds since the epoch, from 0 to {TIME_MS_MAX},"
            f" not {time_ms}"
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """Records that go together, as they were when they were handed over."""

    values: list[bytes | None]
    keys: list[bytes | None]
    headers: list[HeaderPairs]
    times_ms: list[int]
    size_bytes: int


def columns_of(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[HeaderPairs] | None,
    times_ms: Sequence[int] | None,
) -> Columns:
    """Returns copies of the columns, because their owner may change them while the batch waits."""
    count = len(values)
    if not count:
        raise ValueError("a batch holds at least one record")
    if count > BATCH_COUNT_LIMIT:
        raise make_error(
            "BATCH_TOO_LARGE",
            f"{count:,} records are to be stored together; a batch holds {BATCH_COUNT_LIMIT:,}",
            {"limit": str(BATCH_COUNT_LIMIT), "actual": str(count)},
        )
    for name, column in (("keys", keys), ("headers", headers), ("times", times_ms)):
        if column is not None and len(column) != count:
            raise ValueError(f"{count} values but {len(column)} {name}: one for each value")
    pairs: list[HeaderPairs] = [checked_headers(each) for each in headers or ()]
    if times_ms:
        check_time(min(times_ms))
        check_time(max(times_ms))
    size_bytes = RECORD_OVERHEAD_BYTES * count + _size_of(values) + _size_of(keys or ())
    size_bytes += sum(map(headers_bytes, pairs))
    return Columns(list(values), list(keys or ()), pairs, list(times_ms or ()), size_bytes)


def _size_of(column: Sequence[bytes | None]) -> int:
    try:
        return sum(map(len, cast("Sequence[bytes]", column)))
    except TypeError:
        # A null has no length. Looking for one before would cost as much as adding up.
        return sum(len(element) for element in column if element is not None)
