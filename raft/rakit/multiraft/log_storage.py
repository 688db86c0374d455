"""The stored log of one group: what the Raft core and the readers of a partition read.

The log is a base and the entries after it without a gap. The base is the earliest stored
checkpoint, so a base never lies ahead of the entries that follow it (safety S1); a restart begins
from the latest checkpoint and replays. Entries come from the node-wide tail cache where possible,
else from the disk, where each is checked against its checksum and its neighbours.

Invariants:

- base.index <= every checkpoint's index <= last_index(); first_index() == base.index + 1.
- `_conf_changes` are the indexes of the configuration changes after the latest checkpoint.
- `_terms` lists where terms begin, ascending, from the latest checkpoint known at loading (or the
  base) on; what lies before is looked up on disk.
- The parts of a large checkpoint are on the disk before its own row, which names them by checksum;
  a part that no stored checkpoint names is on its way to one, or is swept at the next start. Groups
  that never had any pay nothing for them.
- Every change of the log appends its operations to the batch of the caller, in the same step: the
  end of a truncated suffix goes in one range delete, and moving the start deletes the entries and
  the older checkpoints together (S4).
- Between a step and the write of its batch the disk lags behind this object. Nobody reads there:
  the core reads its own unstable entries, only durable entries are applied, and a base is read by a
  leader, which nobody becomes before its own base is durable. What need not be synced may lag for a
  tick, while others read: the commit index, and deletions of what this object names no more.

Reading past the log is answered with the core's `CompactedError` and `UnavailableError`; damage
raises `StoreCorruptError`, and the group is quarantined by whoever sees it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.checkpoint import Checkpoint, CheckpointMark, Checkpoints
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.read_ahead import ReadAhead
from rakit.multiraft.records import (
    StoredCheckpoint,
    StoredHardState,
    decode_checkpoint,
    encode_checkpoint,
    encode_hard_state,
)
from rakit.multiraft.stored_entries import decode_entry, encode_entry
from rakit.multiraft.tail_cache import TailCache, nothing
from rakit.raft import (
    ENTRY_OVERHEAD_BYTES,
    CompactedError,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotTemporarilyUnavailableError,
    UnavailableError,
    message_bytes,
)

#: Greater than every index: the end of a range that takes a whole log.
INDEX_END = (1 << 64) - 1
#: An entry of this size fills a block of the store's tables by itself.
_LARGE_BYTES: Final = 16 << 10


def stored_rows(
    disk: KeyValue, group_id: int, lo: int, hi: int, *, by_key: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yields (index, stored value) of the entries from `lo` to before `hi`, upwards.

    Large ones are looked for by key, the first one as well if it is to be: a walk looks at a block
    of every table that holds the group, which then is one of its entries, and a look for a key only
    at that of the table which has it. Only a walk tells that there are no more.

    A walk over the disk ends at a block that cannot be read, also where it is full of another
    group's rows and only lies in the way. Single entries can be read all the same; that of the
    damaged group itself raises `StoreCorruptError` like everything that is damaged (S9). Where the
    same block hides from both sides whether there are more, an entry that no table has is the end:
    a log has no gaps, and one that cannot be read is no missing one.
    """
    end = keys.entry(group_id, hi)
    index = lo
    try:
        while index < hi:
            value = disk.get(keys.entry(group_id, index)) if by_key else None
            if value is not None:
                yield index, value
                index += 1
                by_key = len(value) >= _LARGE_BYTES
                continue
            for key, walked in disk.scan(keys.entry(group_id, index), end):
                index = keys.number_of(key)
                yield index, walked
                index += 1
                by_key = len(walked) >= _LARGE_BYTES
                if by_key or index == hi:
                    break
            else:
                return
    except StoreCorruptError:
        while index < hi and (row := disk.get(keys.entry(group_id, index))) is not None:
            yield index, row
            index += 1
        if index < hi and _goes_on(disk, keys.entry(group_id, index), end):
            raise


def _goes_on(disk: KeyValue, lo: bytes, hi: bytes) -> bool:
    """Tells whether entries can be seen behind one that is missing."""
    try:
        return disk.last_below(lo, hi) is not None
    except StoreUnreadableError:
        raise
    except StoreCorruptError:
        return False


class GroupLog:
    """One group's log; a `LogStorage` of the core whose write side fills batches."""

    __slots__ = (
        "_ahead",
        "_checkpoints",
        "_conf_changes",
        "_conf_state",
        "_disk",
        "_has_parts",
        "_last_index",
        "_tail",
        "_terms",
        "applied_log_bytes",
        "group_id",
        "hard_state",
        "replica_id",
    )

    def __init__(
        self, group_id: int, replica_id: int, disk: KeyValue, cache: TailCache, ahead: ReadAhead
    ) -> None:
        self.group_id = group_id
        self.replica_id = replica_id
        self.hard_state = HardState()
        #: Stored entry bytes up to the applied index, counted like `CheckpointMark.log_bytes`.
        self.applied_log_bytes = 0
        self._disk = disk
        self._tail = cache.tail()
        self._ahead = ahead
        self._conf_state = ConfState()
        self._checkpoints = Checkpoints()
        #: Whether parts of checkpoints may be on the disk.
        self._has_parts = False
        self._conf_changes: list[int] = []
        self._terms: list[tuple[int, int]] = [(0, 0)]
        self._last_index = 0

    # Reading.

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Returns the vote record and the configuration of the latest checkpoint."""
        return self.hard_state, self._conf_state

    def first_index(self) -> int:
        """Returns the index of the first entry that is kept."""
        return self.base.index + 1

    def last_index(self) -> int:
        """Returns the index of the last entry, or of the base if there is none."""
        return self._last_index

    @property
    def base(self) -> CheckpointMark:
        """The earliest checkpoint: where the log begins."""
        return self._checkpoints.base

    @property
    def latest(self) -> CheckpointMark:
        """The latest checkpoint: where a restart would begin."""
        return self._checkpoints.latest

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the base."""
        return self._terms[-1][1]

    @property
    def size_bytes(self) -> int:
        """Stored bytes of the applied entries that are kept; the same on every equal replica."""
        return self.applied_log_bytes - self.base.log_bytes

    def checkpoint_at_or_below(self, index: int) -> int:
        """Returns the index of the latest checkpoint up to `index`; 0 if there is none."""
        return self._checkpoints.at_or_below(index)

    def holds_conf_change(self, lo: int, hi: int) -> bool:
        """Tells whether a configuration change lies in [lo, hi), from the latest checkpoint on."""
        return any(lo <= each < hi for each in self._conf_changes)

    def term(self, i: int) -> int:
        """Returns the term at `i`, from the base to the last entry."""
        if i < self.base.index:
            raise CompactedError(f"{i} lies before {self.base.index}")
        if i > self._last_index:
            raise UnavailableError(f"{i} lies behind {self._last_index}")
        if i == self.base.index:
            return self.base.term
        if i >= self._terms[0][0]:
            return self._terms[bisect_right(self._terms, i, key=lambda start: start[0]) - 1][1]
        return self._stored_entry(i).term

    def entries(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        """Returns entries from `lo` to before `hi`, at least one, cut at `max_bytes`."""
        assert lo < hi, "an empty range was asked for"
        if lo <= self.base.index:
            raise CompactedError(f"{lo} lies before {self.first_index()}")
        if hi > self._last_index + 1:
            raise UnavailableError(f"{hi} lies behind {self._last_index}")
        cached_from = self._tail.first_index or hi
        if lo >= cached_from:
            return self._tail.slice(lo, hi, max_bytes)
        stored, size = self._stored_entries(lo, min(hi, cached_from), max_bytes)
        reached = stored[-1].index + 1
        if reached == cached_from and reached < hi:
            room = max_bytes - size
            cached = self._tail.slice(reached, hi, room)
            # The first one is always returned, also when it does not fit any more.
            if message_bytes(cached) <= room:
                stored += cached
        return stored

    def snapshot(self, to: int) -> Snapshot:
        """Returns the base: the earliest checkpoint, which the entries kept here continue (S1)."""
        if not self._checkpoints:
            raise SnapshotTemporarilyUnavailableError(f"no base yet that {to} could be sent")
        base = self.checkpoint(self.base.index)
        return Snapshot(base.index, base.term, base.conf_state, base.data, base.parts)

    def checkpoint(self, index: int) -> Checkpoint:
        """Reads a stored checkpoint."""
        return self._stored_checkpoint(index).checkpoint

    def state(self, index: int, parts: Sequence[int]) -> bytes:
        """Reads a state that lies in parts."""
        return b"".join([self.part(index, parts, number) for number in range(len(parts))])

    def part(self, index: int, parts: Sequence[int], number: int) -> bytes:
        """Reads a part of the checkpoint as of `index`, by the checksums that it names."""
        data = self._disk.get(keys.base_part(self.group_id, index, number))
        if data is None or crc32c(data) != parts[number]:
            what = "is missing" if data is None else "fails its checksum"
            raise StoreCorruptError(
                f"part {number} of checkpoint {index} of group {self.group_id} {what}"
            )
        return data

    def _stored_checkpoint(self, index: int) -> StoredCheckpoint:
        value = self._disk.get(keys.checkpoint(self.group_id, index))
        if value is None:
            raise StoreCorruptError(f"checkpoint {index} of group {self.group_id} is missing")
        return decode_checkpoint(self.group_id, index, value)

    def _stored_entry(self, index: int) -> Entry:
        value = self._disk.get(keys.entry(self.group_id, index))
        if value is None:
            raise StoreCorruptError(f"entry {index} of group {self.group_id} is missing")
        return decode_entry(self.group_id, index, value)

    def _stored_entries(self, lo: int, hi: int, max_bytes: int) -> tuple[list[Entry], int]:
        found: list[Entry] = []
        size = 0
        for entry in self._durable_entries(lo, hi):
            size += len(entry.data) + ENTRY_OVERHEAD_BYTES
            if size > max_bytes and found:
                self._ahead.keep(self.group_id, self.replica_id, entry)
                return found, max_bytes
            found.append(entry)
            if size >= max_bytes:
                break
        return found, size

    def _durable_entries(self, lo: int, hi: int) -> Iterator[Entry]:
        """Yields the entries from `lo` to before `hi`, none of which may be missing."""
        group_id, replica = self.group_id, self.replica_id
        while lo < hi and (kept := self._ahead.get(group_id, replica, lo)) is not None:
            yield kept
            lo += 1
        for index, value in stored_rows(self._disk, group_id, lo, hi, by_key=True):
            if index != lo:
                break
            yield decode_entry(group_id, index, value)
            lo += 1
        if lo < hi:
            raise StoreCorruptError(f"entry {lo} of group {group_id} is missing")

    # Writing: operations go to the caller's batch, this object changes at once.

    def set_hard_state(self, state: HardState, batch: WriteBatch) -> None:
        """Stores the vote record."""
        assert state.term >= self.hard_state.term, "the term of a group went backwards"
        assert state.commit >= self.hard_state.commit, "the commit index went backwards"
        assert state.commit <= self._last_index, "the commit index lies behind the log"
        self.hard_state = state
        stored = StoredHardState(state, self.replica_id)
        batch.put(keys.hard_state(self.group_id), encode_hard_state(self.group_id, stored))

    def append(self, entries: list[Entry], batch: WriteBatch) -> None:
        """Replaces everything from the first of the entries on by them."""
        first, last = entries[0].index, self._last_index
        assert first > self.base.index, "entries were written before the base of the log"
        assert first <= last + 1, "entries were written beyond a gap"
        if first <= last:
            assert first > self.latest.index, "entries of a checkpoint were truncated"
            self._truncate(first)
            # The range first, the new entries after it: later operations of a batch win.
            batch.delete_range(
                keys.entry(self.group_id, first), keys.entry(self.group_id, last + 1)
            )
        for offset, entry in enumerate(entries):
            assert entry.index == first + offset, "entries to be written have a gap"
            if entry.term != self._terms[-1][1]:
                assert entry.term > self._terms[-1][1], "terms in the log went backwards"
                self._terms.append((entry.index, entry.term))
            if entry.type is EntryType.CONF_CHANGE:
                self._conf_changes.append(entry.index)
            batch.put(keys.entry(self.group_id, entry.index), encode_entry(self.group_id, entry))
        self._last_index = entries[-1].index
        self._tail.append(entries)

    def put_part(self, index: int, number: int, data: bytes, batch: WriteBatch) -> None:
        """Stores a part of a checkpoint as of `index`, which itself follows when all are there."""
        self._has_parts = True
        batch.put(keys.base_part(self.group_id, index, number), data)

    def drop_parts(self, index: int, batch: WriteBatch) -> None:
        """Gives up the parts of a checkpoint that is not stored."""
        if index not in self._checkpoints.indexes:
            self._delete_parts(index, index + 1, batch)

    def sweep_parts(self, batch: WriteBatch) -> None:
        """Deletes the parts that no stored checkpoint names: what a crash has left."""
        self._has_parts = True
        lo = 0
        for index in (*self._checkpoints.indexes, INDEX_END):
            self._delete_parts(lo, index, batch)
            lo = index + 1

    def _delete_parts(self, lo: int, hi: int, batch: WriteBatch) -> None:
        if self._has_parts:
            group_id = self.group_id
            batch.delete_range(keys.base_part(group_id, lo, 0), keys.base_part(group_id, hi, 0))

    def add_checkpoint(
        self, checkpoint: Checkpoint, log_bytes: int, wanted: Collection[int], batch: WriteBatch
    ) -> None:
        """Stores the state as of an applied index, up to which `log_bytes` were stored.

        Of the checkpoints between the base and this one those that are not `wanted` go.
        """
        assert checkpoint.index <= self._last_index, "a checkpoint lies behind the log"
        stored = StoredCheckpoint(checkpoint, log_bytes, self.replica_id)
        for index in self._checkpoints.add(_mark_of(stored), wanted):
            batch.delete(keys.checkpoint(self.group_id, index))
            self._delete_parts(index, index + 1, batch)
        self._conf_changes = [each for each in self._conf_changes if each > checkpoint.index]
        self._put_checkpoint(stored, batch)

    def install(self, checkpoint: Checkpoint, batch: WriteBatch) -> None:
        """Replaces the whole log by a base that a leader sent, or that the replica is born with."""
        for prefix in (keys.ENTRY, keys.CHECKPOINT):
            batch.delete_range(*keys.group_range(prefix, self.group_id))
        # Its own parts are there already.
        self._delete_parts(0, checkpoint.index, batch)
        self._delete_parts(checkpoint.index + 1, INDEX_END, batch)
        self._conf_changes.clear()
        self._forget()
        self._terms = [(checkpoint.index, checkpoint.term)]
        self._last_index = checkpoint.index
        self._conf_state = checkpoint.conf_state
        self.applied_log_bytes = 0
        stored = StoredCheckpoint(checkpoint, 0, self.replica_id)
        self._checkpoints.reset(_mark_of(stored))
        self._put_checkpoint(stored, batch)

    def trim(self, index: int, batch: WriteBatch) -> None:
        """Moves the start of the log to the durable checkpoint `index` (S1, S4)."""
        latest = self.latest
        base = latest if index == latest.index else _mark_of(self._stored_checkpoint(index))
        self._checkpoints.cut(base)
        batch.delete_range(keys.entry(self.group_id, 0), keys.entry(self.group_id, index + 1))
        batch.delete_range(keys.checkpoint(self.group_id, 0), keys.checkpoint(self.group_id, index))
        self._delete_parts(0, index, batch)
        self._tail.drop_through(index)
        while len(self._terms) > 1 and self._terms[1][0] <= index:
            del self._terms[0]

    def keep(self, needed_from: Callable[[int], int]) -> None:
        """Asks, when memory is short, from which index on entries are still to be read.

        It is given the first that there is in memory: what has to come from the disk counts for
        nothing.
        """
        tail = self._tail
        tail.needed_from = lambda: needed_from(tail.first_index)

    def close(self) -> None:
        """Gives back what the log holds of the node's memory, and lets go of who spoke for it."""
        self._forget()
        self._tail.needed_from = nothing

    def _forget(self) -> None:
        self._tail.clear()
        self._ahead.forget(self.group_id, 0)

    def _put_checkpoint(self, stored: StoredCheckpoint, batch: WriteBatch) -> None:
        key = keys.checkpoint(self.group_id, stored.checkpoint.index)
        batch.put(key, encode_checkpoint(self.group_id, stored))

    def _truncate(self, index: int) -> None:
        self._tail.truncate(index)
        self._ahead.forget(self.group_id, index)
        while self._conf_changes and self._conf_changes[-1] >= index:
            del self._conf_changes[-1]
        while len(self._terms) > 1 and self._terms[-1][0] >= index:
            del self._terms[-1]
        self._last_index = index - 1

    # Loading: the one way to fill the object from a disk.

    def loaded(
        self, hard_state: HardState, base: StoredCheckpoint | None, latest: StoredCheckpoint | None
    ) -> None:
        """Takes over what was found on disk, up to the latest checkpoint."""
        self.hard_state = hard_state
        if base is not None and latest is not None:
            self._checkpoints.loaded(_mark_of(base), _mark_of(latest))
            self._conf_state = latest.checkpoint.conf_state
            self._terms = [(self.latest.index, self.latest.term)]
            self._last_index = self.latest.index
            self.applied_log_bytes = self.latest.log_bytes

    def loaded_checkpoints(self, wanted: Collection[int]) -> None:
        """Takes over which checkpoints lie between the base and the latest one, unread."""
        if self._checkpoints:
            self._checkpoints.loaded_between(wanted)

    def loaded_entries(self, entries: list[Entry]) -> None:
        """Takes over the next entries found on disk; raises on what cannot be part of a log."""
        for entry in entries:
            self._loaded_entry(entry)
        self._tail.append(entries)

    def _loaded_entry(self, entry: Entry) -> None:
        if entry.index != self._last_index + 1:
            raise StoreCorruptError(
                f"entry {self._last_index + 1} of group {self.group_id} is missing"
                f" before entry {entry.index}"
            )
        last_term = self._terms[-1][1]
        if entry.term < last_term:
            raise StoreCorruptError(
                f"entry {entry.index} of group {self.group_id} has term {entry.term},"
                f" the one before it {last_term}"
            )
        if entry.term != last_term:
            self._terms.append((entry.index, entry.term))
        if entry.type is EntryType.CONF_CHANGE:
            self._conf_changes.append(entry.index)
        self._last_index = entry.index


def _mark_of(stored: StoredCheckpoint) -> CheckpointMark:
    """Returns what is kept in memory of a checkpoint."""
    checkpoint = stored.checkpoint
    return CheckpointMark(checkpoint.index, checkpoint.term, stored.log_bytes)
