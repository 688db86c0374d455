"""The order of one partition: what is sent next, and what an answer means. Pure; it does no I/O.

A lane holds the batches of one producer for one partition: one that is open, a queue of sealed
ones, and those in flight, oldest first. The engine asks `next_batch()` what may go now and reports
what became of it; a lane never sends or waits, and its clock is given to it.

Pacing: while little waits, one batch is in flight and everything that arrives meanwhile goes out
together with the next one; from `GATHER_BYTES` waiting on there is a second one, and each further
one takes twice as much, up to a full batch. A message costs about the same for one record as for a
thousand: this keeps a thousand single records a second cheap, and makes batches large under load.
Whoever appends needs no look at any of this while the open batch stays within `quiet_bytes`.
With lingering a batch of little waits until it is marked as due. The mark is a timer's, which fires
once and as coarsely as the loop rounds; comparing clocks then would find it early, and send never.

Order and numbering (S24):

- A batch gets its sequence when it is sealed and keeps it for ever: a number never stands for two
  contents. Every send names the sequence before it, so the partition refuses what would come out of
  order and absorbs what it has already stored.
- After a refusal nothing new is sent until everything in flight is answered; what came back then
  goes first, in its old order. On the stream the node refuses what follows a failure anyway.
- A batch that was given up while its outcome was unknown may yet turn out to be stored. The
  partition then refuses the next batch and says so; its number is remembered in order to believe
  that, until a later batch is stored.
- A partition that has forgotten the producer, or may have, refuses whatever names a number before.
  A batch that was never under way then goes without; one that was is in doubt for good.
- A batch that cannot be built gets no number and stands in nobody's way: it fails by itself, and
  the lane goes on with the next one.
- Once a later batch is stored the partition refuses an older number for good, so a batch that still
  travels somewhere cannot appear behind its successor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rakit.client.codecs import CodecName
from rakit.client.errors import RakitError, make_error
from rakit.client.producing.batch import Batch, Delivery
from rakit.client.producing.intake import RECORD_OVERHEAD_BYTES

#: Waiting bytes from which on a second batch is in flight.
GATHER_BYTES: Final = 256 << 10
#: Numbers of given-up batches that are remembered; older ones cannot be the partition's last.
GIVEN_UP_COUNT_MAX: Final = 64
#: A size that no batch reaches: nothing that is appended needs attention.
#: It fits into one digit of CPython's integers: larger ones are compared by a slower way.
NEVER: Final = (1 << 30) - 1


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What a lane needs of the producer's settings."""

    batch_bytes_max: int
    batch_count_max: int
    in_flight_batches_max: int
    linger_s: float
    is_idempotent: bool
    codec: CodecName | None


class Verdict(Enum):
    """What a refusal means for the batch."""

    # It is back in the lane; whoever leads may take it at once.
    AGAIN = auto()
    # It is back in the lane; the cluster needs a moment.
    AGAIN_LATER = auto()
    # It has failed for good.
    FAILED = auto()


class Lane:
    """The batches of one producer for one partition."""

    def __init__(
        self,
        topic: str,
        partition: int,
        limits: LaneLimits,
        clock_s: Callable[[], float],
        on_spoiled: Callable[[Batch, RakitError], None],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.limits = limits
        self._batch_bytes_max = limits.batch_bytes_max
        self._batch_count_max = limits.batch_count_max
        # Only tells how old batches are.
        self._clock_s = clock_s
        # Hears of a batch that could not be built.
        self._on_spoiled = on_spoiled
        self.open: Batch | None = None
        self.in_flight: deque[Batch] = deque()
        # An open batch that is larger needs attention: `next_batch()` may have something.
        self.trigger_bytes = 0
        # To this size the open batch, if there is one, takes records without further question: it
        # has room for them and needs no attention. See `calm()`; 0 when that has to be asked anew.
        self.quiet_bytes = 0
        # All that was given to this lane, the open batch aside.
        self._sealed_bytes = 0
        # The engine has a reason to send nothing: a pause, or the first sequence is not known yet.
        self.is_held = False
        # Refusals and broken streams in a row, and the last one of them.
        self.failure_count = 0
        self.trouble: RakitError | None = None
        # The partition's last sequence of this producer, as far as it is known.
        self.last_sequence = 0
        # The partition cannot check even a "0": what is new goes without a number before.
        self._is_forgotten = False
        self._next_sequence = 1
        self._queue: deque[Batch] = deque()
        self._queued_bytes = 0
        self._returned: list[Batch] = []
        self._is_recovering = False
        self._is_ended = False
        self._given_up: deque[int] = deque(maxlen=GIVEN_UP_COUNT_MAX)

    @property
    def waiting_bytes(self) -> int:
        """Sealed or open, and not in flight."""
        return self._queued_bytes + (self.open.size_bytes if self.open is not None else 0)

    @property
    def given_bytes(self) -> int:
        """All that was ever appended, as a distance to measure with."""
        return self._sealed_bytes + (self.open.size_bytes if self.open is not None else 0)

    @property
    def sealed(self) -> list[Batch]:
        """What has not ended, the open batch aside. What waits may end before what is in flight."""
        return [*self._returned, *self.in_flight, *self._queue]

    @property
    def oldest_waiting(self) -> Batch | None:
        """The batch that would be sent next."""
        return self._queue[0] if self._queue else self.open

    def start_after(self, sequence: int) -> None:
        """Continues the numbering of an earlier instance of the same producer."""
        assert self._next_sequence == 1, "nothing has been numbered yet"
        self.last_sequence = sequence
        self._next_sequence = sequence + 1

    def append(self, value: bytes | None, key: bytes | None, size_bytes: int) -> Delivery:
        """Adds a record at the end of a batch and returns its delivery, which names both."""
        batch = self.open
        if (
            batch is None
            or batch.size_bytes + size_bytes > self._batch_bytes_max
            or len(batch.values) >= self._batch_count_max
        ):
            batch = self._begin()
        values = batch.values
        delivery = Delivery()
        delivery.batch, delivery.index = batch, len(values)
        values.append(value)
        batch.keys.append(key)
        batch.size_bytes += size_bytes
        return delivery

    def _begin(self) -> Batch:
        self.seal_open()
        self.open = batch = Batch(self._clock_s(), self.limits.codec)
        self._change_trigger()
        return batch

    def calm(self) -> None:
        """Tells how far the open batch may grow, now that it has all the attention it needs."""
        batch = self.open
        if batch is not None:
            # It has room for so many records, which take at least so much.
            free_count = self._batch_count_max - len(batch.values)
            full_bytes = batch.size_bytes + free_count * RECORD_OVERHEAD_BYTES
            self.quiet_bytes = min(self.trigger_bytes, self._batch_bytes_max, full_bytes)

    def append_batch(self, batch: Batch) -> None:
        """Adds a sealed batch behind everything that was added before."""
        self.seal_open()
        self._enqueue(batch)

    def seal_open(self) -> None:
        """Ends the open batch; the next record begins another one."""
        batch, self.open = self.open, None
        if batch is None:
            return
        try:
            batch.seal()
        except Exception as failure:
            # Each record was checked when it was handed over, so this should not be. The batch is
            # in nobody's hands any more: it must end here, or its senders would wait for ever.
            text = f"a batch for {self.topic}/{self.partition} cannot be built: {failure}"
            self._on_spoiled(batch, make_error("INVALID_REQUEST", text))
        else:
            self._enqueue(batch)

    def _enqueue(self, batch: Batch) -> None:
        batch.place(self._next_sequence, self.topic, self.partition)
        self._next_sequence += 1
        self._queue.append(batch)
        self._queued_bytes += batch.size_bytes
        self._sealed_bytes += batch.size_bytes

    def next_batch(self) -> Batch | None:
        """Returns the batch to be sent now, which counts as in flight from here on."""
        if not self._may_send():
            self._change_trigger()
            return None
        if not self._queue:
            self.seal_open()
        if not self._queue:
            self._change_trigger()
            return None
        batch = self._queue.popleft()
        self._queued_bytes -= batch.size_bytes
        if self.limits.is_idempotent:
            stamp = batch.request.producer
            stamp.sequence = batch.sequence
            if self.in_flight:
                stamp.previous_sequence = self.in_flight[-1].sequence
            elif self._is_forgotten and not batch.doubt:
                stamp.ClearField("previous_sequence")
            else:
                stamp.previous_sequence = self.last_sequence
        batch.attempts += 1
        self.in_flight.append(batch)
        return batch

    def _may_send(self) -> bool:
        if self.is_held or self._is_recovering or (not self._queue and self.open is None):
            return False
        waiting, count = self.waiting_bytes, len(self.in_flight)
        if count >= self.limits.in_flight_batches_max or waiting < self._gather_bytes(count):
            return False
        if self._queue or waiting >= GATHER_BYTES or not self.limits.linger_s:
            return True
        assert self.open is not None, "what waits is sealed or open"
        return self.open.is_due

    def _change_trigger(self) -> None:
        self.trigger_bytes = self._trigger()
        # Whoever appends next looks at it anew.
        self.quiet_bytes = 0

    def _trigger(self) -> int:
        if self._is_ended:
            return 0
        if self.is_held or self._is_recovering:
            return NEVER
        count = len(self.in_flight)
        if count >= self.limits.in_flight_batches_max:
            return NEVER
        if not count and not self.limits.linger_s:
            return 0
        # What lingers is looked at when it is worth sending at once, as what is sealed always is.
        lingers = bool(self.limits.linger_s) and not self._queue
        needed_bytes = max(self._gather_bytes(count), GATHER_BYTES if lingers else 0)
        return needed_bytes - self._queued_bytes

    def _gather_bytes(self, in_flight_count: int) -> int:
        """How much has to wait before another batch joins those in flight."""
        if not in_flight_count:
            return 0
        return min(GATHER_BYTES << (in_flight_count - 1), self._batch_bytes_max)

    def acknowledged(self, batch: Batch) -> None:
        """Takes the good end of the oldest batch in flight."""
        self._take_head(batch)
        self.failure_count = 0
        self._is_forgotten = False
        self.trouble = None
        self._given_up.clear()
        self.last_sequence = max(self.last_sequence, batch.sequence)

    def refused(self, batch: Batch, error: RakitError) -> Verdict:
        """Takes the refusal of the oldest batch in flight. Call `settle()` afterwards."""
        self._take_head(batch)
        self._is_recovering = True
        # Doubt of earlier attempts counts; this answer may add its own.
        was_in_doubt = batch.doubt
        batch.doubt = batch.doubt or error.maybe_applied
        verdict = self._judge(batch, error, was_in_doubt=was_in_doubt)
        if verdict is Verdict.FAILED:
            self.give_up(batch)
        else:
            self._returned.append(batch)
        if error.reason != "EARLIER_REQUEST_FAILED":
            self.failure_count += 1
            self.trouble = error
        return verdict

    def _judge(self, batch: Batch, error: RakitError, *, was_in_doubt: bool) -> Verdict:
        match error.reason:
            case "EARLIER_REQUEST_FAILED":
                return Verdict.AGAIN
            case "OUT_OF_ORDER_SEQUENCE":
                return self._judge_order(batch, error)
            case "UNKNOWN_PRODUCER" if not was_in_doubt:
                # Forgotten after a long silence. This batch was never under way before, and once it
                # is stored nothing older can be, so numbering may begin anew.
                batch.doubt = False
                self.last_sequence = 0
                self._is_forgotten = True
                return Verdict.AGAIN
            case _ if error.retriable and (self.limits.is_idempotent or not batch.doubt):
                return Verdict.AGAIN_LATER
            case _:
                return Verdict.FAILED

    def _judge_order(self, batch: Batch, error: RakitError) -> Verdict:
        stored = error.number("expected_sequence")
        named = batch.request.producer.previous_sequence
        if stored is None or stored >= batch.sequence or stored == named:
            return Verdict.FAILED
        if stored in self._given_up:
            # A batch that was given up has been stored after all.
            self.last_sequence = stored
            return Verdict.AGAIN
        # It was sent behind one that then was refused.
        return Verdict.AGAIN if stored == self.last_sequence else Verdict.FAILED

    def _take_head(self, batch: Batch) -> None:
        assert self.in_flight, "an answer belongs to something in flight"
        assert self.in_flight[0] is batch, "answers come in the order of the requests"
        self.in_flight.popleft()

    def disconnected(self, error: RakitError) -> list[Batch]:
        """Takes back what was in flight when the stream broke; returns what failed by that."""
        self._is_recovering = True
        self.failure_count += 1
        self.trouble = error
        failed: list[Batch] = []
        for batch in self.in_flight:
            batch.doubt = True
            if self.limits.is_idempotent:
                self._returned.append(batch)
            else:
                failed.append(batch)
        self.in_flight.clear()
        return failed

    def give_up(self, batch: Batch) -> None:
        """Remembers a failed batch that may have been stored."""
        if batch.doubt:
            self._given_up.append(batch.sequence)

    def settle(self) -> bool:
        """Puts what came back to the head of the queue; False while something is in flight."""
        if self.in_flight:
            return False
        self._is_recovering = False
        self._queue.extendleft(reversed(self._returned))
        self._queued_bytes += sum(batch.size_bytes for batch in self._returned)
        self._returned.clear()
        self._change_trigger()
        return True

    def expire(self, age_s: float) -> list[Batch]:
        """Removes waiting batches that are older than this, oldest first; they have failed.

        What is in flight is not touched: it comes back, or its link is given up, and is then judged
        here before it is sent again.
        """
        created_before_s = self._clock_s() - age_s
        expired: list[Batch] = []
        if self.open is not None and self.open.created_s < created_before_s:
            self.seal_open()
        while self._queue and self._queue[0].created_s < created_before_s:
            batch = self._queue.popleft()
            self._queued_bytes -= batch.size_bytes
            self.give_up(batch)
            expired.append(batch)
        return expired

    def drain(self) -> list[Batch]:
        """Removes everything that waits, because the producer is at its end."""
        self._is_ended = True
        self.seal_open()
        drained = [*self._returned, *self._queue]
        self._returned.clear()
        self._queue.clear()
        self._queued_bytes = 0
        return drained
