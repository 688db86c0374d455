"""Batches of several callers in one entry: they stand and are judged as if each had its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.multiraft import keys
from rakit.node.errors import RakitError
from rakit.node.partition import pending
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import (
    Append,
    Appends,
    Checkpoint,
    MalformedCommandError,
    append_pieces,
    batches_in,
    decode,
    encode_appends,
    holds_batches,
)
from rakit.node.partition.digest import digest
from rakit.node.partition.pending import Draft, Known, Refusal, Run, Wait
from rakit.node.partition.producers import Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.snapshots import encode_state
from rakit.peer.v1 import partition_command_pb2 as pb
from tests.node.partition.fakes import SETTINGS, SyncLeader, batch, new_machine
from tests.node.partition.test_machine import apply
from tests.node.partition.test_pending import Leader

_stamps = st.builds(
    Stamp,
    st.integers(1, (1 << 63) - 1),
    st.integers(0, (1 << 31) - 1),
    st.integers(1, (1 << 63) - 1),
    st.none() | st.integers(0, (1 << 63) - 1),
)
_appends = st.builds(
    Append,
    st.integers(0, (1 << 63) - 1),
    st.integers(1, (1 << 31) - 1),
    st.integers(0, (1 << 63) - 1),
    st.none() | _stamps,
    st.integers(0, (1 << 32) - 1),
    compressed=st.booleans(),
    checkpoint=st.booleans(),
)


@given(st.lists(st.tuples(_appends, st.binary(max_size=300)), min_size=2, max_size=9))
def test_several_appends_are_what_protobuf_writes_and_reads(
    parts: list[tuple[Append, bytes]],
) -> None:
    appends = Appends(tuple(append for append, _ in parts))
    contents = [content for _, content in parts]
    payload = encode_appends(appends, contents)
    assert decode(payload) == appends
    assert holds_batches(payload)
    whole = pb.PartitionCommand.FromString(payload)
    alone = [pb.PartitionCommand.FromString(b"".join(append_pieces(*part))) for part in parts]
    assert list(whole.appends.batches) == [each.append for each in alone]
    assert batches_in(payload) == [(each.append, each.append.content) for each in alone]


def run_of(*parts: tuple[int, Stamp | None]) -> Run:
    run = Run()
    for count, stamp in parts:
        run.add(batch(count), stamp)
    return run


def propose(leader: Leader, run: Run, topic: TopicSettings = SETTINGS) -> Draft:
    draft = leader.outlook.join(run, 1_000, topic)
    leader.propose(draft)
    return draft


def test_s14_batches_of_a_run_stand_behind_each_other_and_behind_what_is_pending() -> None:
    leader = Leader()
    leader.append(5)
    draft = propose(leader, run_of((2, None), (3, Stamp(7, 0, 1)), (1, Stamp(8, 0, 1))))
    assert [each.base_offset for each in draft.batches] == [5, 7, 10]
    assert {each.append_time_ms for each in draft.batches} == {1_000}
    assert leader.append().base_offset == 11
    leader.commit()
    assert encode_state(leader.machine.state) == encode_state(leader.outlook.ahead)
    assert leader.outlook.pending_count == 0
    assert leader.outlook.in_flight(7) == leader.outlook.in_flight(8) == 0


def test_a_run_of_one_is_an_entry_like_any_other() -> None:
    draft = Leader().outlook.join(run_of((2, Stamp(7, 0, 1))), 1_000, SETTINGS)
    assert isinstance(draft.command, Append)
    assert decode(b"".join(draft.pieces)) == draft.command


def test_s24_each_batch_of_a_run_is_remembered_with_its_place() -> None:
    leader = Leader()
    first, second = Stamp(7, 0, 1, 0), Stamp(8, 0, 4)
    propose(leader, run_of((2, first), (3, second)))
    for stamp, count, place in ((first, 2, (0, 2)), (second, 3, (2, 5))):
        assert not leader.outlook.is_news(stamp)
        pending_one = leader.outlook.append(batch(count), stamp, None, 1_000, SETTINGS)
        assert isinstance(pending_one, Wait)
        assert (pending_one.stored.base_offset, pending_one.stored.end_offset) == place
        assert leader.outlook.in_flight(stamp.producer_id) == 1
    leader.commit()
    for stamp, count, place in ((first, 2, (0, 2)), (second, 3, (2, 5))):
        known = leader.outlook.append(batch(count), stamp, None, 9_000, SETTINGS)
        assert isinstance(known, Known)
        assert (known.stored.base_offset, known.stored.end_offset) == place
        assert known.stored.index == 2


def test_a_run_takes_one_batch_of_a_producer() -> None:
    run = run_of((1, Stamp(7, 0, 1)))
    assert run.knows(Stamp(7, 0, 2))
    assert not run.knows(Stamp(8, 0, 1))
    assert not run.knows(None)
    with pytest.raises(AssertionError, match="the producers of a run differ"):
        run.add(batch(), Stamp(7, 0, 2))
    with pytest.raises(AssertionError, match="knows nothing of its own batches"):
        Leader().outlook.objection(batch(), Stamp(7, 0, 2), run)


def test_new_producers_of_a_run_count_before_it_is_proposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pending, "PRODUCER_COUNT_HARD_MAX", 2)
    leader = Leader()
    run = run_of((1, Stamp(1, 0, 1)), (1, Stamp(2, 0, 1)))
    with pytest.raises(RakitError) as caught:
        leader.outlook.objection(batch(), Stamp(3, 0, 1), run)
    assert caught.value.reason == error_pb2.ERROR_REASON_THROTTLED
    assert leader.outlook.objection(batch(), None, run) is None


def test_s1_a_checkpoint_falls_due_by_the_bytes_of_the_whole_run() -> None:
    topic = TopicSettings(segment_bytes=200)
    leader = Leader()
    small = propose(leader, run_of((5, None), (5, None)), topic)
    assert [each.checkpoint for each in small.batches] == [False, False]
    large = propose(leader, run_of((5, None), (5, None), (5, None)), topic)
    assert [each.checkpoint for each in large.batches] == [False, False, True]
    leader.commit()
    [mark] = leader.machine.state.marks
    assert (mark.index, mark.next_offset) == (3, 25)
    payloads = sum(len(b"".join(each.pieces)) for each in (small, large))
    assert mark.appended_bytes == payloads, "an entry counts once, whole"


def test_s1_a_replica_takes_the_checkpoint_that_a_run_asks_for() -> None:
    topic = TopicSettings(segment_bytes=200)
    leader = SyncLeader()
    run = run_of((20, Stamp(7, 0, 1)), (20, Stamp(8, 0, 1)))
    entry = leader.run(leader.outlook.join(run, leader.now_ms, topic))
    assert list(leader.checkpoints) == [entry.index]
    other = new_machine()
    other.restore(leader.checkpoints[entry.index], entry.index)
    following = leader.append(batch(3), Stamp(7, 0, 2, 1))
    apply(other, following.index, bytes(following.data))
    assert other.snapshot() == leader.machine.snapshot()


def test_s3_a_run_is_not_older_than_what_stands_before_it() -> None:
    leader = Leader()
    leader.append(now_ms=5_000)
    draft = propose(leader, run_of((1, None), (1, None)))
    assert {each.append_time_ms for each in draft.batches} == {5_000}


def test_what_every_replica_would_stop_at_is_not_proposed() -> None:
    leader = Leader()
    early = leader.outlook.maintain(Checkpoint(999))
    misplaced = leader.outlook.join(run_of((1, None), (1, None)), 1_000, SETTINGS)
    leader.append()
    with pytest.raises(AssertionError, match="times never fall"):
        leader.outlook.check(early)
    with pytest.raises(AssertionError, match="stand behind each other"):
        leader.outlook.check(misplaced)


def test_an_entry_that_appends_nothing_is_malformed() -> None:
    nothing = pb.PartitionCommand(appends=pb.AppendBatches()).SerializeToString()
    with pytest.raises(MalformedCommandError, match="append nothing"):
        decode(nothing)


def test_s14_a_run_whose_batches_leave_a_gap_stops_the_replica() -> None:
    leader = Leader()
    apart = tuple(Append(at, 1, 1, None, 0, compressed=False, checkpoint=False) for at in (0, 2))
    with pytest.raises(AssertionError, match="the leader validated against another state"):
        apply(leader.machine, 2, encode_appends(Appends(apart), [b"", b""]))


def test_a_run_gets_the_position_row_of_its_first_batch() -> None:
    leader = SyncLeader()
    leader.run(leader.outlook.join(run_of((2, None), (3, None)), 1_000, SETTINGS))
    [key] = leader.disk.rows
    assert keys.number_of(key) == 0, "it is the first entry behind the log's start"


async def test_a_digest_ends_where_the_last_batch_of_a_run_does() -> None:
    leader = SyncLeader()
    leader.run(leader.outlook.join(run_of((2, None), (3, None)), 1_000, SETTINGS))
    assert (await digest(leader.log, 2, 2)).end_offset == 5


attempts = st.lists(
    st.tuples(
        st.sampled_from(["gather", "gather", "gather", "gather", "leave", "commit"]),
        st.integers(0, 3),  # producer; 0: none
        st.integers(-2, 2),  # sequence, relative to the newest
        st.integers(1, 2),  # records
        st.none() | st.integers(-1, 0),  # previous, relative
    ),
    max_size=60,
)


class Gatherer:
    """Appends in runs, beside a leader that has an entry for each batch."""

    def __init__(self) -> None:
        self.together, self.alone = Leader(), Leader()
        self.run = Run()
        self.newest = dict.fromkeys(range(4), 0)
        self.offsets: list[int] = []
        self.wanted: list[int] = []

    def leave(self) -> None:
        if self.run.batches:
            draft = propose(self.together, self.run)
            self.offsets += [each.base_offset for each in draft.batches]
        self.run = Run()

    def gather(self, data: Batch, stamp: Stamp | None) -> None:
        if self.run.knows(stamp):
            self.leave()
        other = self.alone.outlook.append(data, stamp, None, 1_000, SETTINGS)
        said: Draft | Known | Wait | Refusal | None
        if not self.together.outlook.is_news(stamp):
            self.leave()
            said = self.together.outlook.append(data, stamp, None, 1_000, SETTINGS)
            if isinstance(said, Draft):
                self.together.propose(said)
                self.offsets.append(said.batches[0].base_offset)
        else:
            said = self.together.outlook.objection(data, stamp, self.run)
        if isinstance(said, Known | Wait | Refusal):
            assert type(said) is type(other)
            if isinstance(said, Refusal):
                assert isinstance(other, Refusal)
                assert said.error.reason == other.error.reason
            return
        assert isinstance(other, Draft)
        self.alone.propose(other)
        self.wanted.append(other.batches[0].base_offset)
        if said is None:
            self.run.add(data, stamp)
        if stamp is not None:
            self.newest[stamp.producer_id] = stamp.sequence


@settings(max_examples=80)
@given(attempts)
def test_s14_a_run_judges_and_stands_like_entries_of_their_own(
    steps: list[tuple[str, int, int, int, int | None]],
) -> None:
    gatherer = Gatherer()
    for kind, producer, relative, count, previous in steps:
        if kind == "commit":
            gatherer.leave()
            gatherer.together.commit()
            gatherer.alone.commit()
        elif kind == "leave":
            gatherer.leave()
        else:
            newest = gatherer.newest[producer]
            before = None if previous is None else max(0, newest + previous)
            stamp = Stamp(producer, 0, max(1, newest + relative), before) if producer else None
            gatherer.gather(batch(count), stamp)
    gatherer.leave()
    gatherer.together.commit()
    gatherer.alone.commit()
    assert gatherer.offsets == gatherer.wanted
    state, other = gatherer.together.machine.state, gatherer.alone.machine.state
    assert state.next_offset == other.next_offset
    for producer_id, known in state.producers.items():
        places = [(each.sequence, each.base_offset, each.record_count) for each in known.batches]
        theirs = other.producers[producer_id].batches
        assert places == [(each.sequence, each.base_offset, each.record_count) for each in theirs]
