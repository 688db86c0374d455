"""The replicated state of a partition, and what each command does to it. Pure.

It is small: where the next record goes, where the log begins, the producer table and the marks at
which the log may be cut. The records themselves are in the Raft log, which is the partition's log.

Two users drive the same code. `machine` applies committed entries; the leader keeps a `fork` that
runs ahead over its own pending entries (S14). So what the leader promised and what is applied
cannot drift apart: they are one function of the same commands.

Invariants:

- `start.next_offset <= next_offset`; marks ascend in index, offset, time and bytes, and lie above
  `start`.
- `append_time_ms` never falls (S3).
- Everything is a function of the commands: no clock, no setting. The order of the producer table,
  the longest idle first, is part of the state and of its bytes.
- At most `REMEMBERED_TOTAL_MAX` batches of all producers are remembered.

A mark is added by every entry that takes a checkpoint, and the log is cut at marks only (S1).
There are at most `MARK_COUNT_MAX` of them; beyond it every second one is dropped, which makes old
marks coarse before it makes new ones coarse. A checkpoint whose mark was dropped goes from the disk
with the next one.

Left out: what to trim and whom to forget (`retention`), the encoding (`commands`, `snapshots`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from rakit.node.partition.commands import (
    Append,
    Appends,
    Checkpoint,
    Command,
    Expire,
    Fence,
    Trim,
)
from rakit.node.partition.producers import (
    REMEMBERED_TOTAL_MAX,
    UNSEEN,
    Producer,
    Remembered,
    Ruling,
    judge,
)

#: At 64 MiB of log between two marks this covers 64 GiB before the oldest ones become coarser.
MARK_COUNT_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """A point where the log may be cut: just after the entry at `index`."""

    index: int = 0
    next_offset: int = 0
    append_time_ms: int = 0
    #: Of the whole log up to here, since the group began.
    appended_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a batch went: the fixed part of the answer to Produce."""

    base_offset: int
    end_offset: int
    append_time_ms: int
    term: int
    index: int


#: What applying an entry comes to: where its batch went, or each of its batches; None: it has none.
Applied: TypeAlias = Stored | tuple[Stored, ...] | None


class LogState:
    """The state as of one entry; the module's head lists its invariants."""

    __slots__ = (
        "append_time_ms",
        "appended_bytes",
        "expired_producer_id_max",
        "marks",
        "next_offset",
        "producers",
        "remembered_count",
        "segment_time_ms",
        "start",
    )

    def __init__(self) -> None:
        #: The offset of the next record.
        self.next_offset = 0
        #: Where the log was last cut; its `next_offset` is the first offset that is kept.
        self.start = Mark()
        #: The highest append time so far.
        self.append_time_ms = 0
        #: Payload bytes of batches and fences since the group began.
        self.appended_bytes = 0
        #: Append time of the first batch or fence after the last mark; 0: there is none.
        self.segment_time_ms = 0
        self.marks: list[Mark] = []
        #: The longest idle first, so that those to forget are found without a search.
        self.producers: dict[int, Producer] = {}
        #: Batches remembered of all of them.
        self.remembered_count = 0
        #: Of producer ids up to this one, "not in the table" does not prove "never seen".
        self.expired_producer_id_max = 0

    def fork(self) -> LogState:
        """Returns a copy that can run ahead; unchanged producers are shared."""
        twin = LogState()
        twin.next_offset = self.next_offset
        twin.start = self.start
        twin.append_time_ms = self.append_time_ms
        twin.appended_bytes = self.appended_bytes
        twin.segment_time_ms = self.segment_time_ms
        twin.marks = list(self.marks)
        twin.producers = dict(self.producers)
        twin.remembered_count = self.remembered_count
        twin.expired_producer_id_max = self.expired_producer_id_max
        return twin

    @property
    def start_offset(self) -> int:
        """The first offset that is kept."""
        return self.start.next_offset

    @property
    def log_bytes(self) -> int:
        """Payload bytes from the log's start to its end."""
        return self.appended_bytes - self.start.appended_bytes

    @property
    def segment_bytes(self) -> int:
        """Payload bytes after the last mark."""
        last = self.marks[-1] if self.marks else self.start
        return self.appended_bytes - last.appended_bytes

    def producer(self, producer_id: int) -> Producer:
        """Returns what is remembered of a producer; the blank one when nothing is."""
        return self.producers.get(producer_id, UNSEEN)

    def may_have_forgotten(self, producer_id: int) -> bool:
        """Tells whether the producer may have batches here that are not remembered at all."""
        if producer_id > self.expired_producer_id_max:
            return False
        return not self.producer(producer_id).batches

    def apply(self, command: Command, term: int, index: int, size_bytes: int) -> Applied:
        """Applies the command of the entry (term, index), whose payload has `size_bytes`.

        Returns where the batch went, for an append, or each of them, for several.
        """
        assert command.append_time_ms >= self.append_time_ms, (
            f"entry {index} is stamped before the one that precedes it (S3)"
        )
        self.append_time_ms = command.append_time_ms
        match command:
            case Append():
                stored = self._append(command, term, index)
                self._appended(command, index, size_bytes)
                return stored
            case Appends():
                places = tuple(self._append(each, term, index) for each in command.batches)
                self._appended(command, index, size_bytes)
                return places
            case Fence():
                self._fence(command)
                self._grow(size_bytes, command.append_time_ms)
            case Expire():
                self._expire(command)
            case Trim():
                self._trim(command)
            case Checkpoint():
                self._mark(index)
        return None

    def _append(self, append: Append, term: int, index: int) -> Stored:
        assert append.base_offset == self.next_offset, (
            f"entry {index} appends at {append.base_offset}, but the partition stands at"
            f" {self.next_offset}: the leader validated against another state (S14)"
        )
        assert append.record_count > 0, f"entry {index} appends no record"
        stored = Stored(
            append.base_offset,
            append.base_offset + append.record_count,
            append.append_time_ms,
            term,
            index,
        )
        if append.stamp is not None:
            self._remember(append, stored)
        self.next_offset = stored.end_offset
        return stored

    def _appended(self, command: Append | Appends, index: int, size_bytes: int) -> None:
        """Takes note of a whole entry whose batches were appended."""
        self._grow(size_bytes, command.append_time_ms)
        if command.checkpoint:
            self._mark(index)

    def _remember(self, append: Append, stored: Stored) -> None:
        stamp = append.stamp
        assert stamp is not None, "only a stamped batch is remembered"
        producer = self.producer(stamp.producer_id)
        ruling = judge(producer, stamp, append.content_crc32c)
        assert ruling is Ruling.APPEND, (
            f"entry {stored.index} was accepted by the leader, but is '{ruling.value}' now (S14)"
        )
        batch = Remembered(
            sequence=stamp.sequence,
            base_offset=stored.base_offset,
            record_count=append.record_count,
            term=stored.term,
            index=stored.index,
            append_time_ms=stored.append_time_ms,
            content_crc32c=append.content_crc32c,
        )
        self._put(stamp.producer_id, producer.with_batch(stamp.epoch, batch))

    def _fence(self, fence: Fence) -> None:
        producer = self.producer(fence.producer_id)
        fenced = producer.with_fence(fence.epoch, fence.append_time_ms)
        if fenced is not producer:
            self._put(fence.producer_id, fenced)

    def _put(self, producer_id: int, producer: Producer) -> None:
        """Makes the producer the least idle one."""
        before = self.producers.pop(producer_id, UNSEEN)
        self.producers[producer_id] = producer
        self.remembered_count += len(producer.batches) - len(before.batches)
        if self.remembered_count > REMEMBERED_TOTAL_MAX:
            self._shorten()

    def _shorten(self) -> None:
        """Leaves the longest idle producers their newest batch, an eighth of all at a time."""
        for producer_id, producer in self.producers.items():
            if self.remembered_count <= REMEMBERED_TOTAL_MAX * 7 // 8:
                break
            if len(producer.batches) > 1:
                self.producers[producer_id] = producer.with_newest_only()
                self.remembered_count -= len(producer.batches) - 1

    def _expire(self, expire: Expire) -> None:
        for producer_id in expire.producer_ids:
            producer = self.producers.pop(producer_id, None)
            if producer is not None:
                self.remembered_count -= len(producer.batches)
                self.expired_producer_id_max = max(self.expired_producer_id_max, producer_id)

    def _trim(self, trim: Trim) -> None:
        # A mark may have gone since the leader chose it: cut already, or dropped as one too many.
        # Every replica sees the same marks here, so all of them ignore the command together.
        kept = [mark for mark in self.marks if mark.index >= trim.checkpoint_index]
        if not kept or kept[0].index != trim.checkpoint_index:
            return
        assert kept[0].next_offset == trim.start_offset, (
            f"the log is cut at {trim.start_offset}, which is not where the checkpoint at"
            f" {trim.checkpoint_index} stands"
        )
        self.start = kept[0]
        self.marks = kept[1:]

    def _grow(self, size_bytes: int, append_time_ms: int) -> None:
        self.appended_bytes += size_bytes
        if self.segment_time_ms == 0:
            # A leader's clock at the very beginning of 1970 must not look like "no entry".
            self.segment_time_ms = max(1, append_time_ms)

    def _mark(self, index: int) -> None:
        mark = Mark(index, self.next_offset, self.append_time_ms, self.appended_bytes)
        self.marks.append(mark)
        self.segment_time_ms = 0
        if len(self.marks) > MARK_COUNT_MAX:
            assert len(self.marks) % 2, "an odd number, so that the newest one stays"
            self.marks = self.marks[::2]
