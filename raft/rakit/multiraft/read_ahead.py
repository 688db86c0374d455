"""Entries that were read from the disk and did not fit into the answer that they were read for.

How large an entry is only its value says, so whoever fills an answer up to a limit reads one entry
more than it returns. Whoever goes on behind the answer begins with that one: without a place for it
every entry of a megabyte would be read twice, checked twice and copied twice.

Rules:

- One bound in bytes and one in entries for all groups of a node; the oldest go first. An entry that
  is larger than the bound is not taken, and puts nobody else's out.
- Entries are known by their replica: what is read from the log of one that is gone is nobody's.
- An entry stays when it is returned: a reader may find that it has no room for it either.
- Truncation forgets here in the same step in which it forgets in the log, as in the tail cache.
- Losing an entry here is never an error: the log reads the disk.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from rakit.raft import Entry

#: Groups times the readers of each that can go on without reading twice.
_ENTRIES_COUNT_MAX: Final = 1024

#: Group, replica, index.
_Place: TypeAlias = tuple[int, int, int]


class ReadAhead:
    """What a node has read too much, by replica and index."""

    __slots__ = ("_bytes_max", "_entries", "size_bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[_Place, Entry] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, group_id: int, replica_id: int, entry: Entry) -> None:
        """Takes an entry that was read; what is oldest goes where there are too many."""
        place = (group_id, replica_id, entry.index)
        self._drop(place)
        if len(entry.data) > self._bytes_max:
            return
        self._entries[place] = entry
        self.size_bytes += len(entry.data)
        while self.size_bytes > self._bytes_max or len(self._entries) > _ENTRIES_COUNT_MAX:
            self._drop(next(iter(self._entries)))

    def get(self, group_id: int, replica_id: int, index: int) -> Entry | None:
        """Returns an entry if it is here."""
        return self._entries.get((group_id, replica_id, index))

    def forget(self, group_id: int, first: int) -> None:
        """Lets go of a group's entries from an index on."""
        for place in [each for each in self._entries if each[0] == group_id and each[2] >= first]:
            self._drop(place)

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self.size_bytes -= len(entry.data)
