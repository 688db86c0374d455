"""Position rows: a sparse index from offsets and times to places in the Raft log.

A row says "the batch that begins at this offset is the first one of the entry at this index,
appended at this time".
Rows are derived data: they are written while entries are applied, are not synced for their own
sake, and a replay writes them again. So a lookup takes a row as a hint of where to begin, and falls
back to the log's start when there is none.

The first batch after a checkpoint always gets a row. Therefore a replica that restarts from any
checkpoint writes the same rows again, and the first record that is kept after a cut has one.

Rows lie `ROW_ENTRIES` entries or `ROW_BYTES` bytes apart, whichever comes first: a lookup reads at
most that much log in vain, and what a tick has brought since the newest row was written. A
partition of small batches costs 1/64 row each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue

ROW_ENTRIES: Final = 64
ROW_BYTES: Final = 256 * 1024

_VALUE: Final = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Row:
    """The batch at `offset` is the first one of the entry at `index`."""

    offset: int
    index: int
    append_time_ms: int


class Spacing:
    """Decides which batches get a row."""

    __slots__ = ("_bytes", "_entries", "_fresh")

    def __init__(self) -> None:
        self._entries = 0
        self._bytes = 0
        self._fresh = True

    def restart(self) -> None:
        """Gives the next batch a row: a checkpoint was taken or restored here."""
        self._fresh = True

    def wants_row(self, size_bytes: int) -> bool:
        """Counts a batch and tells whether it gets a row."""
        self._entries += 1
        self._bytes += size_bytes
        if not self._fresh and self._entries < ROW_ENTRIES and self._bytes < ROW_BYTES:
            return False
        self._fresh = False
        self._entries = 0
        self._bytes = 0
        return True


def encode_row(row: Row) -> bytes:
    """Returns the value that is stored under the row's offset."""
    return _VALUE.pack(row.index, row.append_time_ms)


def row_at_or_below(disk: KeyValue, group_id: int, lowest: int, offset: int) -> Row | None:
    """Returns the last row of an offset from `lowest` to `offset`."""
    if offset < lowest:
        return None
    lo, hi = keys.position(group_id, lowest), keys.position(group_id, offset + 1)
    found = disk.last_below(lo, hi)
    if found is None:
        return None
    index, append_time_ms = _VALUE.unpack(found[1])
    return Row(keys.number_of(found[0]), index, append_time_ms)


def last_row_before(
    disk: KeyValue, group_id: int, lowest: int, end: int, time_ms: int
) -> Row | None:
    """Returns the last row in [lowest, end) whose batch was appended before `time_ms`.

    Append times never fall (S3), so the rows are searched by halves: some fifty reads at most,
    however long the log is.
    """
    best: Row | None = None
    lo, hi = lowest, end
    while lo < hi:
        middle = (lo + hi) // 2
        row = row_at_or_below(disk, group_id, lo, middle)
        if row is None:
            lo = middle + 1
        elif row.append_time_ms < time_ms:
            best = row
            lo = middle + 1
        else:
            hi = row.offset
    return best
