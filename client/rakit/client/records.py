"""Records as users see them, and the columns in which they travel.

A batch travels as columns: one list of values, one of keys, and so on. Building and reading a
column costs tens of nanoseconds a record where a message per record costs a microsecond, so the
columns are turned into `Record` objects only when somebody iterates, and a caller that wants values
only takes `RecordBatch.values` and never pays for the rest.

Rules of the layout (record.proto):

- `values` has one element per record; every other column is empty or as long.
- A null key or value is an empty element whose position stands in an index list. No keys at all: no
  column of keys.
- A timestamp of 0 means that the producer gave none; readers then show the append time.

Left out: what a server checks. Columns that come from a node were checked when they were appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from functools import cached_property
from itertools import repeat
from typing import Final, NamedTuple, cast

from rakit.api.v1.record_pb2 import Batch, Header, Headers, Records
from rakit.client import codecs

HeaderPairs = Sequence[tuple[str, bytes]]


class Record(NamedTuple):
    """One record of a topic. An absent (null) key or value is None, which differs from empty."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    # In the order in which they were given; a name may repeat.
    headers: tuple[tuple[str, bytes], ...]
    # The producer's time where one was given, else the time of the append.
    timestamp_ms: int
    # When the partition's leader appended it; never falls within a partition.
    append_time_ms: int


#: Makes a record of a row without a Python call, which `Record._make` is.
_new_record: Final = cast(
    "Callable[[type[Record], Iterable[object]], Record]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
)


def fill_columns(
    columns: Records,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] = (),
    headers: Sequence[HeaderPairs] = (),
    timestamps_ms: Sequence[int] = (),
) -> None:
    """Fills empty columns with at least one record. An empty sequence means that none has any."""
    assert values, "a batch holds at least one record"
    fill_values(columns.values, columns.null_values, values)
    fill_other_columns(columns, keys, headers, timestamps_ms)


def fill_other_columns(
    columns: Records,
    keys: Sequence[bytes | None],
    headers: Sequence[HeaderPairs],
    timestamps_ms: Sequence[int],
) -> None:
    """Fills all but the values."""
    if keys and keys.count(None) < len(keys):
        fill_values(columns.keys, columns.null_keys, keys)
    if headers and any(headers):
        columns.headers.extend(
            Headers(headers=[Header(name=name, value=value) for name, value in pairs])
            for pairs in headers
        )
    if timestamps_ms:
        base = timestamps_ms[0]
        columns.base_timestamp_ms = base
        if any(time != base for time in timestamps_ms):
            columns.timestamp_deltas_ms.extend(time - base for time in timestamps_ms)


def fill_values(
    column: MutableSequence[bytes], nulls: MutableSequence[int], elements: Sequence[bytes | None]
) -> None:
    """Fills an empty column, and the positions of the nulls in it; raises TypeError."""
    # Protobuf looks at each element anyway, so it is the one that finds a null: a search before
    # would cost as much as the encoding. What it refuses it does not keep a part of.
    try:
        column.extend(cast("Sequence[bytes]", elements))
    except TypeError:
        if None not in elements:
            raise
        column.extend([b"" if element is None else element for element in elements])
        nulls.extend([at for at, element in enumerate(elements) if element is None])


class RecordBatch:
    """Consecutive records of one partition, decoded column by column when they are asked for.

    It holds the records from `base_offset` to `end_offset` (exclusive), which may be a part of what
    was appended together. Iterating yields `Record`s.
    """

    def __init__(self, topic: str, partition: int, stored: Batch, wanted: range) -> None:
        whole = range(stored.base_offset, stored.base_offset + stored.record_count)
        self.topic = topic
        self.partition = partition
        self.base_offset = max(whole.start, wanted.start)
        self.end_offset = min(whole.stop, wanted.stop)
        assert self.base_offset < self.end_offset, "a batch without a wanted record is not made"
        self.append_time_ms = stored.append_time_ms
        self._stored = stored
        self._part = slice(self.base_offset - whole.start, self.end_offset - whole.start)

    def __len__(self) -> int:
        return self.end_offset - self.base_offset

    def beginning_at(self, offset: int) -> RecordBatch | None:
        """Returns the part from an offset on; None when nothing is left."""
        if offset <= self.base_offset:
            return self
        if offset >= self.end_offset:
            return None
        wanted = range(offset, self.end_offset)
        return RecordBatch(self.topic, self.partition, self._stored, wanted)

    @cached_property
    def size_bytes(self) -> int:
        """What the batch takes in memory, roughly: the size in which it travelled.

        A reader sets what its stream has told it, because adding up takes time for each record.
        """
        return self._stored.ByteSize()

    @cached_property
    def _columns(self) -> Records:
        if self._stored.HasField("compressed"):
            return Records.FromString(codecs.decompress(self._stored.compressed))
        return self._stored.records

    @cached_property
    def values(self) -> Sequence[bytes | None]:
        """The values, in order; None is a null."""
        return self._restored(self._columns.values, self._columns.null_values)

    @cached_property
    def keys(self) -> Sequence[bytes | None]:
        """The keys, in order; None is a null."""
        if not self._columns.keys:
            return [None] * len(self)
        return self._restored(self._columns.keys, self._columns.null_keys)

    @cached_property
    def headers(self) -> Sequence[tuple[tuple[str, bytes], ...]]:
        """The headers of each record, in order."""
        if not self._columns.headers:
            return [()] * len(self)
        return [
            tuple((each.name, each.value) for each in one.headers)
            for one in self._columns.headers[self._part]
        ]

    @cached_property
    def timestamps_ms(self) -> Sequence[int]:
        """The time of each record: the producer's, or the append time where none was given."""
        base = self._columns.base_timestamp_ms
        deltas = self._columns.timestamp_deltas_ms
        if not deltas:
            return [base or self.append_time_ms] * len(self)
        return [base + delta or self.append_time_ms for delta in deltas[self._part]]

    def __iter__(self) -> Iterator[Record]:
        return self.numbered(self.offsets())

    def offsets(self) -> Iterator[int]:
        """Returns what numbers the records; `operator.length_hint` says how many are left."""
        return iter(range(self.base_offset, self.end_offset))

    def numbered(self, offsets: Iterator[int]) -> Iterator[Record]:
        """Returns the records. Each takes its number from `offsets` when it is made.

        So whoever keeps the `offsets()` knows how far the iteration has got, and need not count.
        """
        rows = zip(
            repeat(self.topic),
            repeat(self.partition),
            offsets,
            self.keys,
            self.values,
            self.headers,
            self.timestamps_ms,
            repeat(self.append_time_ms),
            strict=False,
        )
        return map(_new_record, repeat(Record), rows)

    def _restored(self, elements: Sequence[bytes], nulls: Sequence[int]) -> Sequence[bytes | None]:
        if not nulls:
            return elements[self._part]
        restored: list[bytes | None] = list(elements)
        for at in nulls:
            restored[at] = None
        return restored[self._part]
