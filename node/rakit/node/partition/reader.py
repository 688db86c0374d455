"""Reads a partition's records out of its Raft log, which holds them.

An offset becomes an index in one of three ways, cheapest first: a cursor, because somebody read up
to here before (whoever follows the tail never looks anything up); a position row and a scan of what
lies between; the log's start and a scan.

Rules:

- Only applied entries are read, so nobody sees a record that is not committed (P4). The end of what
  can be read is the state's next offset.
- Offsets in the log are dense. Batches that do not join are damage or a bug, never skipped over.
- A read returns whole batches. The first may begin before the asked offset, and unless the caller
  has something else to return, it is returned even where it alone exceeds the byte limit, so that
  every reader makes progress.

Synchronous: an entry is in the memory's tail or a short disk read away, and a read is bounded by
its byte limit. Left out: who may read here and what is said out of range (`partition`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import KeyValue
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.positions import last_row_before, row_at_or_below
from rakit.node.partition.stored import StoredBatch, batches_of
from rakit.raft import Entry

#: Readers at different places that go on without a lookup; one is two integers.
CURSOR_COUNT_MAX: Final = 256
#: A scan for an offset or a time takes the log in pieces of this size.
SCAN_BYTES: Final = 1024 * 1024


class Log(Protocol):
    """The part of a group's stored log that readers use."""

    def first_index(self) -> int:
        """Returns the index of the first entry that is kept."""
        ...

    def entries(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        """Returns entries from `lo` to before `hi`, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read returned."""

    batches: tuple[StoredBatch, ...]
    #: Where to go on.
    next_offset: int
    #: One past the last committed record, when it was read.
    high_watermark: int
    log_start_offset: int

    @property
    def size_bytes(self) -> int:
        """The stored bytes of the batches."""
        return sum(len(batch.content) for batch in self.batches)


class Reader:
    """Reads one replica's log."""

    def __init__(self, disk: KeyValue, log: Log, machine: PartitionMachine) -> None:
        self._disk = disk
        self._log = log
        self._machine = machine
        #: Offset -> index of the entry to go on with; the least recently used first.
        self._cursors: OrderedDict[int, int] = OrderedDict()

    @property
    def cursor_count(self) -> int:
        """How many places are known where somebody may go on."""
        return len(self._cursors)

    def read(
        self,
        offset: int,
        max_bytes: int,
        end_offset: int | None = None,
        *,
        at_least_one: bool = True,
    ) -> Chunk:
        """Returns batches from the one that holds `offset` on; `offset` is within the log.

        With `at_least_one` the first batch is returned even if it alone exceeds `max_bytes`.
        """
        state = self._machine.state
        assert state.start_offset <= offset <= state.next_offset, "the caller checks the range"
        end = state.next_offset if end_offset is None else min(end_offset, state.next_offset)
        batches: list[StoredBatch] = []
        reached, size = offset, 0
        index = self._locate(offset) if offset < end else 0
        full = False
        while reached < end and not full:
            for following, batch in self._batches(index, max_bytes - size):
                index = following
                if batch is None or batch.end_offset <= reached:
                    continue
                self._check_joined(batch, reached, first=not batches)
                if size + len(batch.content) > max_bytes and (batches or not at_least_one):
                    index, full = batch.index, True
                    break
                batches.append(batch)
                size += len(batch.content)
                reached = batch.end_offset
                if reached >= end:
                    break
            full = full or size >= max_bytes
        if batches:
            self._remember(reached, index)
        return Chunk(tuple(batches), reached, state.next_offset, state.start_offset)

    def offset_at(self, time_ms: int) -> int:
        """Returns the first offset appended at or after a time; the end where there is none."""
        state = self._machine.state
        if state.append_time_ms < time_ms or state.next_offset == state.start_offset:
            return state.next_offset
        row = last_row_before(
            self._disk,
            self._machine.group_id,
            state.start_offset,
            state.next_offset,
            time_ms,
        )
        index = self._first_index() if row is None else row.index
        while index <= self._machine.applied_index:
            for following, batch in self._batches(index, SCAN_BYTES):
                index = following
                if batch is not None and batch.append_time_ms >= time_ms:
                    return batch.base_offset
        return state.next_offset

    def _locate(self, offset: int) -> int:
        """Returns an index at or before the entry whose batch holds the offset."""
        index = self._cursors.get(offset)
        if index is not None and index >= self._log.first_index():
            self._cursors.move_to_end(offset)
            return index
        row = row_at_or_below(
            self._disk, self._machine.group_id, self._machine.state.start_offset, offset
        )
        return self._first_index() if row is None else row.index

    def _first_index(self) -> int:
        return max(self._log.first_index(), self._machine.state.start.index + 1)

    def _batches(self, index: int, max_bytes: int) -> Iterator[tuple[int, StoredBatch | None]]:
        """Yields what stands from an entry on, each with the index to go on with behind it.

        None: an entry that holds no batch.
        """
        assert index <= self._machine.applied_index, "only applied entries are read"
        stop = self._machine.applied_index + 1
        for entry in self._log.entries(index, stop, max(max_bytes, 1)):
            batches = batches_of(entry)
            for batch in batches[:-1]:
                yield entry.index, batch
            yield entry.index + 1, batches[-1] if batches else None

    def _remember(self, offset: int, index: int) -> None:
        self._cursors[offset] = index
        self._cursors.move_to_end(offset)
        if len(self._cursors) > CURSOR_COUNT_MAX:
            self._cursors.popitem(last=False)

    def _check_joined(self, batch: StoredBatch, reached: int, *, first: bool) -> None:
        joined = batch.base_offset <= reached if first else batch.base_offset == reached
        if not joined:
            raise StoreCorruptError(
                f"entry {batch.index} of group {self._machine.group_id} begins at offset"
                f" {batch.base_offset}, but offset {reached} was not found before it"
            )
