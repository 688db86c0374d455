"""The newest entries of every log of a node, in memory, within bounds for all of them.

Followers that keep up and readers at the tail are served from here, so that a healthy cluster
reads nothing from its disks. The cache keeps the entry objects that the core and the network
already share; nothing is copied.

Rules:

- A group's cached entries are contiguous and end with its last entry; truncation removes them
  here in the same step in which it removes them from the log (cockroachdb/cockroach#63473).
- There are two bounds: for what groups need no more, and for that and what they still need, to
  apply it or to send it. The latter they will read, and from the disk that takes more than what it
  saves: who falls behind a little would fall behind further.
- Over a bound, the oldest appends of the node go first, whoever made them, down to an eighth below
  it, so that the cost of dropping is spread over many. Who needs what is asked as seldom.
- Losing an entry here is never an error: the log reads the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from rakit.raft import ENTRY_OVERHEAD_BYTES, Entry

#: What an entry takes in memory beside its payload (objects, list slot), roughly.
ENTRY_MEMORY_BYTES: Final = 200
#: Of the oldest appends so many may be needed; then what lies behind them is not looked at.
_ASKED_COUNT_MAX: Final = 1024


class GroupTail:
    """The cached end of one log."""

    __slots__ = ("_cache", "_entries", "needed_from")

    def __init__(self, cache: TailCache) -> None:
        self._cache = cache
        self._entries: list[Entry] = []
        #: Index of the first entry that the group is still to read.
        self.needed_from: Callable[[], int] = nothing

    @property
    def first_index(self) -> int:
        """Index of the first cached entry; 0 when nothing is cached."""
        return self._entries[0].index if self._entries else 0

    @property
    def last_index(self) -> int:
        """Index of the last entry, which is the log's; 0 when nothing is cached."""
        return self._entries[-1].index if self._entries else 0

    def memory_bytes(self, after: int, through: int) -> int:
        """What the cached entries behind `after` and up to `through` take."""
        held = self._entries
        if not held:
            return 0
        first = held[0].index
        return _memory_bytes(held[max(0, after + 1 - first) : max(0, through + 1 - first)])

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


#: A tail, and the last index of what was appended to it at once.
_Append: TypeAlias = tuple[GroupTail, int]


def nothing() -> int:
    """The first index that is needed of a log that nobody speaks for: none."""
    return 1 << 64


class TailCache:
    """The bounds over all tails of a node, in bytes and in appends."""

    __slots__ = (
        "_appends",
        "_appends_max",
        "_bytes_max",
        "_evicts_above",
        "_needed_bytes_max",
        "size_bytes",
    )

    def __init__(self, bytes_max: int, appends_max: int, needed_bytes_max: int = 0) -> None:
        self._bytes_max = bytes_max
        self._appends_max = appends_max
        #: Of everything, as long as it is needed.
        self._needed_bytes_max = max(needed_bytes_max, bytes_max)
        #: From where on it is worth a look what is needed.
        self._evicts_above = bytes_max
        #: (tail, last index) of each append, oldest first. What was truncated or trimmed since may
        #: still stand there: then there is less to drop, or nothing.
        self._appends: deque[_Append] = deque()
        self.size_bytes = 0

    @property
    def appends_count(self) -> int:
        """Appends that are remembered, stale ones among them."""
        return len(self._appends)

    def tail(self) -> GroupTail:
        """Makes the tail of a new log."""
        return GroupTail(self)

    def added(self, tail: GroupTail, entries: list[Entry]) -> None:
        """Counts an append of `tail` and, over a bound, drops the oldest ones of the node."""
        self.size_bytes += _memory_bytes(entries)
        self._appends.append((tail, entries[-1].index))
        if self.size_bytes > self._evicts_above or len(self._appends) > self._appends_max:
            self._evict()

    def removed(self, entries: list[Entry]) -> None:
        """Uncounts entries that a tail dropped."""
        self.size_bytes -= _memory_bytes(entries)
        self._evicts_above = min(self._evicts_above, self._next_look())

    def _next_look(self) -> int:
        """An eighth above what is held there is something new to be seen."""
        looks_above = max(self._bytes_max, self.size_bytes + self._bytes_max // 8)
        return min(looks_above, self._needed_bytes_max)

    def _evict(self) -> None:
        too_many = len(self._appends) > self._appends_max
        self._drop_oldest(self._bytes_max, _ASKED_COUNT_MAX)
        still_too_many = too_many and len(self._appends) > self._appends_max * 7 // 8
        if still_too_many or self.size_bytes > self._needed_bytes_max:
            self._drop_oldest(self._needed_bytes_max, 0)
        self._evicts_above = self._next_look()

    def _drop_oldest(self, bytes_max: int, kept_count_max: int) -> None:
        """Drops appends, up to an eighth below a bound, but so many that are needed.

        Each tail is cut once, however many of its appends go.
        """
        needed_from: dict[GroupTail, int] = {}
        needed: list[_Append] = []
        through: dict[GroupTail, int] = {}
        size, count_target = self.size_bytes, self._appends_max * 7 // 8
        while self._appends and len(needed) <= kept_count_max:
            count = len(self._appends) + len(needed)
            if size <= bytes_max * 7 // 8 and count <= count_target:
                break
            tail, index = append = self._appends.popleft()
            # Of what is gone nothing is needed.
            index = min(index, tail.last_index)
            if kept_count_max:
                if tail not in needed_from:
                    needed_from[tail] = tail.needed_from()
                if index >= needed_from[tail]:
                    needed.append(append)
                    continue
            dropped = through.get(tail, 0)
            if index > dropped:
                size -= tail.memory_bytes(dropped, index)
                through[tail] = index
        self._appends.extendleft(reversed(needed))
        for tail, index in through.items():
            tail.drop_through(index)


def _memory_bytes(entries: list[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + ENTRY_MEMORY_BYTES * len(entries)
