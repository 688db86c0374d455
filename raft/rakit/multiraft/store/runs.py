"""Run rows: where the entries of a group lie (the store's own).

A run is what one segment holds of one group: its entries from ``first`` on, up to where the group's
next run begins. Its row lies in the default family and is written in one batch with the first of
its entries: where there are entries there is a row. A group's runs ascend in their segments as
they do in their indexes, as a log is written upwards and a replaced end is deleted first; only the
row of one that was moved names the default family (number 0). What lies before the first run, or
belongs to a group that has none, is there as well.

``last`` and ``size_bytes`` say how much of a segment still lives. They are as of the last time that
the row was written, which is at most some 32 MiB of entries ago. Nothing that is read rests on
them.

    0A group first    segment, last index, bytes: 8 bytes each
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError

#: Beyond every index.
INDEX_END: Final = 1 << 64

_KEY: Final = struct.Struct(">BQQ")
_KEY_END: Final = struct.Struct(">BQ")
_VALUE: Final = struct.Struct(">QQQ")
_ENTRY: Final = struct.Struct(">BQQ")


@dataclass(slots=True)
class Run:
    """What one segment holds of one group."""

    group_id: int
    first: int
    segment: int
    last: int
    size_bytes: int

    @property
    def value(self) -> bytes:
        """The value of its row."""
        return _VALUE.pack(self.segment, self.last, self.size_bytes)

    @property
    def key(self) -> bytes:
        """The key of its row."""
        return _KEY.pack(keys.RUN, self.group_id, self.first)

    def cut_before(self, index: int) -> None:
        """Forget what lies before ``index``, which the run goes beyond."""
        count = self.last - self.first + 1
        gone = min(max(0, index - self.first), count)
        self.size_bytes -= self.size_bytes * gone // count if count > 0 else 0
        self.first = index
        self.last = max(self.last, index)


def decode(key: bytes, value: bytes) -> Run:
    """The run of a row."""
    try:
        _, group_id, first = _KEY.unpack(key)
        segment, last, size_bytes = _VALUE.unpack(value)
    except struct.error as error:
        raise StoreCorruptError(f"a run row of {len(key)} and {len(value)} bytes") from error
    return Run(group_id, first, segment, last, size_bytes)


def key_at(group_id: int, index: int) -> bytes:
    """The key of a run that begins at ``index``; behind all of the group's if there can be none."""
    if index < INDEX_END:
        return _KEY.pack(keys.RUN, group_id, index)
    return _KEY_END.pack(keys.RUN, group_id + 1)


def entry_at(group_id: int, index: int) -> bytes:
    """The key of an entry; behind all of the group's where there can be none."""
    if index < INDEX_END:
        return _ENTRY.pack(keys.ENTRY, group_id, index)
    return _KEY_END.pack(keys.ENTRY, group_id + 1)


def is_entry(key: bytes) -> bool:
    """Whether this is the key, or a bound of a range, of entries."""
    return key[0] == keys.ENTRY


def place_of(key: bytes) -> tuple[int, int]:
    """Group and index of an entry's key, or of a bound between groups or behind them all."""
    if key[0] > keys.ENTRY:
        return INDEX_END, 0
    if len(key) == _ENTRY.size:
        _, group_id, index = _ENTRY.unpack(key)
        return group_id, index
    if len(key) > _ENTRY.size:  # what follows a key: the bound of a walk that goes on
        _, group_id, index = _ENTRY.unpack_from(key)
        return (group_id, index + 1) if index + 1 < INDEX_END else (group_id + 1, 0)
    return int.from_bytes(key[1:9].ljust(8, b"\0"), "big"), 0
