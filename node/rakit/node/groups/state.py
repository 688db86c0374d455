"""What an internal partition holds: its groups, and what each command does to them. Pure.

Rules:

- P5: a partition has one owner. A change that would give it a second one is refused whole, whatever
  its proposer thought.
- A change is applied only to the epoch that it was decided on, and raises it. So what was decided
  and what is applied are the same.
- A commit is judged as of its place in the log (S25). Its member must be in the group
  (MEMBER_FENCED), own the partition (PARTITION_NOT_OWNED), and have owned it already in the epoch
  that the client knows, which it must have been told of (STALE_MEMBER_EPOCH). A commit of nobody
  counts only in a group without members (GROUP_ACTIVE).
- Offsets may go back: a member that reads something again says so.
- Records are replaced, never changed: whoever got one may keep it.

Equal states give equal bytes: groups by name, members by id, offsets by topic and partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from rakit.api.v1 import error_pb2, group_service_pb2
from rakit.node.groups.limits import (
    GROUPS_A_PARTITION_COUNT_MAX,
    METADATA_A_GROUP_BYTES_MAX,
    OFFSETS_A_GROUP_COUNT_MAX,
)
from rakit.peer.v1 import group_command_pb2 as pb

if TYPE_CHECKING:
    from rakit.node.errors import Reason

#: A partition: (topic id, number).
Key: TypeAlias = tuple[int, int]


def key_of(partition: pb.OwnedPartition | pb.GroupOffset) -> Key:
    """The partition that is meant."""
    return partition.topic_id, partition.partition


@dataclass(slots=True)
class Group:
    """One group.

    - `owners` is what the members' records say, `metadata_bytes` what the offsets do.
    """

    name: str
    epoch: int = 0
    used_time_ms: int = 0
    members: dict[str, pb.MemberRecord] = field(default_factory=dict[str, pb.MemberRecord])
    offsets: dict[Key, pb.GroupOffset] = field(default_factory=dict[Key, pb.GroupOffset])
    #: (member id, epoch since which it owns the partition).
    owners: dict[Key, tuple[str, int]] = field(default_factory=dict[Key, tuple[str, int]])
    #: Of all offsets together.
    metadata_bytes: int = 0

    def record(self) -> pb.GroupRecord:
        """The group as it is stored and told."""
        return pb.GroupRecord(
            name=self.name,
            epoch=self.epoch,
            members=[self.members[each] for each in sorted(self.members)],
            offsets=[self.offsets[each] for each in sorted(self.offsets)],
            used_time_ms=self.used_time_ms,
        )

    def add(self, member: pb.MemberRecord) -> None:
        """Adds a member whose partitions nobody else has."""
        self.members[member.member_id] = member
        for one in member.owned:
            assert key_of(one) not in self.owners, "a partition has one owner (P5)"
            self.owners[key_of(one)] = member.member_id, one.since_epoch

    def remove(self, member_id: str) -> None:
        """Removes a member, if it is there, and frees what it owned."""
        member = self.members.pop(member_id, None)
        for one in () if member is None else member.owned:
            del self.owners[key_of(one)]


def state_of(members: Iterable[pb.MemberRecord]) -> group_service_pb2.GroupState.ValueType:
    """Whether a group with these members is at work."""
    members = list(members)
    if not members:
        return group_service_pb2.GROUP_STATE_EMPTY
    for one in members:
        if [key_of(each) for each in one.owned] != [key_of(each) for each in one.target]:
            return group_service_pb2.GROUP_STATE_REBALANCING
    return group_service_pb2.GROUP_STATE_STABLE


def summary_of(group: Group) -> group_service_pb2.GroupSummary:
    """A group in a list."""
    return group_service_pb2.GroupSummary(
        name=group.name, state=state_of(group.members.values()), member_count=len(group.members)
    )


@dataclass(slots=True)
class Groups:
    """All groups of one internal partition."""

    groups: dict[str, Group] = field(default_factory=dict[str, Group])
    #: Of all groups together: offsets, members, and what these own.
    items_count: int = 0

    def change(self, change: pb.GroupChange, time_ms: int) -> bool:
        """Makes the members of a group what the change says; False where it does not apply."""
        group = self.groups.get(change.group)
        epoch = 0 if group is None else group.epoch
        # A group that only has offsets has the epoch 0 too.
        expected = change.expected_epoch == epoch < change.epoch
        if not expected or not _keeps_p5(group, change):
            return False
        if group is None:
            if len(self.groups) >= GROUPS_A_PARTITION_COUNT_MAX:
                return False
            group = self.groups[change.group] = Group(change.group)
        self.items_count -= _members_items(group)
        for member_id in change.removed_member_ids:
            group.remove(member_id)
        for member in change.members:
            group.remove(member.member_id)
        for member in change.members:
            group.add(member)
        self.items_count += _members_items(group)
        group.epoch = change.epoch
        group.used_time_ms = max(group.used_time_ms, time_ms)
        return True

    def commit(self, commit: pb.CommitGroupOffsets, time_ms: int) -> pb.CommitResult:
        """Takes over the offsets that count, and says which do not, and why."""
        group = self.groups.get(commit.group)
        result = pb.CommitResult()

        def refuse(positions: Iterable[int], reason: Reason) -> pb.CommitResult:
            for position in positions:
                result.refused.append(position)
                result.reasons.append(reason)
            return result

        every = range(len(commit.offsets))
        member = None
        if commit.member_id:
            member = None if group is None else group.members.get(commit.member_id)
            if member is None:
                return refuse(every, error_pb2.ERROR_REASON_MEMBER_FENCED)
        elif group is not None and group.members:
            return refuse(every, error_pb2.ERROR_REASON_GROUP_ACTIVE)
        if group is None:
            if len(self.groups) >= GROUPS_A_PARTITION_COUNT_MAX:
                return refuse(every, error_pb2.ERROR_REASON_GROUP_FULL)
            group = self.groups[commit.group] = Group(commit.group)
        for position, offset in enumerate(commit.offsets):
            reason = None if member is None else _verdict(group, member, commit, key_of(offset))
            if reason is None:
                reason = self._put(group, offset, time_ms)
            if reason is not None:
                refuse([position], reason)
        group.used_time_ms = max(group.used_time_ms, time_ms)
        return result

    def _put(self, group: Group, offset: pb.GroupOffset, time_ms: int) -> Reason | None:
        key = key_of(offset)
        known = group.offsets.get(key)
        more = _metadata_bytes(offset) - (0 if known is None else _metadata_bytes(known))
        if more > 0 and group.metadata_bytes + more > METADATA_A_GROUP_BYTES_MAX:
            return error_pb2.ERROR_REASON_GROUP_FULL
        if known is None:
            if len(group.offsets) >= OFFSETS_A_GROUP_COUNT_MAX:
                return error_pb2.ERROR_REASON_GROUP_FULL
            self.items_count += 1
        group.metadata_bytes += more
        stored = pb.GroupOffset()
        stored.CopyFrom(offset)
        stored.commit_time_ms = time_ms
        group.offsets[key] = stored
        return None

    def drop(self, name: str) -> bool:
        """Forgets a group without members; False where it has some, or does not exist."""
        group = self.groups.get(name)
        if group is None or group.members:
            return False
        self.items_count -= len(group.offsets)
        del self.groups[name]
        return True

    def forget_topics(self, topic_ids: Iterable[int]) -> None:
        """Forgets the offsets in topics that were deleted."""
        gone = frozenset(topic_ids)
        for group in self.groups.values():
            dead = [key for key in group.offsets if key[0] in gone]
            for key in dead:
                group.metadata_bytes -= _metadata_bytes(group.offsets.pop(key))
            self.items_count -= len(dead)

    def encode(self, checkpoint_index: int, previous_index: int) -> bytes:
        """The whole state, and the two checkpoints between which the log is kept."""
        state = pb.GroupsState(
            groups=[self.groups[name].record() for name in sorted(self.groups)],
            checkpoint_index=checkpoint_index,
            previous_checkpoint_index=previous_index,
        )
        return state.SerializeToString(deterministic=True)

    def decode(self, data: bytes) -> tuple[int, int]:
        """Takes over a state in place; returns the indexes of the last two checkpoints."""
        state = pb.GroupsState.FromString(data)
        self.groups.clear()
        self.items_count = 0
        for record in state.groups:
            group = Group(record.name, record.epoch, record.used_time_ms)
            for member in record.members:
                group.add(member)
            group.offsets.update((key_of(one), one) for one in record.offsets)
            group.metadata_bytes = sum(_metadata_bytes(one) for one in record.offsets)
            self.groups[record.name] = group
            self.items_count += _members_items(group) + len(group.offsets)
        return state.checkpoint_index, state.previous_checkpoint_index


def _metadata_bytes(offset: pb.GroupOffset) -> int:
    return len(offset.metadata.encode())


def _members_items(group: Group) -> int:
    return len(group.members) + len(group.owners)


def _keeps_p5(group: Group | None, change: pb.GroupChange) -> bool:
    """Whether every partition has one owner afterwards."""
    replaced = {*change.removed_member_ids, *(each.member_id for each in change.members)}
    if len(replaced) != len(change.removed_member_ids) + len(change.members):
        return False
    owners: Callable[[Key], tuple[str, int] | None] = (
        (lambda _key: None) if group is None else group.owners.get
    )
    given: set[Key] = set()
    for member in change.members:
        for one in member.owned:
            key = key_of(one)
            owner = owners(key)
            if key in given or (owner is not None and owner[0] not in replaced):
                return False
            given.add(key)
    return True


def _verdict(
    group: Group, member: pb.MemberRecord, commit: pb.CommitGroupOffsets, key: Key
) -> Reason | None:
    owner = group.owners.get(key)
    if owner is None or owner[0] != member.member_id:
        return error_pb2.ERROR_REASON_PARTITION_NOT_OWNED
    if not owner[1] <= commit.member_epoch <= member.epoch:
        return error_pb2.ERROR_REASON_STALE_MEMBER_EPOCH
    return None
