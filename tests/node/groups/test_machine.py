"""The state machine of groups: commits are judged where they stand in the log (S25, P5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.multiraft.kv import WriteBatch
from rakit.node import checkpoints
from rakit.node.groups import state as state_module
from rakit.node.groups.machine import GroupsMachine
from rakit.peer.v1 import group_command_pb2 as pb
from rakit.raft import Entry, EntryType

FENCED = error_pb2.ERROR_REASON_MEMBER_FENCED
NOT_OWNED = error_pb2.ERROR_REASON_PARTITION_NOT_OWNED
STALE = error_pb2.ERROR_REASON_STALE_MEMBER_EPOCH
ACTIVE = error_pb2.ERROR_REASON_GROUP_ACTIVE
FULL = error_pb2.ERROR_REASON_GROUP_FULL


class Log:
    """A machine and the entries that it applied."""

    def __init__(self) -> None:
        self.machine = GroupsMachine()
        self.entries: list[Entry] = []
        self.checkpoints: list[tuple[int, bytes]] = []

    def apply(self, command: pb.GroupCommand) -> pb.GroupResult:
        """Applies one command."""
        index = len(self.entries) + 1
        entry = Entry(1, index, EntryType.NORMAL, command.SerializeToString(deterministic=True))
        self.entries.append(entry)
        result = self.machine.apply(entry, WriteBatch())
        if self.machine.checkpoint_due():
            self.checkpoints.append((index, self.machine.snapshot()))
        return result

    def change(self, epoch: int, *members: pb.MemberRecord, removed: tuple[str, ...] = ()) -> bool:
        """A change of group g to an epoch, from the one before."""
        change = pb.GroupChange(
            group="g",
            expected_epoch=epoch - 1,
            epoch=epoch,
            members=members,
            removed_member_ids=removed,
        )
        return self.apply(pb.GroupCommand(changes=[change], time_ms=epoch)).changed[0]

    def commit(self, member: str, epoch: int, *offsets: int, group: str = "g") -> list[int]:
        """Commits offsets of partitions 0 and on; returns the reason of each refusal."""
        commit = pb.CommitGroupOffsets(
            group=group,
            member_id=member,
            member_epoch=epoch,
            offsets=[
                pb.GroupOffset(topic_id=1, partition=at, offset=offset)
                for at, offset in enumerate(offsets)
            ],
        )
        command = pb.GroupCommand(commits=[commit], time_ms=1_000)
        return list(self.apply(command).commits[0].reasons)

    def committed(self) -> dict[int, int]:
        """By partition."""
        group = self.machine.state.groups["g"]
        return {key[1]: one.offset for key, one in group.offsets.items()}


def member(name: str, epoch: int, **owned: int) -> pb.MemberRecord:
    """A member that owns partitions `p0`, `p1`... since epochs."""
    return pb.MemberRecord(
        member_id=name,
        epoch=epoch,
        owned=[
            pb.OwnedPartition(topic_id=1, partition=int(key[1:]), since_epoch=since)
            for key, since in owned.items()
        ],
    )


def test_s25_a_commit_counts_if_its_member_owns_the_partition_when_it_is_applied() -> None:
    log = Log()
    assert log.change(1, member("a", 1, p0=1, p1=1))
    assert log.commit("a", 1, 5, 6) == []
    assert log.change(2, member("a", 2, p0=1), member("b", 2, p1=2))
    assert log.commit("a", 2, 7, 8) == [NOT_OWNED], "only the second one"
    assert log.committed() == {0: 7, 1: 6}


def test_s25_p5_a_fenced_members_commit_is_refused() -> None:
    log = Log()
    log.change(1, member("a", 1, p0=1))
    log.change(2, member("b", 2, p0=2), removed=("a",))
    assert log.commit("a", 1, 5) == [FENCED]
    assert log.commit("a", 2, 5) == [FENCED]
    assert log.commit("nobody", 2, 5, group="other") == [FENCED]
    assert "other" not in log.machine.state.groups


def test_s25_an_epoch_before_the_ownership_or_after_the_member_is_stale() -> None:
    log = Log()
    log.change(1, member("a", 1, p0=1))
    log.change(2, member("b", 2, p0=2), removed=("a",))
    log.change(3, member("a", 3, p0=3), removed=("b",))
    assert log.commit("a", 1, 5) == [STALE], "it had it then, and lost it in between"
    assert log.commit("a", 4, 5) == [STALE], "nobody can have told it that epoch"
    assert log.commit("a", 3, 5) == []


def test_a_commit_of_nobody_counts_in_a_group_without_members_only() -> None:
    log = Log()
    assert log.commit("", 0, 5) == []
    assert log.change(1, member("a", 1, p0=1)), "a group that has only offsets may get members"
    assert log.commit("", 0, 6) == [ACTIVE]
    log.change(2, removed=("a",))
    assert log.commit("", 0, 4) == []
    assert log.committed() == {0: 4}, "offsets may go back"


def test_the_proposers_clock_stamps_a_commit() -> None:
    log = Log()
    log.commit("", 0, 5)
    group = log.machine.state.groups["g"]
    assert group.offsets[1, 0].commit_time_ms == group.used_time_ms == 1_000


def test_a_change_applies_to_the_epoch_that_it_was_decided_on_only() -> None:
    log = Log()
    assert log.change(1, member("a", 1))
    assert not log.change(1, member("b", 1))
    assert not log.change(3, member("b", 3))
    assert [*log.machine.state.groups["g"].members] == ["a"]


def test_a_group_with_members_is_not_dropped() -> None:
    log = Log()
    log.change(1, member("a", 1))
    assert not log.apply(pb.GroupCommand(dropped_groups=["g"])).dropped[0]
    log.change(2, removed=("a",))
    assert log.apply(pb.GroupCommand(dropped_groups=["g", "g"])).dropped == [True, False]
    assert log.machine.state.items_count == 0


def test_offsets_of_deleted_topics_are_forgotten() -> None:
    log = Log()
    log.commit("", 0, 5, 6)
    log.apply(pb.GroupCommand(forgotten_topic_ids=[2]))
    assert log.committed() == {0: 5, 1: 6}
    log.apply(pb.GroupCommand(forgotten_topic_ids=[1]))
    assert log.committed() == {}
    assert log.machine.state.items_count == 0


def test_limits_hold_for_groups_and_for_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "GROUPS_A_PARTITION_COUNT_MAX", 1)
    monkeypatch.setattr(state_module, "OFFSETS_A_GROUP_COUNT_MAX", 2)
    log = Log()
    assert log.commit("", 0, 1, 2, 3) == [FULL]
    assert log.commit("", 0, 4, 5) == [], "those that are there may change"
    assert log.commit("", 0, 1, group="h") == [FULL]
    change = pb.GroupChange(group="h", epoch=1, members=[member("a", 1)])
    assert not log.apply(pb.GroupCommand(changes=[change])).changed[0]


def test_the_metadata_of_a_groups_offsets_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_module, "METADATA_A_GROUP_BYTES_MAX", 10)
    log = Log()

    def commit(partition: int, metadata: str, group: str = "g") -> list[int]:
        offset = pb.GroupOffset(topic_id=1, partition=partition, offset=1, metadata=metadata)
        made = pb.CommitGroupOffsets(group=group, offsets=[offset])
        return list(log.apply(pb.GroupCommand(commits=[made])).commits[0].reasons)

    assert commit(0, "éé") == commit(1, "123456") == []
    assert commit(2, "1") == [FULL]
    assert commit(2, "") == commit(2, "", "h") == commit(0, "12345", "h") == []
    assert commit(0, "12345") == [FULL]
    assert log.committed() == {0: 1, 1: 1, 2: 1}
    again = GroupsMachine()
    again.restore(log.machine.snapshot(), len(log.entries))
    assert again.state == log.machine.state
    assert commit(1, "12345") == commit(0, "12345") == [], "what is less makes room"
    log.apply(pb.GroupCommand(forgotten_topic_ids=[1]))
    assert commit(0, "1234567890") == []


def test_a_command_of_a_newer_version_stops_the_replica() -> None:
    newer = b"\x92\x01\x00"  # a field that this version does not have
    with pytest.raises(AssertionError, match="does not know"):
        GroupsMachine().apply(Entry(1, 1, EntryType.NORMAL, newer), WriteBatch())


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=40))
def test_p9_a_replica_restored_from_any_checkpoint_ends_byte_identical(
    steps: list[tuple[int, int, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "CHECKPOINT_ENTRIES_COUNT", 3)
        log = Log()
        for kind, at, offset in steps:
            group = log.machine.state.groups.get("g")
            epoch = 0 if group is None else group.epoch
            match kind:
                case 0:
                    log.change(epoch + 1, member(f"m{at}", epoch + 1, **{f"p{at}": epoch + 1}))
                case 1:
                    log.change(epoch + 1, removed=(f"m{at}",))
                case 2:
                    log.apply(pb.GroupCommand(dropped_groups=["g"]))
                case 3:
                    log.commit("", 0, offset, offset + 1)
                case _:
                    log.commit(f"m{at}", epoch, *range(offset))
        for index, data in log.checkpoints:
            late = GroupsMachine()
            late.restore(data, index)
            assert late.snapshot() == data
            for entry in log.entries[index:]:
                late.apply(entry, WriteBatch())
            assert late.state == log.machine.state
            assert late.state.items_count == log.machine.state.items_count
            assert late.snapshot() == log.machine.snapshot()
            assert (late.trim_index(), late.trim_targets()) == (
                log.machine.trim_index(),
                log.machine.trim_targets(),
            )
