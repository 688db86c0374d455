"""The replicated log of one replica: storage and unstable end as one sequence (section 5.3).

    first .......... applied ... applying ... committed ... last
                             durable = unstable.offset - 1

Invariants:

- `applied <= applying <= committed <= last_index`.
- `applying <= durable`: nothing is applied before it is durable here (safety S13), though it may
  be committed before that, since the leader's own disk does not count more than another.
- `committed` never falls, and what it covers never changes.
- Indexes have no gap and terms do not fall.

A cluster whose log contradicts one of these stops this replica: `LogLostError` when entries are
missing that it acknowledged or knows as committed, `CommittedConflictError` when a leader would
replace committed ones. Both are operating errors (a rolled back disk), not assertions.
"""

from __future__ import annotations

from rakit.raft.errors import (
    CommittedConflictError,
    CompactedError,
    HardStateLostError,
    LogLostError,
    UnavailableError,
)
from rakit.raft.log_unstable import Unstable
from rakit.raft.storage import LogStorage, limit_bytes
from rakit.raft.types import (
    Entry,
    EntryID,
    EntryType,
    HardState,
    Snapshot,
    message_bytes,
    payload_bytes,
)


class RaftLog:
    """Storage and unstable end as one sequence, with the marks of commit and apply."""

    __slots__ = (
        "_apply_bytes_max",
        "_apply_count_max",
        "applied",
        "applying",
        "applying_bytes",
        "committed",
        "fetching",
        "storage",
        "unstable",
    )

    def __init__(
        self,
        storage: LogStorage,
        hard_state: HardState,
        applied: int,
        apply_bytes_max: int,
        apply_count_max: int,
    ) -> None:
        """Opens a stored log; raises when it contradicts the stored vote record."""
        first, last = storage.first_index(), storage.last_index()
        last_term = storage.term(last)
        if last_term > hard_state.term:
            raise HardStateLostError(
                f"the last entry has term {last_term}, the stored term is {hard_state.term} (S5)"
            )
        if hard_state.commit > last:
            raise LogLostError(f"commit is {hard_state.commit}, the log ends at {last}")
        if hard_state.commit < first - 1 or hard_state.commit < applied:
            raise HardStateLostError(
                f"commit is {hard_state.commit}, the log begins at {first} and {applied} is applied"
            )
        if applied < first - 1:
            raise LogLostError(f"applied is {applied}, the log begins at {first}")
        self.storage = storage
        self.unstable = Unstable(last + 1, last_term)
        self.committed = hard_state.commit
        #: Last index handed out to be applied.
        self.applying = applied
        #: Last index that the host has reported as applied.
        self.applied = applied
        #: Payload bytes handed out and not reported as applied.
        self.applying_bytes = 0
        self._apply_bytes_max = apply_bytes_max
        self._apply_count_max = apply_count_max
        #: The host is fetching the entries to be applied next.
        self.fetching = False

    # Reading.

    @property
    def last_index(self) -> int:
        """Index of the last entry, durable or not."""
        return self.unstable.last_index

    @property
    def durable_index(self) -> int:
        """Index up to which the log is known to be on this replica's disk."""
        return self.unstable.offset - 1

    @property
    def first_index(self) -> int:
        """Index of the first entry that can be read."""
        snapshot = self.unstable.snapshot
        return self.storage.first_index() if snapshot is None else snapshot.index + 1

    def last_id(self) -> EntryID:
        """Returns (term, index) of the last entry."""
        index = self.last_index
        return self.term(index), index

    def term(self, index: int) -> int:
        """Returns the term at `index`; raises `CompactedError` or `UnavailableError`."""
        term = self.unstable.term(index)
        if term is not None:
            return term
        if index >= self.unstable.offset:
            raise UnavailableError(f"{index} lies behind {self.last_index}")
        if self.unstable.snapshot is not None:
            raise CompactedError(f"{index} lies before a pending snapshot")
        return self.storage.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Tells whether the entry at `index` is here and has `term` (Log Matching)."""
        try:
            return self.term(index) == term
        except (CompactedError, UnavailableError):
            return False

    def slice(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Returns entries from `low` to before `high`, at least one, cut at `bytes_max`."""
        assert low < high <= self.last_index + 1, f"no entries in [{low}, {high})"
        unstable = self.unstable
        offset = unstable.offset
        if low >= offset:
            return limit_bytes(unstable.entries[low - offset : high - offset], bytes_max)
        if unstable.snapshot is not None:
            raise CompactedError(f"{low} lies before a pending snapshot")
        stored = self.storage.entries(low, min(high, offset), bytes_max)
        # A short or shifted answer would become a malformed append (databendlabs/openraft#1795).
        assert stored, "storage returned no entries"
        assert stored[0].index == low, "storage returned entries from elsewhere"
        assert stored[-1].index == low + len(stored) - 1, "storage returned entries with a gap"
        if high <= offset or len(stored) < offset - low:
            return stored
        room = bytes_max - message_bytes(stored)
        if room <= 0:
            return stored
        rest = limit_bytes(unstable.entries[: high - offset], room)
        if message_bytes(rest) > room:
            return stored
        return [*stored, *rest]

    def is_up_to_date(self, last: EntryID) -> bool:
        """Tells whether a log that ends with `last` holds at least what this one does (5.4.1)."""
        return last >= self.last_id()

    def find_conflict_by_term(self, index: int, term: int) -> EntryID:
        """Returns the last entry at or before `index` whose term is at most `term`.

        Everything above it cannot be in a log that has `term` at `index`, so one answer skips a
        whole term (section 5.3, last paragraphs). The term is 0 where it is not known.
        """
        while index > 0:
            try:
                own = self.term(index)
            except (CompactedError, UnavailableError):
                return 0, index
            if own <= term:
                return own, index
            index -= 1
        return 0, 0

    def holds_conf_change(self, low: int, high: int) -> bool:
        """Tells whether a configuration change lies in [low, high)."""
        offset = self.unstable.offset
        if low < offset and self.storage.holds_conf_change(low, min(high, offset)):
            return True
        waiting = self.unstable.entries[max(0, low - offset) : max(0, high - offset)]
        return any(entry.type is EntryType.CONF_CHANGE for entry in waiting)

    # Appending.

    def append(self, entries: list[Entry]) -> None:
        """Appends a leader's own entries (Leader Append-Only)."""
        assert entries[0].index == self.last_index + 1, "a leader never replaces its own entries"
        self.unstable.append(entries)

    def maybe_append(self, prev: EntryID, entries: tuple[Entry, ...], commit: int) -> int | None:
        """Takes a leader's entries behind `prev`; returns the last index that they cover.

        Returns None if `prev` is not here. Truncates only at the first real conflict, so that a
        delayed append cannot cut off newer entries (section 5.3, step 3). `entries` have been
        checked to be contiguous.
        """
        prev_term, prev_index = prev
        if not self.matches(prev_index, prev_term):
            return None
        covered = prev_index + len(entries)
        if entries:
            fresh = self._first_new(entries)
            if fresh < len(entries):
                first = entries[fresh].index
                if first <= self.committed:
                    raise CommittedConflictError(
                        f"entry {first} of term {entries[fresh].term} would replace a committed"
                        f" one (commit {self.committed})"
                    )
                self.unstable.append(entries[fresh:])
        # Only what this message covers is known to equal the leader's log.
        self.commit_to(min(commit, covered))
        return covered

    def _first_new(self, entries: tuple[Entry, ...]) -> int:
        """Returns the position of the first entry that is not here already."""
        last = self.last_index
        if entries[0].index > last:
            return 0
        for position, entry in enumerate(entries):
            if entry.index > last or not self.matches(entry.index, entry.term):
                return position
        return len(entries)

    def restore(self, snapshot: Snapshot) -> None:
        """Replaces the whole log by a base that lies above the commit index (section 7)."""
        assert snapshot.index > self.committed, "a base must not take back what is committed"
        self.committed = snapshot.index
        self.unstable.restore(snapshot)
        assert self.last_index == snapshot.index, "a base is the whole log"

    # Commit and apply.

    def commit_to(self, index: int) -> bool:
        """Raises the commit index (5.3); tells whether it moved. It never falls."""
        if index <= self.committed:
            return False
        if index > self.last_index:
            raise LogLostError(f"{index} is committed, this log ends at {self.last_index}")
        self.committed = index
        return True

    @property
    def has_next_to_apply(self) -> bool:
        """Whether committed, durable entries wait and the apply quota has room."""
        return (
            self.applying < self.committed
            and self.applying < self.unstable.offset - 1
            and self.applying_bytes < self._apply_bytes_max
            and not self.fetching
            and self.unstable.snapshot is None
        )

    def hand_out_committed(self) -> list[Entry]:
        """Returns the next entries to be applied (5.3) and notes them as handed out."""
        high = min(self.committed, self.durable_index, self.applying + self._apply_count_max) + 1
        room = self._apply_bytes_max - self.applying_bytes
        entries = self.slice(self.applying + 1, high, room)
        assert entries[0].index == self.applying + 1, "an entry would be skipped"
        self.applying = entries[-1].index
        assert self.applying <= self.committed, "only what is committed is applied"
        assert self.applying <= self.durable_index, "only what is durable is applied (S13)"
        self.applying_bytes += payload_bytes(entries)
        return entries

    def applied_to(self, index: int, size_bytes: int) -> None:
        """Notes that the host has applied everything up to `index`."""
        if index <= self.applied:
            # A base was installed while these were being applied.
            return
        assert index <= self.applying, "the host applied what it was not given"
        assert size_bytes <= self.applying_bytes, "more was applied than handed out"
        self.applied = index
        self.applying_bytes -= size_bytes

    def durable_to(self, index: int, term: int) -> None:
        """Notes that the disk holds everything up to the entry (term, index) (rule U1)."""
        self.unstable.stable_to(index, term)

    def snapshot_durable(self, index: int) -> None:
        """Notes that the base as of `index` is installed, and with it its state."""
        self.unstable.snapshot_stable(index)
        assert index > self.applied, "a base is only taken if it lies above what is committed"
        self.applied = index
        self.applying = index
        self.applying_bytes = 0
