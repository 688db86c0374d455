"""What a partition remembers of idempotent producers, and what it says to their batches (S24).

A producer numbers its batches with a sequence that strictly increases in each partition and never
resets. Its epoch, which grows with every new instance of the producer, only fences: it says who may
append, never where the numbering stands. (Systems that let a new epoch restart the numbering have
stored batches twice or refused good ones after a restart.)

The verdict over a stamped batch, in this order:

1. Its sequence is remembered with the same content: a duplicate. The answer is the original one,
   also for an instance that has been fenced since: "not applied" would be a lie.
2. Its sequence lies below the oldest one that is remembered: too old, nobody knows (UNKNOWN). This
   too comes before the fence, for the same reason.
3. Its epoch is lower than the producer's: fenced. (UNKNOWN where the producer's batches were
   forgotten: this one may have been among them.)
4. Its sequence is remembered with other content: reused.
5. It lies among the remembered ones but is none of them: it was never stored, and storing it now
   would break the order: out of order.
6. It is new. `previous_sequence`, when given, must be the newest one: a batch before this one is
   missing otherwise. If nothing at all is remembered, a previous sequence above zero speaks of a
   past that the partition has forgotten: unknown producer (UNKNOWN). Where the producer is one that
   may have been forgotten, zero does as well: "nothing before this" cannot be checked, and the
   batch may be a retry of one that was stored. Whoever knows that it is none leaves it out.

`Producer` is a value: a change makes a new one. So a leader's view of its not yet committed entries
and every snapshot share all unchanged producers with the applied state, without copies and without
the danger that one changes under the other.

Left out: which producers are forgotten and when (`retention`), and waiting for a batch that is
stored but not yet committed (`pending`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProducerStamp
from rakit.node.errors import RakitError

#: How many batches of one producer a partition remembers, and so how many may be in flight: one
#: more, and a lost answer could not be told from a batch that was never stored (contract 9).
REMEMBERED_COUNT_MAX: Final = 64
#: How many batches a partition remembers of all producers together. Five hundred busy producers
#: are remembered in full; beyond it the longest idle ones keep only their newest batch, so that a
#: checkpoint stays about 1 MB and is made in a tenth of a second. What is forgotten is answered
#: with SEQUENCE_TOO_OLD, UNKNOWN, which is true.
REMEMBERED_TOTAL_MAX: Final = 32_768
#: Above this many producers the longest idle ones are forgotten (contract 9). At a few hundred
#: bytes each with one batch remembered, up to 3 KB with 64.
PRODUCER_COUNT_MAX: Final = 10_000
#: A producer is forgotten this long after its last append (contract 9): 7 days.
PRODUCER_IDLE_MS_MAX: Final = 7 * 24 * 3_600_000
#: Ids and sequences are exact in every client language (contract 1).
INTEGER_MAX: Final = (1 << 53) - 1
EPOCH_MAX: Final = (1 << 31) - 1

_by_sequence = attrgetter("sequence")


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which batch of which producer: the checked form of `ProducerStamp`."""

    producer_id: int
    epoch: int
    sequence: int
    #: None: not given. 0: the producer has stored nothing here before.
    previous_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """One stored batch of a producer: all that the original answer said."""

    sequence: int
    base_offset: int
    record_count: int
    term: int
    index: int
    append_time_ms: int
    content_crc32c: int

    @property
    def end_offset(self) -> int:
        """One past the offset of its last record."""
        return self.base_offset + self.record_count


@dataclass(frozen=True, slots=True)
class Producer:
    """What is remembered of one producer.

    Invariants:

    - Sequences in `batches` strictly increase; there are at most `REMEMBERED_COUNT_MAX`.
    - `epoch` never falls.
    """

    epoch: int = 0
    #: Of its last batch or fence; decides when it is forgotten.
    last_append_time_ms: int = 0
    #: The newest last.
    batches: tuple[Remembered, ...] = ()

    @property
    def last_sequence(self) -> int:
        """The newest stored sequence; 0 when none is remembered."""
        return self.batches[-1].sequence if self.batches else 0

    def find(self, sequence: int) -> Remembered | None:
        """Returns the remembered batch of this sequence."""
        at = bisect_left(self.batches, sequence, key=_by_sequence)
        if at < len(self.batches) and self.batches[at].sequence == sequence:
            return self.batches[at]
        return None

    def with_batch(self, epoch: int, batch: Remembered) -> Producer:
        """Returns the producer after this batch; the oldest one beyond the limit is forgotten."""
        assert batch.sequence > self.last_sequence, "sequences strictly increase (S24)"
        assert epoch >= self.epoch, "a fenced batch must not be stored"
        kept = self.batches[-(REMEMBERED_COUNT_MAX - 1) :]
        return Producer(epoch, batch.append_time_ms, (*kept, batch))

    def with_newest_only(self) -> Producer:
        """Returns the producer with all but its newest batch forgotten."""
        return Producer(self.epoch, self.last_append_time_ms, self.batches[-1:])

    def with_fence(self, epoch: int, append_time_ms: int) -> Producer:
        """Returns the producer after a fence. A fence below its epoch changes nothing (S21)."""
        if epoch <= self.epoch:
            return self
        return Producer(epoch, append_time_ms, self.batches)


class Ruling(Enum):
    """What a partition says to a stamped batch."""

    APPEND = "append"
    DUPLICATE = "duplicate"
    TOO_OLD = "too old"
    FENCED = "fenced"
    FENCED_AND_FORGOTTEN = "fenced, and its batches forgotten"
    REUSED = "reused"
    OUT_OF_ORDER = "out of order"
    UNKNOWN_PRODUCER = "unknown producer"


#: What a producer is before its first batch.
UNSEEN: Final = Producer()


def judge(
    producer: Producer, stamp: Stamp, content_crc32c: int, *, may_be_forgotten: bool = False
) -> Ruling:
    """Says what becomes of a batch; the module's head gives the order and the reasons.

    `may_be_forgotten`: no batch is remembered, and that proves nothing. Entries are applied without
    it. It only ever refuses more, so what was appended with it or without is appended by both.
    """
    assert not (may_be_forgotten and producer.batches), "what is remembered is not forgotten"
    newest = producer.last_sequence
    if stamp.sequence <= newest:
        known = producer.find(stamp.sequence)
        if known is not None and known.content_crc32c == content_crc32c:
            return Ruling.DUPLICATE
        if stamp.sequence < producer.batches[0].sequence:
            return Ruling.TOO_OLD
        if stamp.epoch < producer.epoch:
            return Ruling.FENCED
        return Ruling.OUT_OF_ORDER if known is None else Ruling.REUSED
    if stamp.epoch < producer.epoch:
        return Ruling.FENCED_AND_FORGOTTEN if may_be_forgotten else Ruling.FENCED
    if stamp.previous_sequence is None:
        return Ruling.APPEND
    if may_be_forgotten:
        return Ruling.UNKNOWN_PRODUCER
    if stamp.previous_sequence == newest:
        return Ruling.APPEND
    return Ruling.OUT_OF_ORDER if producer.batches else Ruling.UNKNOWN_PRODUCER


def checked_stamp(stamp: ProducerStamp) -> Stamp:
    """Returns the stamp as a value; raises INVALID_REQUEST when a number makes no sense."""
    previous = stamp.previous_sequence if stamp.HasField("previous_sequence") else None
    _within("producer_id", stamp.producer_id, 1, INTEGER_MAX)
    _within("epoch", stamp.epoch, 0, EPOCH_MAX)
    _within("sequence", stamp.sequence, 1, INTEGER_MAX)
    if previous is not None:
        _within("previous_sequence", previous, 0, stamp.sequence - 1)
    return Stamp(stamp.producer_id, stamp.epoch, stamp.sequence, previous)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"producer.{name} is {value}; it must be from {least} to {most}.",
            {"limit": str(most), "actual": str(value)},
        )


def refusal(ruling: Ruling, producer: Producer, stamp: Stamp) -> RakitError:
    """Returns the error for a batch that is neither appended nor a duplicate."""
    who = f"producer {stamp.producer_id}"
    newest = str(producer.last_sequence)
    match ruling:
        case Ruling.TOO_OLD:
            return RakitError(
                error_pb2.ERROR_REASON_SEQUENCE_TOO_OLD,
                f"Sequence {stamp.sequence} of {who} is older than the"
                f" {len(producer.batches)} batches that the partition remembers, which begin at"
                f" {producer.batches[0].sequence}: it may have been stored long ago.",
                {"expected_sequence": newest},
            )
        case Ruling.FENCED | Ruling.FENCED_AND_FORGOTTEN:
            error = RakitError(
                error_pb2.ERROR_REASON_PRODUCER_FENCED,
                f"Epoch {stamp.epoch} of {who} was replaced by epoch {producer.epoch}: a newer"
                " instance of this producer has started. This one must stop.",
                {"current_epoch": str(producer.epoch)},
            )
            return error if ruling is Ruling.FENCED else error.as_unknown()
        case Ruling.REUSED:
            return RakitError(
                error_pb2.ERROR_REASON_SEQUENCE_REUSED,
                f"Sequence {stamp.sequence} of {who} was stored before with other content."
                " A new batch needs a new sequence; a retry must repeat the batch unchanged.",
                {"expected_sequence": newest},
            )
        case Ruling.OUT_OF_ORDER:
            return RakitError(
                error_pb2.ERROR_REASON_OUT_OF_ORDER_SEQUENCE,
                f"Sequence {stamp.sequence} of {who}{_after(stamp)} does not follow {newest}, the"
                " last one that the partition stored. This batch was not stored.",
                {"expected_sequence": newest},
            )
        case Ruling.UNKNOWN_PRODUCER if not stamp.previous_sequence:
            return RakitError(
                error_pb2.ERROR_REASON_UNKNOWN_PRODUCER,
                f"The partition remembers no batch of {who} and may have forgotten it, so it cannot"
                f" tell whether sequence {stamp.sequence} was stored. A batch that was never sent"
                " before may be sent without previous_sequence.",
                {"expected_sequence": newest},
            )
        case Ruling.UNKNOWN_PRODUCER:
            return RakitError(
                error_pb2.ERROR_REASON_UNKNOWN_PRODUCER,
                f"The partition remembers no batch of {who}, but the request says that sequence"
                f" {stamp.previous_sequence} came before: the producer was forgotten after a long"
                " pause, or that batch never arrived.",
                {"expected_sequence": newest},
            )
        case Ruling.APPEND | Ruling.DUPLICATE:
            raise AssertionError(f"{ruling} is no refusal")


def _after(stamp: Stamp) -> str:
    if stamp.previous_sequence is None:
        return ""
    return f" (after {stamp.previous_sequence})"
