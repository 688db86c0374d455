"""The replicated state: equal on every replica, wherever each of them started from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft import keys
from rakit.multiraft.kv import Op, WriteBatch
from rakit.node.partition import state as state_module
from rakit.node.partition.commands import (
    Append,
    Checkpoint,
    Expire,
    Fence,
    Maintenance,
    MalformedCommandError,
    Trim,
    append_pieces,
    decode,
    encode,
    holds_batches,
)
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.pending import Known
from rakit.node.partition.producers import REMEMBERED_TOTAL_MAX, Stamp
from rakit.node.partition.snapshots import MalformedStateError, decode_state, encode_state
from rakit.node.partition.state import MARK_COUNT_MAX, LogState, Mark
from rakit.peer.v1 import partition_command_pb2 as pb
from rakit.raft import Entry, EntryType
from tests.node.partition.fakes import (
    GROUP,
    SETTINGS,
    MemoryDisk,
    SyncLeader,
    batch,
    new_machine,
)

APPEND = Append(0, 2, 1_000, Stamp(5, 1, 1, 0), 99, compressed=False, checkpoint=False)


def apply(machine: PartitionMachine, index: int, payload: bytes, term: int = 1) -> WriteBatch:
    writes = WriteBatch()
    machine.apply(Entry(term, index, EntryType.NORMAL, payload), writes)
    return writes


@pytest.mark.parametrize(
    "command",
    [
        APPEND,
        Append(7, 1, 9, None, 0xFFFFFFFF, compressed=True, checkpoint=True),
        Append(7, 1, 9, Stamp(5, 0, 3, None), 0, compressed=True, checkpoint=True),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_an_append_survives_its_encoding(command: Append, size: int) -> None:
    content = b"c" * size
    payload = b"".join(append_pieces(command, content))
    assert decode(payload) == command
    assert holds_batches(payload)
    assert pb.PartitionCommand.FromString(payload).append.content == content


@pytest.mark.parametrize(
    "command", [Trim(5, 6, 7), Fence(1, 2, 3), Expire((4, 5), 6), Checkpoint(7)]
)
def test_other_commands_survive_their_encoding(command: Maintenance) -> None:
    assert decode(encode(command)) == command
    assert not holds_batches(encode(command))


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\xfa\x3e\x01x"])
def test_what_is_no_command_stops_the_replica(payload: bytes) -> None:
    with pytest.raises(MalformedCommandError, match=r"bytes hold (no|a) command"):
        new_machine().apply(Entry(1, 2, EntryType.NORMAL, payload), WriteBatch())


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(MalformedStateError):
        new_machine().restore(b"\xff\xff", 5)


def test_s14_an_append_at_another_offset_stops_the_replica() -> None:
    machine = new_machine()
    wrong = Append(3, 2, 1_000, None, 0, compressed=False, checkpoint=False)
    with pytest.raises(AssertionError, match="the leader validated against another state"):
        apply(machine, 2, b"".join(append_pieces(wrong, b"x")))


def test_s14_a_duplicate_in_the_log_stops_the_replica() -> None:
    machine = new_machine()
    apply(machine, 2, b"".join(append_pieces(APPEND, b"x")))
    again = Append(2, 2, 1_000, Stamp(5, 1, 1, 0), 99, compressed=False, checkpoint=False)
    with pytest.raises(AssertionError, match="accepted by the leader, but is 'duplicate' now"):
        apply(machine, 3, b"".join(append_pieces(again, b"x")))


def test_s3_a_time_that_falls_stops_the_replica() -> None:
    machine = new_machine()
    apply(machine, 2, encode(Checkpoint(1_000)))
    with pytest.raises(AssertionError, match="stamped before the one that precedes it"):
        apply(machine, 3, encode(Checkpoint(999)))


def test_an_entry_applies_once() -> None:
    machine = new_machine()
    apply(machine, 2, encode(Checkpoint(1)))
    with pytest.raises(AssertionError, match="entries apply once, in order"):
        apply(machine, 2, encode(Checkpoint(1)))


def test_s1_a_checkpoint_is_due_at_exactly_the_entry_that_says_so() -> None:
    machine = new_machine()
    apply(machine, 2, b"".join(append_pieces(APPEND, b"x")))
    assert not machine.checkpoint_due()
    apply(machine, 3, encode(Checkpoint(1_000)))
    assert machine.checkpoint_due()
    machine.snapshot()
    assert not machine.checkpoint_due(), "an entry without data after it takes no second one"
    flagged = Append(2, 1, 1_000, None, 0, compressed=False, checkpoint=True)
    apply(machine, 4, b"".join(append_pieces(flagged, b"x")))
    assert machine.checkpoint_due()
    assert [mark.index for mark in machine.state.marks] == [3, 4]


def test_s1_s4_a_trim_moves_the_start_to_a_mark_and_takes_the_rows_below() -> None:
    leader = SyncLeader()
    for _ in range(3):
        leader.append(batch(10))
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    mark = leader.machine.state.marks[-1]
    leader.append(batch(10))
    trim = encode(Trim(mark.next_offset, mark.index, leader.now_ms))
    writes = apply(leader.machine, leader.log.last_index() + 1, trim)
    below = (keys.position(GROUP, 0), keys.position(GROUP, 30))
    assert writes.ops == [(Op.DELETE_RANGE, *below)]
    assert leader.machine.trim_index() == mark.index
    assert (leader.machine.state.start_offset, leader.machine.state.marks) == (30, [])
    state = leader.machine.state
    assert state.log_bytes == state.appended_bytes - mark.appended_bytes > 0


def test_s1_a_trim_to_a_mark_that_is_gone_changes_nothing() -> None:
    leader = SyncLeader()
    leader.append(batch(10))
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    before = leader.machine.state.start
    for index in (0, 99):
        leader.run(leader.outlook.maintain(Trim(10, index, leader.now_ms)))
    assert leader.machine.state.start == before
    mark = leader.machine.state.marks[0]
    leader.run(leader.outlook.maintain(Trim(mark.next_offset, mark.index, leader.now_ms)))
    leader.run(leader.outlook.maintain(Trim(mark.next_offset, mark.index, leader.now_ms)))
    assert leader.machine.state.start == mark, "the second one comes too late and is ignored"


def test_s1_a_trim_to_an_offset_that_is_not_the_marks_stops_the_replica() -> None:
    leader = SyncLeader()
    leader.append(batch(10))
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    index = leader.machine.state.marks[0].index
    with pytest.raises(AssertionError, match="which is not where the checkpoint"):
        apply(leader.machine, 50, encode(Trim(9, index, leader.now_ms)))


def test_marks_are_bounded_and_old_ones_become_coarse_first() -> None:
    state = LogState()
    for index in range(2, MARK_COUNT_MAX + 500):
        state.apply(Checkpoint(index), 1, index, 0)
    assert len(state.marks) <= MARK_COUNT_MAX
    assert state.marks[-1].index == MARK_COUNT_MAX + 499
    gaps = [b.index - a.index for a, b in zip(state.marks, state.marks[1:], strict=False)]
    assert gaps == sorted(gaps, reverse=True)
    assert (gaps[0], gaps[-1]) == (2, 1)


def test_a_position_row_stands_at_the_first_batch_after_each_checkpoint() -> None:
    leader = SyncLeader()
    for _ in range(130):
        leader.append(batch(1))
    rows = [keys.number_of(key) for key in leader.disk.rows]
    assert rows == [0, 64, 128]
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    leader.append(batch(1))
    assert [keys.number_of(key) for key in leader.disk.rows] == [0, 64, 128, 130]
    leader.append(batch(1, content=bytes(300_000)))
    leader.append(batch(1))
    assert keys.number_of(max(leader.disk.rows)) == 131, "a large batch gets a row of its own"


def commands() -> st.SearchStrategy[list[tuple[str, int]]]:
    kinds = ["append", "stamped", "fence", "expire", "checkpoint", "trim", "tick", "term"]
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(1, 4)), min_size=1, max_size=60)


def step(leader: SyncLeader, kind: str, number: int) -> None:
    ahead = leader.outlook.ahead
    now = leader.outlook.stamp_time(leader.now_ms)
    if kind == "append":
        leader.append(batch(number))
    elif kind == "stamped":
        known = ahead.producer(number)
        # A producer that was forgotten does not know what came before either.
        before = None if ahead.may_have_forgotten(number) else known.last_sequence
        stamp = Stamp(number, known.epoch, known.last_sequence + 1, before)
        leader.append(batch(number), stamp)
    elif kind == "tick":
        leader.now_ms += number * 100
    elif kind == "term":
        leader.new_term()
    else:
        command: Maintenance | None = None
        if kind == "fence":
            command = Fence(number, ahead.producer(number).epoch + 1, now)
        elif kind == "expire":
            command = Expire((number,), now)
        elif kind == "checkpoint":
            command = Checkpoint(now)
        elif ahead.marks:
            mark = ahead.marks[number % len(ahead.marks)]
            command = Trim(mark.next_offset, mark.index, now)
        if command is not None:
            leader.run(leader.outlook.maintain(command))


@settings(max_examples=60)
@given(commands(), st.sampled_from([5, REMEMBERED_TOTAL_MAX]))
def test_p9_a_replica_restored_from_any_checkpoint_ends_byte_identical(
    steps: list[tuple[str, int]], remembered_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "REMEMBERED_TOTAL_MAX", remembered_max)
        check_that_restored_replicas_agree(steps)


def check_that_restored_replicas_agree(steps: list[tuple[str, int]]) -> None:
    leader = SyncLeader()
    for kind, number in steps:
        step(leader, kind, number)
    copy = decode_state(leader.machine.snapshot())
    assert all(
        getattr(copy, name) == getattr(leader.machine.state, name) for name in LogState.__slots__
    )
    assert list(copy.producers) == list(leader.machine.state.producers)
    for index, data in [(1, b""), *leader.checkpoints.items()]:
        twin, disk = new_machine(), MemoryDisk()
        twin.restore(data, index)
        for entry in leader.log.history:
            if entry.index > index and entry.data:
                writes = WriteBatch()
                twin.apply(entry, writes)
                disk.write(writes)
                if twin.checkpoint_due():
                    assert twin.snapshot() == leader.checkpoints[entry.index]
        assert twin.snapshot() == leader.machine.snapshot()
        assert disk.rows.items() <= leader.disk.rows.items(), "the same rows, from there on"


def test_the_table_is_bounded_and_the_longest_idle_keep_their_newest_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_module, "REMEMBERED_TOTAL_MAX", 40)
    leader = SyncLeader()
    for sequence in range(1, 11):
        for producer in (1, 2, 3, 4):
            leader.append(batch(), Stamp(producer, 0, sequence))
    assert leader.machine.state.remembered_count == 40
    leader.append(batch(), Stamp(4, 0, 11))
    kept = {each: len(row.batches) for each, row in leader.machine.state.producers.items()}
    assert kept == {1: 1, 2: 10, 3: 10, 4: 11}
    assert leader.machine.state.remembered_count == 32
    assert leader.machine.state.producer(1).last_sequence == 10
    leader.run(leader.outlook.maintain(Expire((2, 9), leader.now_ms)))
    assert leader.machine.state.remembered_count == 22
    restored = decode_state(leader.machine.snapshot())
    assert restored.remembered_count == 22
    assert list(restored.producers) == [1, 3, 4]
    assert encode_state(restored) == leader.machine.snapshot()


def test_s24_duplicates_are_known_after_restore_trim_and_leader_change() -> None:
    leader = SyncLeader()
    stamp = Stamp(5, 0, 1, 0)
    first = leader.append(batch(10), stamp)
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    mark = leader.machine.state.marks[0]
    leader.run(leader.outlook.maintain(Trim(mark.next_offset, mark.index, leader.now_ms)))
    assert leader.machine.state.start_offset == 10, "the batch itself is gone"
    leader.new_term()
    for restored in (False, True):
        if restored:
            leader.machine.restore(leader.checkpoints[mark.index], mark.index)
            leader.new_term()
        answer = leader.outlook.append(batch(10), stamp, None, leader.now_ms, SETTINGS)
        assert isinstance(answer, Known)
        stored = answer.stored
        assert (stored.base_offset, stored.end_offset, stored.index) == (0, 10, first.index)


def test_the_newborn_state_is_empty() -> None:
    machine = new_machine()
    machine.restore(b"", 1)
    assert machine.state.next_offset == 0
    assert machine.state.start == Mark()
    assert machine.trim_index() == 0
    assert not machine.checkpoint_due()
