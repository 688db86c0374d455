"""The end of the log that is not known to be durable yet.

Every entry passes three zones:

    waiting      appended here, not handed to the host          next_entry <= i
    in flight    handed out in a Ready, not reported durable    offset <= i < next_entry
    stable       durable; read from storage                     i < offset

Entries in flight are kept here until they are reported durable, so that reading does not depend on
whether the host has written them yet.

Invariants:

- `entries[k].index == offset + k`, without a gap, and terms do not fall.
- `offset <= next_entry <= offset + len(entries)`.
- Nothing is stable beyond a pending snapshot: while one is pending, `offset` is right behind it or
  further.
- `base_term`, when known, is the term of the entry at `offset - 1`; it follows every move of
  `offset` (a cached copy that outlives a truncation is cockroachdb/cockroach#63473).

Rule U1: a completion counts only for entries that are still the same: same index, same term, and
the caller has checked that the current term has not moved since they were handed out. Otherwise
(5, term 1) written, replaced by (5, term 2) and replaced again by (5, term 1) would be called
durable by the first write while the third is still under way (etcd-io/raft#8).
"""

from __future__ import annotations

from rakit.raft.types import Entry, Snapshot


class Unstable:
    """The waiting and in-flight end of the log."""

    __slots__ = (
        "base_term",
        "entries",
        "next_entry",
        "offset",
        "snapshot",
        "snapshot_in_flight",
    )

    def __init__(self, offset: int, base_term: int) -> None:
        self.offset = offset
        self.next_entry = offset
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.snapshot_in_flight = False
        self.base_term: int | None = base_term

    @property
    def last_index(self) -> int:
        """Index of the last entry of the whole log."""
        return self.offset + len(self.entries) - 1

    @property
    def has_waiting(self) -> bool:
        """Whether something has to be handed to the host."""
        return self.next_entry < self.offset + len(self.entries) or (
            self.snapshot is not None and not self.snapshot_in_flight
        )

    def term(self, index: int) -> int | None:
        """Returns the term at `index` if it is known here."""
        position = index - self.offset
        if position >= 0:
            return self.entries[position].term if position < len(self.entries) else None
        return self.base_term if position == -1 else None

    def hand_out(self) -> tuple[Snapshot | None, list[Entry]]:
        """Returns what waits and notes it as in flight."""
        snapshot = None if self.snapshot_in_flight else self.snapshot
        self.snapshot_in_flight = self.snapshot is not None
        entries = self.entries[self.next_entry - self.offset :]
        self.next_entry = self.offset + len(self.entries)
        return snapshot, entries

    def stable_to(self, index: int, term: int) -> None:
        """Moves everything up to `index` to storage, if it is still the entry of `term` (U1)."""
        position = index - self.offset
        if position < 0 or position >= len(self.entries):
            return
        assert self.snapshot is None, "entries behind a base became durable before it"
        if self.entries[position].term != term:
            return
        assert index < self.next_entry, "an entry became durable before it was handed out"
        del self.entries[: position + 1]
        self.offset = index + 1
        self.base_term = term

    def snapshot_stable(self, index: int) -> None:
        """Forgets the pending snapshot if it is the one as of `index`."""
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_flight = False

    def restore(self, snapshot: Snapshot) -> None:
        """Replaces the whole log by a base."""
        self.offset = snapshot.index + 1
        self.next_entry = self.offset
        self.entries = []
        self.base_term = snapshot.term
        self.snapshot = snapshot
        self.snapshot_in_flight = False

    def append(self, entries: tuple[Entry, ...] | list[Entry]) -> None:
        """Appends, replacing everything from the first of the entries on."""
        first = entries[0].index
        assert entries[-1].index == first + len(entries) - 1, "an append must have no gap"
        position = first - self.offset
        if position == len(self.entries):
            self.entries.extend(entries)
            return
        assert position < len(self.entries), "an append would leave a gap"
        if position > 0:
            del self.entries[position:]
            self.entries.extend(entries)
            self.next_entry = min(self.next_entry, first)
            return
        if position < 0:
            assert self.snapshot is None, "an append would reach behind a pending snapshot"
            self.base_term = None
        self.entries = list(entries)
        self.offset = first
        self.next_entry = first
