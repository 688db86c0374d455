"""The newest entries of every log of a node, in memory, within one bound for all of them.

Followers that keep up and readers at the tail are served from here, so that a healthy cluster
reads nothing from its disks. The cache keeps the entry objects that the core and the network
already share; nothing is copied.

Rules:

- A group's cached entries are contiguous and end with its last entry; truncation removes them
  here in the same step in which it removes them from the log (cockroachdb/cockroach#63473).
- Over the bound, the oldest appends of the node go first, whoever made them, an eighth of the
  bound at a time, so that the cost of dropping is spread over many appends.
- Losing an entry here is never an error: the log reads the disk.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from rakit.raft import ENTRY_OVERHEAD_BYTES, Entry

#: What an entry takes in memory beside its payload (objects, list slot), roughly.
ENTRY_MEMORY_BYTES: Final = 200


class GroupTail:
    """The cached end of one log."""

    __slots__ = ("_cache", "_entries")

    def __init__(self, cache: TailCache) -> None:
        self._cache = cache
        self._entries: list[Entry] = []

    @property
    def first_index(self) -> int:
        """Index of the first cached entry; 0 when nothing is cached."""
        return self._entries[0].index if self._entries else 0

    def append(self, entries: list[Entry]) -> None:
        """Takes entries that continue the log; a gap starts the tail anew."""
        held = self._entries
        if held and held[-1].index + 1 != entries[0].index:
            assert held[-1].index < entries[0].index, "the tail was not truncated with its log"
            self.clear()
        held.extend(entries)
        self._cache.added(self, entries)

    def get(self, index: int) -> Entry | None:
        """Returns one entry if it is cached."""
        held = self._entries
        if not held or index < held[0].index or index > held[-1].index:
            return None
        return held[index - held[0].index]

    def slice(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        """Returns cached entries from `lo` to before `hi`, at least one, cut at `max_bytes`."""
        offset = self._entries[0].index
        assert lo >= offset, "the range begins before the cached tail"
        size = 0
        stop = lo
        while stop < hi:
            size += len(self._entries[stop - offset].data) + ENTRY_OVERHEAD_BYTES
            if size > max_bytes and stop > lo:
                break
            stop += 1
        return self._entries[lo - offset : stop - offset]

    def truncate(self, index: int) -> None:
        """Drops everything from `index` on."""
        held = self._entries
        if held and held[-1].index >= index:
            keep = max(0, index - held[0].index)
            self._cache.removed(held[keep:])
            del held[keep:]

    def drop_through(self, index: int) -> None:
        """Drops everything up to `index`."""
        held = self._entries
        if held and held[0].index <= index:
            count = min(len(held), index - held[0].index + 1)
            self._cache.removed(held[:count])
            del held[:count]

    def clear(self) -> None:
        """Drops everything."""
        self._cache.removed(self._entries)
        self._entries.clear()


class TailCache:
    """The bound over all tails of a node, in bytes and in appends."""

    __slots__ = ("_appends", "_appends_max", "_bytes_max", "size_bytes")

    def __init__(self, bytes_max: int, appends_max: int) -> None:
        self._bytes_max = bytes_max
        self._appends_max = appends_max
        #: (tail, last index) of each append, oldest first. Stale ones (truncated, trimmed) drop
        #: at most what is older than themselves in time, which is harmless.
        self._appends: deque[tuple[GroupTail, int]] = deque()
        self.size_bytes = 0

    @property
    def appends_count(self) -> int:
        """Appends that are remembered, stale ones among them."""
        return len(self._appends)

    def tail(self) -> GroupTail:
        """Makes the tail of a new log."""
        return GroupTail(self)

    def added(self, tail: GroupTail, entries: list[Entry]) -> None:
        """Counts an append of `tail` and, over the bound, drops the oldest ones of the node."""
        self.size_bytes += _memory_bytes(entries)
        self._appends.append((tail, entries[-1].index))
        if self.size_bytes > self._bytes_max or len(self._appends) > self._appends_max:
            self._evict()

    def removed(self, entries: list[Entry]) -> None:
        """Uncounts entries that a tail dropped."""
        self.size_bytes -= _memory_bytes(entries)

    def _evict(self) -> None:
        bytes_target = self._bytes_max * 7 // 8
        appends_target = self._appends_max * 7 // 8
        while self._appends and (
            self.size_bytes > bytes_target or len(self._appends) > appends_target
        ):
            tail, index = self._appends.popleft()
            tail.drop_through(index)


def _memory_bytes(entries: list[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + ENTRY_MEMORY_BYTES * len(entries)
