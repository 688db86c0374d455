"""The order of one partition: pacing, numbering, and what each answer means (S24)."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import groupby

import pytest

from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.client.errors import InvalidRequestError, RakitError, from_status, make_error
from rakit.client.producing.batch import Batch
from rakit.client.producing.intake import RECORD_OVERHEAD_BYTES
from rakit.client.producing.lane import GATHER_BYTES, NEVER, Lane, LaneLimits, Verdict
from rakit.client.producing.producer import UNKEYED_RUN_BYTES_MIN, _TopicLanes

from .fake_cluster import FakePartition, RefusalError

LIMITS = LaneLimits(
    batch_bytes_max=1 << 20,
    batch_count_max=100,
    in_flight_batches_max=4,
    linger_s=0,
    is_idempotent=True,
    codec=None,
)
UNAVAILABLE = make_error("NO_LEADER", "none")
BROKEN = make_error("UNREACHABLE", "gone")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_lane(limits: LaneLimits = LIMITS) -> Lane:
    return Lane("t", 0, limits, Clock(), lambda batch, error: batch.finish(error))


def put(lane: Lane, value: bytes = b"v", size_bytes: int = 10) -> Batch:
    return lane.append(value, None, size_bytes).batch


def stamp(batch: Batch) -> tuple[int, int]:
    producer = batch.request.producer
    return producer.sequence, producer.previous_sequence


def send(lane: Lane) -> Batch:
    batch = lane.next_batch()
    assert batch is not None
    return batch


def test_little_goes_one_at_a_time_and_the_rest_goes_together() -> None:
    lane = make_lane()
    put(lane)
    first = send(lane)
    put(lane)
    put(lane)
    assert lane.next_batch() is None
    lane.acknowledged(first)
    assert send(lane).record_count == 2


def test_much_goes_several_at_a_time_in_growing_batches_up_to_the_limit() -> None:
    lane = make_lane()
    sizes: list[int] = []
    for _ in range(40):
        put(lane, size_bytes=GATHER_BYTES)
        while (batch := lane.next_batch()) is not None:
            sizes.append(batch.size_bytes // GATHER_BYTES)
    assert sizes == [1, 1, 2, 4]
    assert len(sizes) == LIMITS.in_flight_batches_max
    assert lane.trigger_bytes == NEVER


def test_a_full_batch_is_closed_by_bytes_and_by_count() -> None:
    lane = make_lane()
    first = put(lane, size_bytes=1 << 19)
    assert put(lane, size_bytes=(1 << 19) + 1) is not first
    lane = make_lane()
    batches = {id(put(lane)) for _ in range(101)}
    assert len(batches) == 2


def quiet_bytes(lane: Lane) -> int:
    """As `send()` knows it after a record that had to be looked at."""
    put(lane, size_bytes=10)
    lane.calm()
    return lane.quiet_bytes


def test_a_batch_is_quiet_until_it_is_full_or_worth_sending() -> None:
    lane = make_lane(replace(LIMITS, batch_count_max=100_000, batch_bytes_max=1 << 19))
    assert quiet_bytes(lane) == 0, "nothing is in flight"
    first = send(lane)
    assert quiet_bytes(lane) == GATHER_BYTES
    lane.is_held = True
    assert lane.next_batch() is None
    assert lane.quiet_bytes == 0, "to be asked anew"
    assert quiet_bytes(lane) == 1 << 19, "held, so only its size counts"
    lane.is_held = False
    assert lane.next_batch() is None
    assert lane.quiet_bytes == 0
    assert quiet_bytes(lane) == GATHER_BYTES
    lane.acknowledged(first)
    lane.settle()
    assert lane.quiet_bytes == 0
    assert quiet_bytes(lane) == 0, "it may go now"


def test_a_batch_is_quiet_for_no_more_records_than_it_has_room_for() -> None:
    lane = make_lane()
    put(lane)
    send(lane)
    assert quiet_bytes(lane) == 10 + 99 * RECORD_OVERHEAD_BYTES
    for _ in range(97):
        put(lane)
    assert quiet_bytes(lane) == 990 + RECORD_OVERHEAD_BYTES


def test_records_without_a_key_stay_in_each_partition_for_a_run() -> None:
    lanes = [make_lane() for _ in range(3)]
    turns = _TopicLanes(lanes)
    gone_to: list[int] = []
    for _ in range(400):
        lane = turns.for_run(1 << 10)
        gone_to.append(lanes.index(lane))
        put(lane, size_bytes=1 << 10)
        # Every batch leaves at once, so that the next partition may have its turn.
        lane.acknowledged(send(lane))
        lane.settle()
    runs = [(at, len(list(run))) for at, run in groupby(gone_to)]
    assert [at for at, _ in runs] == [0, 1, 2, 0, 1, 2, 0]
    assert {length << 10 for _, length in runs[:-1]} == {UNKEYED_RUN_BYTES_MIN}


def test_lingering_waits_for_company_only_while_little_waits() -> None:
    lane = make_lane(replace(LIMITS, linger_s=5))
    batch = put(lane)
    assert lane.next_batch() is None
    batch.is_due = True
    assert lane.next_batch() is batch
    lane = make_lane(replace(LIMITS, linger_s=5))
    put(lane, size_bytes=GATHER_BYTES)
    assert lane.next_batch() is not None


def test_s24_every_send_names_the_sequence_before_it() -> None:
    lane = make_lane()
    lane.start_after(41)
    stamps: list[tuple[int, int]] = []
    for _ in range(3):
        put(lane, size_bytes=LIMITS.batch_bytes_max)
        stamps.append(stamp(send(lane)))
    assert stamps == [(42, 41), (43, 42), (44, 43)]


def test_what_came_back_goes_first_in_its_old_order() -> None:
    lane = make_lane()
    for _ in range(3):
        put(lane, size_bytes=LIMITS.batch_bytes_max)
        send(lane)
    flying = list(lane.in_flight)
    put(lane)
    assert lane.refused(flying[0], UNAVAILABLE) is Verdict.AGAIN_LATER
    assert not lane.settle()
    assert lane.next_batch() is None
    earlier = make_error("EARLIER_REQUEST_FAILED", "text")
    assert lane.refused(flying[1], earlier) is Verdict.AGAIN
    assert lane.refused(flying[2], earlier) is Verdict.AGAIN
    assert lane.settle()
    assert [send(lane) for _ in range(3)] == flying
    assert [stamp(batch) for batch in flying] == [(1, 0), (2, 1), (3, 2)]


def test_what_is_sealed_and_has_not_ended_is_known_wherever_it_is() -> None:
    lane = make_lane()
    assert lane.sealed == []
    for _ in range(2):
        put(lane, size_bytes=LIMITS.batch_bytes_max)
        send(lane)
    first, second = lane.in_flight
    assert lane.sealed == [first, second]
    # The first one is back and waits to be sent again; the second is still on its way.
    lane.refused(first, UNAVAILABLE)
    assert lane.sealed == [first, second]
    lane.refused(second, make_error("EARLIER_REQUEST_FAILED", "text"))
    assert lane.sealed == [first, second]
    lane.settle()
    third = put(lane)
    assert lane.sealed == [first, second]
    lane.seal_open()
    assert lane.sealed == [first, second, third]
    assert send(lane) is first
    lane.acknowledged(first)
    assert lane.sealed == [second, third]


def test_s24_a_number_is_never_used_for_two_contents() -> None:
    lane = make_lane()
    put(lane)
    bad = send(lane)
    assert lane.refused(bad, make_error("BATCH_TOO_LARGE", "text")) is Verdict.FAILED
    assert lane.settle()
    put(lane)
    assert stamp(send(lane)) == (2, 0)


def test_a_batch_that_cannot_be_built_fails_alone() -> None:
    lane = make_lane()
    # What `send()` refuses, so this stands for a check that was forgotten.
    bad = put(lane, "text")  # type: ignore[arg-type]
    assert lane.next_batch() is None
    assert isinstance(bad.outcome, InvalidRequestError)
    assert not bad.outcome.maybe_applied
    assert "t/0 cannot be built: expected bytes, str found" in str(bad.outcome)
    assert bad.record_count == 1
    put(lane)
    assert stamp(send(lane)) == (1, 0)


def test_s24_a_given_up_batch_that_was_stored_after_all_is_believed() -> None:
    lane = make_lane()
    put(lane)
    send(lane)
    assert lane.disconnected(BROKEN) == []
    assert lane.settle()
    lane._clock_s.now_s = 100.0  # type: ignore[attr-defined]
    (expired,) = lane.expire(50)
    assert expired.doubt
    put(lane)
    second = send(lane)
    assert stamp(second) == (2, 0)
    told = make_error("OUT_OF_ORDER_SEQUENCE", "text", {"expected_sequence": "1"})
    assert lane.refused(second, told) is Verdict.AGAIN
    assert lane.settle()
    assert stamp(send(lane)) == (2, 1)


def test_a_sequence_that_nobody_sent_is_an_error() -> None:
    lane = make_lane()
    put(lane)
    batch = send(lane)
    told = make_error("OUT_OF_ORDER_SEQUENCE", "text", {"expected_sequence": "7"})
    assert lane.refused(batch, told) is Verdict.FAILED


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_forgotten_producer_begins_anew_only_without_doubt(in_doubt: bool) -> None:
    lane = make_lane()
    lane.start_after(9)
    put(lane)
    batch = send(lane)
    if in_doubt:
        lane.disconnected(BROKEN)
        lane.settle()
        send(lane)
    verdict = lane.refused(batch, make_error("UNKNOWN_PRODUCER", "text"))
    assert verdict is (Verdict.FAILED if in_doubt else Verdict.AGAIN)
    if not in_doubt:
        lane.settle()
        assert send(lane) is batch
        assert not batch.doubt
        assert not batch.request.producer.HasField("previous_sequence"), "not even a 0"
        lane.disconnected(BROKEN)
        lane.settle()
        again = send(lane)
        assert stamp(again) == (10, 0), "now it may be stored, and the partition must not guess"
        assert again.request.producer.HasField("previous_sequence")
        lane.acknowledged(again)
        put(lane)
        assert stamp(send(lane)) == (11, 10)


def test_a_forgotten_producer_goes_on_behind_a_batch_that_nobody_knows_of() -> None:
    lane = make_lane()
    put(lane)
    lost = send(lane)
    lane.disconnected(BROKEN)
    lane.settle()
    send(lane)
    unknown = make_error("UNKNOWN_PRODUCER", "text", maybe_applied=True)
    assert lane.refused(lost, unknown) is Verdict.FAILED
    lane.settle()
    put(lane)
    assert lane.refused(send(lane), unknown) is Verdict.AGAIN
    lane.settle()
    batch = send(lane)
    assert batch.sequence == 2
    assert not batch.request.producer.HasField("previous_sequence")


def give_up_one(lane: Lane) -> None:
    """Leaves a batch behind whose fate is not known."""
    put(lane)
    send(lane)
    lane.disconnected(BROKEN)
    lane.settle()
    lane._clock_s.now_s += 100.0  # type: ignore[attr-defined]
    (batch,) = lane.expire(50)
    assert batch.doubt


def test_the_doubt_of_one_batch_does_not_keep_a_forgotten_producer_from_beginning_anew() -> None:
    lane = make_lane()
    lane.start_after(9)
    give_up_one(lane)
    # One in doubt itself, which nobody can settle any more, fails; the next one goes on.
    put(lane)
    doubtful = send(lane)
    lane.disconnected(BROKEN)
    lane.settle()
    assert send(lane) is doubtful
    forgotten = make_error("UNKNOWN_PRODUCER", "text")
    assert lane.refused(doubtful, forgotten) is Verdict.FAILED
    lane.settle()
    put(lane)
    fresh = send(lane)
    assert lane.refused(fresh, forgotten) is Verdict.AGAIN
    lane.settle()
    assert stamp(send(lane)) == (12, 0)


def test_a_given_up_number_is_not_believed_once_a_later_batch_is_stored() -> None:
    lane = make_lane()
    give_up_one(lane)
    put(lane)
    lane.acknowledged(send(lane))
    put(lane)
    third = send(lane)
    told = make_error("OUT_OF_ORDER_SEQUENCE", "text", {"expected_sequence": "1"})
    assert lane.refused(third, told) is Verdict.FAILED


def test_without_numbers_what_is_in_doubt_is_not_sent_again() -> None:
    lane = make_lane(replace(LIMITS, is_idempotent=False))
    put(lane)
    batch = send(lane)
    assert lane.refused(batch, UNAVAILABLE) is Verdict.AGAIN_LATER
    assert lane.settle()
    send(lane)
    assert lane.disconnected(BROKEN) == [batch]
    assert not batch.request.HasField("producer")


@dataclass
class World:
    """A partition behind an unreliable network, and a lane that talks to it."""

    rng: random.Random
    lane: Lane = field(default_factory=make_lane)
    partition: FakePartition = field(default_factory=lambda: FakePartition(1))
    # On their way; delayed ones are of broken streams and may still arrive.
    flying: deque[tuple[Batch, ProduceRequest]] = field(default_factory=deque)
    delayed: list[ProduceRequest] = field(default_factory=list)
    is_broken: bool = False
    put_count: int = 0
    quiet_count: int = 0
    is_looked_after: bool = False
    acknowledged: list[int] = field(default_factory=list)
    refused_for_good: list[int] = field(default_factory=list)
    late_reasons: set[str] = field(default_factory=set)
    values_of: dict[int, list[bytes]] = field(default_factory=dict)

    def step(self) -> None:
        usual = [self.put, self.pump, self.answer]
        rare = [self.cut, self.late, self.age, self.forget]
        work = self.rng.choice([*usual, *usual, self.answer, *rare])
        # Whoever sends does so after each answer and each broken stream.
        self.is_looked_after = work == self.pump or (self.is_looked_after and work == self.put)
        work()
        self.check_quiet()

    def check_quiet(self) -> None:
        """Up to its quiet size a batch has room, and there is nothing to be done about the lane."""
        lane, batch = self.lane, self.lane.open
        if batch is not None and self.is_looked_after and lane.quiet_bytes > batch.size_bytes:
            self.quiet_count += 1
            assert lane.quiet_bytes <= min(lane._trigger(), lane.limits.batch_bytes_max)
            more_count = (lane.quiet_bytes - batch.size_bytes) // RECORD_OVERHEAD_BYTES
            assert len(batch.values) + more_count <= lane.limits.batch_count_max

    def put(self) -> None:
        value = b"%d" % self.put_count
        self.put_count += 1
        batch = put(self.lane, value, self.rng.choice([10, GATHER_BYTES, 1 << 20]))
        self.lane.calm()
        self.values_of.setdefault(id(batch), []).append(value)

    def pump(self) -> None:
        while (batch := self.lane.next_batch()) is not None:
            request = ProduceRequest()
            request.CopyFrom(batch.request)
            request.columns.ParseFromString(b"".join(batch.columns))
            request.producer.producer_id = 1
            self.values_of[batch.sequence] = list(request.columns.values)
            self.flying.append((batch, request))

    def answer(self) -> None:
        """The oldest request arrives, and its answer may tell less than the truth."""
        if not self.flying:
            return
        batch, request = self.flying.popleft()
        try:
            self._arrive(request)
        except RefusalError as refusal:
            self.is_broken = True
            self._refuse(batch, from_status(refusal.status()))
        else:
            self.lane.acknowledged(batch)
            self.acknowledged.append(batch.sequence)
        self._settle()

    def _arrive(self, request: ProduceRequest) -> None:
        if self.is_broken:
            raise RefusalError("EARLIER_REQUEST_FAILED")
        if self.rng.random() < 0.2:
            raise RefusalError(self.rng.choice(["NO_LEADER", "THROTTLED", "BATCH_TOO_LARGE"]))
        self.partition.append(request)
        if self.rng.random() < 0.2:
            raise RefusalError("OUTCOME_UNKNOWN")

    def _refuse(self, batch: Batch, error: RakitError) -> None:
        if self.lane.refused(batch, error) is Verdict.FAILED and not batch.doubt:
            self.refused_for_good.append(batch.sequence)

    def _settle(self) -> None:
        if self.lane.settle():
            self.is_broken = False

    def cut(self) -> None:
        """The stream breaks: what was on its way may arrive later, or never."""
        if self.rng.random() < 0.3:
            self.delayed.extend(request for _, request in self.flying)
            self.flying.clear()
            assert self.lane.disconnected(BROKEN) == []
            self._settle()

    def late(self) -> None:
        if self.delayed:
            request = self.delayed.pop(self.rng.randrange(len(self.delayed)))
            try:
                self.partition.append(request)
            except RefusalError as refusal:
                # Nobody waits for this answer.
                self.late_reasons.add(refusal.reason)

    def forget(self) -> None:
        """After so long a pause that nothing is under way any more."""
        if self.rng.random() < 0.3 and not self.flying and not self.delayed:
            self.partition.forget(1)

    def age(self) -> None:
        """Time goes by; what waits for too long is given up."""
        clock = self.lane._clock_s
        assert isinstance(clock, Clock)
        clock.now_s += 1
        for batch in self.lane.expire(20):
            if not batch.doubt:
                self.refused_for_good.append(batch.sequence)

    def check(self) -> None:
        assert self.late_reasons <= {"OUT_OF_ORDER_SEQUENCE", "UNKNOWN_PRODUCER"}
        stored = self.partition.values()
        numbers = [int(value) for value in stored]
        assert numbers == sorted(set(numbers)), "stored once each, in the order of sending"
        for sequence in self.acknowledged:
            for value in self.values_of[sequence]:
                assert value in stored, "what was acknowledged is there"
        for sequence in self.refused_for_good:
            for value in self.values_of.get(sequence, []):
                assert value not in stored, "what was called not applied is not there"


def run_world(seed: int) -> World:
    world = World(random.Random(seed))
    for _ in range(200):
        world.step()
    while world.delayed:
        world.late()
    return world


def test_s24_whatever_fails_records_are_stored_once_and_in_order() -> None:
    acknowledged = refused = quiet = 0
    for seed in range(150):
        world = run_world(seed)
        world.check()
        acknowledged += len(world.acknowledged)
        refused += len(world.refused_for_good)
        quiet += world.quiet_count
    # The worlds did get somewhere.
    assert acknowledged > 1_000
    assert refused > 100
    assert quiet > 500


def test_the_check_of_worlds_sees_a_lost_a_doubled_and_a_swapped_record() -> None:
    world = run_world(0)
    batches = world.partition.batches
    assert len(batches) > 2
    planted = (
        [batches[0], *batches],
        [batches[1], batches[0], *batches[2:]],
        batches[: len(batches) // 2],
    )
    for damaged in planted:
        world.partition.batches = damaged
        with pytest.raises(AssertionError):
            world.check()
