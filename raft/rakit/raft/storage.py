"""Where the core reads the stored log: a protocol, and a version in memory.

The core only reads. Writing is the host's job, driven by `Ready`: what a `Ready` hands out must be
readable here once its batch is written, durable or not, and durable once `on_persisted` is called.

Contract:

- The stored log is the base (index and term of the entry before the first, whose term is kept)
  and the entries `first_index()` to `last_index()` without a gap. An empty log has
  `last_index() == first_index() - 1`.
- `entries(lo, hi, max_bytes)` returns a contiguous run from `lo`, at least one entry, cut only by
  `hi` (exclusive) or by `max_bytes`. It never ends early because a read failed: a read error is an
  exception (databendlabs/openraft#1795).
- After a restart everything that is readable is durable. RocksDB replays records that were written
  and not synced before a process died, so the host syncs once after opening.
"""

from __future__ import annotations

from typing import Protocol

from rakit.raft.errors import (
    CompactedError,
    SnapshotTemporarilyUnavailableError,
    UnavailableError,
)
from rakit.raft.types import ConfState, Entry, EntryType, HardState, Snapshot, message_bytes


class LogStorage(Protocol):
    """The read side of a stored log."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Returns the stored vote record and the configuration as of the applied index."""
        ...

    def entries(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        """Returns entries from `lo` to before `hi`, at least one, cut at `max_bytes`.

        Raises `CompactedError`, `UnavailableError` or `EntriesTemporarilyUnavailableError`.
        """
        ...

    def term(self, i: int) -> int:
        """Returns the term at `i`, first_index() - 1 to last_index(); raises like `entries`."""
        ...

    def holds_conf_change(self, lo: int, hi: int) -> bool:
        """Tells whether a configuration change lies in [lo, hi), above the applied index.

        Known without reading: it is asked before every campaign, also by a replica that has much
        to apply.
        """
        ...

    def first_index(self) -> int:
        """Returns the index of the first entry that is kept."""
        ...

    def last_index(self) -> int:
        """Returns the index of the last entry, first_index() - 1 if there is none."""
        ...

    def snapshot(self, to: int) -> Snapshot:
        """Returns a base for replica `to` that the entries kept here continue without a gap.

        Raises `SnapshotTemporarilyUnavailableError` while it is being made.
        """
        ...


class MemoryStorage:
    """A `LogStorage` in memory, with the write side that a host would have.

    Used by tests and simulations. Invariants: `_entries[i].index == _base.index + 1 + i`; terms do
    not fall.
    """

    def __init__(self, conf_state: ConfState | None = None) -> None:
        self.hard_state = HardState()
        self.conf_state = conf_state or ConfState()
        #: What `snapshot` returns; None while one is being made.
        self.offered: Snapshot | None = None
        self._base = (0, 0)
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Returns the stored vote record and configuration."""
        return self.hard_state, self.conf_state

    def entries(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        """Returns a contiguous run from `lo`."""
        assert lo < hi, "an empty range was asked for"
        if lo < self.first_index():
            raise CompactedError(f"{lo} lies before {self.first_index()}")
        if hi > self.last_index() + 1:
            raise UnavailableError(f"{hi} lies behind {self.last_index()}")
        offset = self.first_index()
        return limit_bytes(self._entries[lo - offset : hi - offset], max_bytes)

    def term(self, i: int) -> int:
        """Returns the term at `i`."""
        base, base_term = self._base
        if i < base:
            raise CompactedError(f"{i} lies before {base}")
        if i > self.last_index():
            raise UnavailableError(f"{i} lies behind {self.last_index()}")
        return base_term if i == base else self._entries[i - base - 1].term

    def holds_conf_change(self, lo: int, hi: int) -> bool:
        """Tells whether a configuration change lies in [lo, hi)."""
        kept = self._entries[max(0, lo - self.first_index()) : max(0, hi - self.first_index())]
        return any(entry.type is EntryType.CONF_CHANGE for entry in kept)

    def first_index(self) -> int:
        """Returns the index of the first entry."""
        return self._base[0] + 1

    def last_index(self) -> int:
        """Returns the index of the last entry."""
        return self._base[0] + len(self._entries)

    def snapshot(self, to: int) -> Snapshot:
        """Returns the base that was last offered."""
        if self.offered is None:
            raise SnapshotTemporarilyUnavailableError(f"no snapshot for {to} yet")
        return self.offered

    # The write side.

    def append(self, entries: list[Entry]) -> None:
        """Replaces everything from the first of the entries on by them."""
        if not entries:
            return
        first = entries[0].index
        assert first > self._base[0], "entries were written before the base of the log"
        assert first <= self.last_index() + 1, "entries were written beyond a gap"
        del self._entries[first - self._base[0] - 1 :]
        for entry in entries:
            assert entry.index == self.last_index() + 1, "entries to be written have a gap"
            self._entries.append(entry)

    def set_hard_state(self, hard_state: HardState) -> None:
        """Stores the vote record."""
        self.hard_state = hard_state

    def install(self, snapshot: Snapshot) -> None:
        """Replaces the whole log by a base."""
        self._base = (snapshot.index, snapshot.term)
        self._entries.clear()
        self.conf_state = snapshot.conf_state
        self.offered = snapshot

    def compact(self, index: int) -> None:
        """Drops the entries up to `index`, whose term is kept."""
        term = self.term(index)
        del self._entries[: index - self._base[0]]
        self._base = (index, term)


def limit_bytes(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """Returns the longest start of `entries` within `max_bytes`, at least one entry."""
    if message_bytes(entries) <= max_bytes:
        return entries
    size = 0
    for count, entry in enumerate(entries):
        size += message_bytes((entry,))
        if size > max_bytes and count > 0:
            return entries[:count]
    return entries
