"""The leader's view of a partition: applied state plus its own pending entries (S14). Pure.

A leader must answer for batches that it has proposed and that are not committed yet: the next one
gets the offset behind them, and a retry of one of them is a duplicate although it is nowhere
applied. `Outlook` is a copy of the state that runs ahead of the log over exactly those entries, by
the same code that will apply them. It holds for one leadership: it begins when the leader has
applied its own term's first entry, when nothing older can be pending, and is thrown away with the
leadership.

What a new batch gets is one of:

- `Draft`: propose this, and report the entry that it became with `proposed`.
- `Known`: it was stored before; the original answer.
- `Wait`: it is a duplicate of a pending batch, and answered when that one commits.
- `Refusal`: it fails, for what the log holds (the offset is taken, a newer epoch is in force). When
  that may be told, `refusals` knows: the entries that it rests on could be lost, and the refusal
  would speak of something that never happened.
- `RakitError`: there is no room for it; the log's content does not matter.

Batches of several callers can become one entry: a `Run`. Each is judged as if it stood alone, which
it may because their producers differ and none of them names an offset: what they have in common is
where they stand, and that is known when the run is complete.

The duplicate check comes before `expected_offset`: a retried conditional append that was stored
the first time must not fail because of its own records.

Times: an entry is stamped `max(last stamp, now)`, pending ones included (S3).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import (
    Append,
    Appends,
    Command,
    Content,
    Maintenance,
    append_pieces,
    encode,
    encode_appends,
)
from rakit.node.partition.producers import (
    PRODUCER_COUNT_MAX,
    REMEMBERED_COUNT_MAX,
    Producer,
    Ruling,
    Stamp,
    judge,
    refusal,
)
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import LogState, Stored

#: New producers are turned away above this; retention forgets the longest idle ones down to
#: `PRODUCER_COUNT_MAX` at its next tick, so only a flood of new ids within seconds meets it.
PRODUCER_COUNT_HARD_MAX: Final = 2 * PRODUCER_COUNT_MAX


@dataclass(frozen=True, slots=True)
class Draft:
    """A command to be proposed."""

    command: Command
    #: Of its payload, in a row.
    pieces: tuple[Content, ...]

    @property
    def batches(self) -> tuple[Append, ...]:
        """What it appends."""
        match self.command:
            case Append():
                return (self.command,)
            case Appends():
                return self.command.batches
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class Known:
    """The batch was stored before; where it went."""

    stored: Stored


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch is a duplicate of a pending one, which goes to `stored` if it is not lost."""

    stored: Stored


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is appended, because of what is applied and pending."""

    error: RakitError
    #: The newest pending entry; 0: there is none.
    index: int


@dataclass(slots=True)
class Run:
    """Batches that become one entry, in this order."""

    batches: list[tuple[Batch, Stamp | None]] = field(default_factory=list)
    producer_ids: set[int] = field(default_factory=set)

    def add(self, batch: Batch, stamp: Stamp | None) -> None:
        """Adds a batch that the outlook has nothing against."""
        self.batches.append((batch, stamp))
        if stamp is not None:
            assert not self.knows(stamp), "the producers of a run differ"
            self.producer_ids.add(stamp.producer_id)

    def knows(self, stamp: Stamp | None) -> bool:
        """Tells whether a batch of this producer is in it."""
        return stamp is not None and stamp.producer_id in self.producer_ids


Verdict: TypeAlias = Draft | Known | Wait | Refusal


class Outlook:
    """The state as it will be once everything that this leader proposed is applied."""

    def __init__(self, applied: LogState) -> None:
        #: Runs ahead of the applied state; equal to it whenever nothing is pending.
        self.ahead = applied.fork()
        #: Index of each pending entry, ascending -> the producers of its batches.
        self._pending: dict[int, tuple[int, ...]] = {}
        self._in_flight: dict[int, int] = {}
        self._last_index = 0

    @property
    def pending_count(self) -> int:
        """How many proposed entries are not settled."""
        return len(self._pending)

    def is_pending(self, index: int) -> bool:
        """Tells whether the entry at `index` was proposed by this leader and is not settled."""
        return index in self._pending

    def append(
        self,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        now_ms: int,
        settings: TopicSettings,
    ) -> Verdict:
        """Says what becomes of a batch; raises `RakitError` when there is no room for it."""
        if stamp is not None and (said := self._objection(batch, stamp, Run())) is not None:
            return said
        if expected_offset is not None and expected_offset != self.ahead.next_offset:
            return self._refuse(_offset_mismatch(expected_offset, self.ahead.next_offset))
        time_ms = self.stamp_time(now_ms)
        due = self._checkpoint_due(len(batch.content), time_ms, settings)
        command = _append_of(batch, stamp, self.ahead.next_offset, time_ms, checkpoint=due)
        return Draft(command, append_pieces(command, batch.content))

    def is_news(self, stamp: Stamp | None) -> bool:
        """Tells whether a batch is certainly no retry, and waits for no other one of its producer.

        Only such a batch may be judged later: of any other something may be known already.
        """
        if stamp is None:
            return True
        if self.ahead.may_have_forgotten(stamp.producer_id):
            return False
        newest = self.ahead.producer(stamp.producer_id).last_sequence
        return stamp.sequence > newest and not self.in_flight(stamp.producer_id)

    def objection(self, batch: Batch, stamp: Stamp | None, run: Run) -> Refusal | None:
        """Says why a batch of news is not to be added to a run, whose producers are others.

        None: it may be. Raises `RakitError` when there is no room for it.
        """
        if stamp is None:
            return None
        assert not run.knows(stamp), "a run knows nothing of its own batches"
        said = self._objection(batch, stamp, run)
        assert said is None or isinstance(said, Refusal), "a batch of news is no retry"
        return said

    def join(self, run: Run, now_ms: int, settings: TopicSettings) -> Draft:
        """Returns what a run is to be proposed as."""
        time_ms, offset, size_bytes = self.stamp_time(now_ms), self.ahead.next_offset, 0
        appends: list[Append] = []
        for batch, stamp in run.batches:
            appends.append(_append_of(batch, stamp, offset, time_ms, checkpoint=False))
            offset += batch.record_count
            size_bytes += len(batch.content)
        if self._checkpoint_due(size_bytes, time_ms, settings):
            appends[-1] = replace(appends[-1], checkpoint=True)
        contents = [batch.content for batch, _ in run.batches]
        if len(appends) == 1:
            return Draft(appends[0], append_pieces(appends[0], contents[0]))
        command = Appends(tuple(appends))
        return Draft(command, (encode_appends(command, contents),))

    def maintain(self, command: Maintenance) -> Draft:
        """Returns the draft of a command without content."""
        return Draft(command, (encode(command),))

    def stamp_time(self, now_ms: int) -> int:
        """Returns the append time of an entry that is proposed now (S3)."""
        return max(self.ahead.append_time_ms, now_ms)

    def check(self, draft: Draft) -> None:
        """Asserts where and when it stands, as each replica will: once proposed is too late."""
        assert draft.command.append_time_ms >= self.ahead.append_time_ms, "times never fall (S3)"
        offset = self.ahead.next_offset
        for each in draft.batches:
            assert each.base_offset == offset, "batches stand behind each other (S14)"
            offset += each.record_count

    def proposed(self, draft: Draft, term: int, index: int) -> None:
        """Takes note of the entry that a draft became; drafts are proposed in the order made."""
        assert index > self._last_index, "entries of one leadership have ascending indexes"
        self._last_index = index
        self.ahead.apply(draft.command, term, index, sum(map(len, draft.pieces)))
        stamps = [each.stamp for each in draft.batches if each.stamp is not None]
        producer_ids = tuple(stamp.producer_id for stamp in stamps)
        for producer_id in producer_ids:
            self._in_flight[producer_id] = self._in_flight.get(producer_id, 0) + 1
        self._pending[index] = producer_ids

    def settled(self, index: int) -> None:
        """Takes note that the entry at `index` is applied."""
        for producer_id in self._pending.pop(index):
            left = self._in_flight[producer_id] - 1
            if left:
                self._in_flight[producer_id] = left
            else:
                del self._in_flight[producer_id]

    def in_flight(self, producer_id: int) -> int:
        """Returns how many batches of a producer are pending."""
        return self._in_flight.get(producer_id, 0)

    def _objection(self, batch: Batch, stamp: Stamp, run: Run) -> Known | Wait | Refusal | None:
        producer = self.ahead.producer(stamp.producer_id)
        forgotten = self.ahead.may_have_forgotten(stamp.producer_id)
        ruling = judge(producer, stamp, batch.crc32c, may_be_forgotten=forgotten)
        if ruling is Ruling.DUPLICATE:
            return self._duplicate(producer, stamp)
        if ruling is not Ruling.APPEND:
            return self._refuse(refusal(ruling, producer, stamp))
        self._check_room(stamp, run)
        return None

    def _duplicate(self, producer: Producer, stamp: Stamp) -> Known | Wait:
        known = producer.find(stamp.sequence)
        assert known is not None, "a duplicate is a remembered batch"
        stored = Stored(
            known.base_offset, known.end_offset, known.append_time_ms, known.term, known.index
        )
        return Wait(stored) if known.index in self._pending else Known(stored)

    def _refuse(self, error: RakitError) -> Refusal:
        return Refusal(error, next(reversed(self._pending), 0))

    def _check_room(self, stamp: Stamp, run: Run) -> None:
        if self.in_flight(stamp.producer_id) >= REMEMBERED_COUNT_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_TOO_MANY_IN_FLIGHT,
                f"{REMEMBERED_COUNT_MAX} batches of producer {stamp.producer_id} are in flight on"
                " this partition, which is as many as it remembers. Wait for an answer.",
                {"limit": str(REMEMBERED_COUNT_MAX)},
            )
        table, others = self.ahead.producers, run.producer_ids
        if (
            stamp.producer_id not in table
            and len(table) + len(others) >= PRODUCER_COUNT_HARD_MAX
            and len(table.keys() | others) >= PRODUCER_COUNT_HARD_MAX
        ):
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                f"The partition knows {len(self.ahead.producers)} producers and takes no new one"
                " until idle ones are forgotten.",
                {"limit": str(PRODUCER_COUNT_HARD_MAX), "retry_delay_ms": "1000"},
            )

    def _checkpoint_due(self, size_bytes: int, time_ms: int, settings: TopicSettings) -> bool:
        if self.ahead.segment_bytes + size_bytes >= settings.step_bytes:
            return True
        began_ms = self.ahead.segment_time_ms
        return began_ms > 0 and time_ms - began_ms >= settings.step_ms


def _append_of(
    batch: Batch, stamp: Stamp | None, base_offset: int, time_ms: int, *, checkpoint: bool
) -> Append:
    return Append(
        base_offset=base_offset,
        record_count=batch.record_count,
        append_time_ms=time_ms,
        stamp=stamp,
        content_crc32c=batch.crc32c,
        compressed=batch.compressed,
        checkpoint=checkpoint,
    )


def _offset_mismatch(expected: int, next_offset: int) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_OFFSET_MISMATCH,
        f"The batch was to begin at offset {expected}, but the next record gets {next_offset}."
        " Nothing was appended.",
        {"expected_offset": str(expected), "next_offset": str(next_offset)},
    )
