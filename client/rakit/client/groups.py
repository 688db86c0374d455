"""What the cluster says about consumer groups, as plain frozen values.

As in `model`: fields mean what the message of the same name says in `protos/rakit/api/v1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rakit.api.v1 import group_service_pb2 as wire
from rakit.api.v1 import log_service_pb2 as log
from rakit.client.errors import RakitError, from_status


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member, and what it has."""

    member_id: str
    instance_id: str
    client_id: str
    rack: str
    member_epoch: int
    # 0: no node holds its session at the moment, and its grace runs.
    gateway_node_id: int
    topics: tuple[str, ...]
    patterns: tuple[str, ...]
    # (topic, partition)
    owned: tuple[tuple[str, int], ...]
    target: tuple[tuple[str, int], ...]

    @classmethod
    def from_message(cls, message: wire.GroupMember) -> GroupMember:
        """Returns the member of a message."""
        return cls(
            message.member_id,
            message.instance_id,
            message.client_id,
            message.rack,
            message.member_epoch,
            message.gateway_node_id,
            tuple(message.topics),
            tuple(message.topic_patterns),
            _pairs(message.owned),
            _pairs(message.target),
        )


def _pairs(partitions: Sequence[wire.TopicPartition]) -> tuple[tuple[str, int], ...]:
    return tuple((each.topic, each.partition) for each in partitions)


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """How far a group is in one partition."""

    topic: str
    partition: int
    # None: nothing was committed yet.
    committed_offset: int | None
    metadata: str
    commit_time_ms: int
    # Empty: nobody owns it.
    member_id: str
    earliest: int
    latest: int
    # None where the range could not be read.
    lag_records: int | None
    lag_ms: int | None
    error: str

    @classmethod
    def from_message(cls, message: wire.GroupPartition) -> GroupPartition:
        """Returns the partition of a message."""
        failed = message.HasField("error")
        return cls(
            message.topic,
            message.partition,
            message.committed_offset if message.HasField("committed_offset") else None,
            message.metadata,
            message.commit_time_ms,
            message.member_id,
            message.earliest,
            message.latest,
            None if failed else message.lag_records,
            None if failed else message.lag_ms,
            message.error.message if failed else "",
        )


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group in a list. Its state is EMPTY, STABLE or REBALANCING."""

    name: str
    state: str
    member_count: int
    coordinator_node_id: int

    @classmethod
    def from_message(cls, message: wire.GroupSummary) -> GroupSummary:
        """Returns the summary of a message."""
        state = _state(message.state)
        return cls(message.name, state, message.member_count, message.coordinator_node_id)


def _state(state: wire.GroupState.ValueType) -> str:
    return wire.GroupState.Name(state).removeprefix("GROUP_STATE_")


@dataclass(frozen=True, slots=True)
class Group:
    """A group, its members, and how far behind it is."""

    name: str
    state: str
    epoch: int
    coordinator_node_id: int
    members: tuple[GroupMember, ...]
    partitions: tuple[GroupPartition, ...]

    @property
    def lag_records(self) -> int:
        """Records of all partitions that are not committed, where that is known."""
        return sum(each.lag_records or 0 for each in self.partitions)

    @classmethod
    def from_pages(cls, pages: Sequence[wire.Group]) -> Group:
        """Returns the group that pages make up. A member may be on several: parts of one."""
        members: dict[str, wire.GroupMember] = {}
        for page in pages:
            for each in page.members:
                members.setdefault(each.member_id, wire.GroupMember()).MergeFrom(each)
        newest = pages[-1]
        return cls(
            newest.name,
            _state(newest.state),
            newest.epoch,
            newest.coordinator_node_id,
            tuple(map(GroupMember.from_message, members.values())),
            tuple(GroupPartition.from_message(each) for page in pages for each in page.partitions),
        )


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """What a reset does, or would do, to one partition."""

    topic: str
    partition: int
    # None: there was none.
    before: int | None
    after: int

    @classmethod
    def from_message(cls, message: wire.OffsetChange) -> OffsetChange:
        """Returns the change of a message."""
        before = message.before if message.HasField("before") else None
        return cls(message.topic, message.partition, before, message.after)


ResetTo = Literal["earliest", "latest"] | int | datetime


def reset_target(
    topic: str, partition: int | None, to: ResetTo | None, shift: int | None
) -> wire.ResetTarget:
    """Returns where a partition's offset, or those of all of a topic's, are to be moved."""
    if (to is None) == (shift is None):
        raise ValueError("a reset needs either a place or a shift")
    target = wire.ResetTarget(topic=topic, partition=partition)
    match to:
        case None:
            assert shift is not None, "checked above"
            target.shift = shift
        case "earliest":
            target.edge = log.EDGE_EARLIEST
        case "latest":
            target.edge = log.EDGE_LATEST
        case datetime():
            if to.tzinfo is None:
                raise ValueError("a time to reset to needs its time zone")
            target.time_ms = int(to.timestamp() * 1000)
        case _:
            target.offset = to
    return target


def refusals(errors: Sequence[wire.PartitionError]) -> dict[tuple[str, int], RakitError]:
    """Returns the partitions whose offsets were not committed."""
    return {(each.topic, each.partition): from_status(each.error) for each in errors}
