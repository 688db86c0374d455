"""The partitions of a node while its groups come and go, and the upkeep of those that it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.multiraft.effects import RoleChange
from rakit.multiraft.errors import OverloadedError
from rakit.multiraft.machine import replica_id
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.node.partition.commands import Append, Checkpoint, Trim, append_pieces, decode
from rakit.node.partition.partition import PartitionContext
from rakit.node.partition.producers import PRODUCER_IDLE_MS_MAX
from rakit.node.partition.retention import Upkeep
from rakit.node.partitions import Partitions
from rakit.raft import Payload, Role
from tests.node.metadata.support import Log
from tests.node.partition.fakes import FakeHost, FakeProposal, FakeReplica, MemoryDisk, batch

MINE = replica_id(1, 1)


class Node:
    """A node that holds a leading replica of every partition, and notes whom upkeep looks at."""

    def __init__(self, partitions: int = 1, config: TopicConfig | None = None) -> None:
        self.log = Log().found()
        self.now_ms = 1_000
        self.trusted = True
        self.hosts: dict[int, FakeHost] = {}
        self.looked_at: list[int] = []
        self.tell_roles: list[Callable[[RoleChange], None]] = []
        context = PartitionContext(
            disk=MemoryDisk(),
            clock_ms=lambda: self.now_ms,
            fsynced=True,
            clock_trusted=lambda: self.trusted,
            runs_are_read=lambda: True,
        )
        self.is_full = False
        #: The groups that somebody else could lead.
        self.leaving: set[int] = set()
        self.partitions = Partitions(
            self, self.log.registry, context, lambda _: self.is_full, self.leaving.__contains__
        )
        self.create("t", partitions, config)

    def create(self, name: str, partitions: int = 1, config: TopicConfig | None = None) -> None:
        """Has a topic created, all of whose partitions are led here a moment later."""
        request = CreateTopicRequest(name=name, partition_count=partitions, config=config)
        self.log.do(commands.create_topic(request))
        for group_id in self.groups(name):
            self.hosts.setdefault(group_id, FakeHost(group_id))
            self.tell(group_id, ready=True)

    def groups(self, name: str = "t") -> list[int]:
        topic = self.log.registry.topic(name)
        assert topic is not None
        return [each.group_id for each in topic.partitions]

    def tell(self, group_id: int, *, ready: bool) -> None:
        role = Role.LEADER if ready else Role.FOLLOWER
        for tell in self.tell_roles:
            tell(RoleChange(group_id, role, MINE, term=3, ready=ready))

    def round(self) -> set[int]:
        """A round of upkeep; returns the groups that were looked at."""
        self.looked_at.clear()
        for _ in self.partitions.upkeep():
            pass
        return set(self.looked_at)

    def at_rest(self) -> None:
        """Has rounds of upkeep, whatever comes of them, until nobody is looked at any more."""
        while self.round():
            self.commit()

    def append(self, group_id: int, count: int = 1) -> None:
        """Appends and commits."""
        self.partitions.append(group_id, batch(count, content=bytes(100_000)), None, None)
        self.commit()

    def commit(self) -> None:
        for host in self.hosts.values():
            if host.waiting:
                host.commit()

    def proposed(self, group_id: int) -> list[Upkeep]:
        """What was proposed and is not committed."""
        found = [decode(entry.data) for entry, _ in self.hosts[group_id].waiting]
        return [each for each in found if isinstance(each, Upkeep)]

    # What `Partitions` asks of its host.

    @property
    def leaders(self) -> Node:
        return self

    def led_here(self) -> dict[int, int]:
        return {each: host.leader.term for each, host in self.hosts.items() if host.replica}

    def group(self, group_id: int) -> FakeReplica | None:
        self.looked_at.append(group_id)
        host = self.hosts.get(group_id)
        return None if host is None else host.group(group_id)

    def propose(self, group_id: int, *pieces: Payload) -> FakeProposal:
        return self.hosts[group_id].propose(group_id, *pieces)

    async def read_barrier(self, group_id: int) -> int:
        return await self.hosts[group_id].read_barrier(group_id)

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        return self.hosts[group_id].on_applied(group_id, callback)

    def quarantine(self, group_id: int, reason: str, *, for_good: bool) -> None:
        self.hosts[group_id].quarantine(group_id, reason, for_good=for_good)

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        self.tell_roles.append(callback)
        return lambda: self.tell_roles.remove(callback)


def kinds(proposed: Iterable[Upkeep]) -> list[type[Upkeep]]:
    return [type(each) for each in proposed]


async def test_s9_a_group_that_was_just_shut_out_does_not_end_the_node() -> None:
    node = Node()
    (group_id,) = node.groups()
    node.hosts[group_id].replica = None
    node.round()
    node.tell(group_id, ready=True)
    node.round()
    with pytest.raises(RakitError) as caught:
        node.partitions.get(group_id)
    assert reason_name(caught.value.reason) == "NODE_UNAVAILABLE"


async def test_upkeep_looks_at_no_partition_that_rests_however_many_there_are() -> None:
    node = Node(300)
    groups = node.groups()
    assert node.round() == set(groups), "who has just begun to lead is looked at"
    assert node.round() == set()
    busy = groups[17]
    for _ in range(3):
        node.append(busy)
        assert node.round() == {busy}
    assert node.round() == set()


async def test_a_round_of_upkeep_gives_others_a_turn_every_few_partitions() -> None:
    node = Node(300)
    node.looked_at.clear()
    steps = 0
    for _ in node.partitions.upkeep():
        assert len(set(node.looked_at)) <= 128
        node.looked_at.clear()
        steps += 1
    assert steps == 3


async def test_what_age_makes_due_is_proposed_by_the_first_round_from_then_on() -> None:
    node = Node(2, TopicConfig(segment_ms=60_000, retention_ms=3_600_000))
    group_id, other = node.groups()
    node.append(group_id)
    node.at_rest()
    node.now_ms = 60_999
    assert node.round() == set()
    node.now_ms = 61_000
    assert node.round() == {group_id}
    assert kinds(node.proposed(group_id)) == [Checkpoint]
    node.at_rest()
    node.now_ms = 61_000 + 3_600_000 - 1
    assert node.round() == set()
    node.now_ms += 1
    assert node.round() == {group_id}
    assert kinds(node.proposed(group_id)) == [Trim]
    node.at_rest()
    assert node.partitions.get(group_id).earliest() == 1
    node.now_ms += 2 * PRODUCER_IDLE_MS_MAX
    assert node.round() == set()
    assert not node.proposed(other)


async def test_a_setting_that_makes_something_due_is_acted_on_by_the_next_round() -> None:
    node = Node()
    (group_id,) = node.groups()
    node.append(group_id)
    node.at_rest()
    node.now_ms += 600_000
    node.at_rest()
    update = UpdateTopicRequest(name="t", config=TopicConfig(retention_bytes=1))
    update.update_mask.paths.append("retention_bytes")
    node.log.do(commands.update_topic(update))
    node.round()
    assert kinds(node.proposed(group_id)) == [Trim]


async def test_s3_what_a_clock_that_is_off_holds_up_is_done_when_it_is_right_again() -> None:
    node = Node(1, TopicConfig(retention_bytes=1, segment_ms=60_000))
    (group_id,) = node.groups()
    node.trusted = False
    node.append(group_id)
    node.now_ms += 60_000
    for _ in range(3):
        node.round()
        node.commit()
    assert node.partitions.get(group_id).earliest() == 0
    assert node.round() == {group_id}, "nothing else tells that the clock is right again"
    node.trusted = True
    node.round()
    assert kinds(node.proposed(group_id)) == [Trim]


async def test_what_could_not_be_proposed_is_proposed_by_the_next_round() -> None:
    node = Node()
    (group_id,) = node.groups()
    node.append(group_id)
    node.at_rest()
    node.now_ms += 600_000
    node.hosts[group_id].refuse = OverloadedError("too much is uncommitted")
    for _ in range(2):
        assert node.round() == {group_id}
    node.hosts[group_id].refuse = None
    node.round()
    assert kinds(node.proposed(group_id)) == [Checkpoint]


async def test_who_begins_to_lead_looks_after_what_was_there_before() -> None:
    node = Node()
    (group_id,) = node.groups()
    node.append(group_id)
    node.at_rest()
    host = node.hosts[group_id]
    host.lose()
    node.tell(group_id, ready=False)
    node.now_ms += 600_000
    node.at_rest()
    assert not node.proposed(group_id), "a follower proposes nothing"
    host.lead_again()
    node.tell(group_id, ready=True)
    node.round()
    assert kinds(node.proposed(group_id)) == [Checkpoint]


async def test_who_leads_for_the_first_time_here_looks_after_what_others_stored() -> None:
    node = Node()
    (group_id,) = node.groups()
    host = node.hosts[group_id]
    append = Append(0, 1, 1_000, None, 5, compressed=False, checkpoint=False)
    host.propose(group_id, *append_pieces(append, b"content"))
    host.commit()
    host.leader.ready = False
    node.now_ms += 600_000
    node.at_rest()
    assert not host.callbacks, "nobody asked for it, and another node looks after it"
    host.leader.ready = True
    node.tell(group_id, ready=True)
    node.round()
    assert kinds(node.proposed(group_id)) == [Checkpoint]


async def test_a_group_that_leads_before_the_registry_has_it_is_looked_after_then() -> None:
    node = Node()
    early = max(node.groups()) + 1
    node.hosts[early] = FakeHost(early)
    node.tell(early, ready=True)
    node.at_rest()
    node.tell_roles.clear()
    node.create("u")
    assert node.groups("u") == [early]
    assert early in node.round()


async def test_everything_is_looked_at_after_a_checkpoint_of_the_registry_was_installed() -> None:
    ahead, node = Node(3), Node(3)
    ahead.create("u")
    (new,) = ahead.groups("u")
    node.hosts[new] = FakeHost(new)
    node.tell(new, ready=True)
    node.at_rest()
    machine = ahead.log.machine
    node.log.machine.restore(machine.snapshot(), machine.applied_index)
    assert node.round() == {*node.groups("t"), new}, "also what was led before it was known"


async def test_a_partition_of_a_deleted_topic_lets_go_and_wakes_who_waits() -> None:
    node = Node(2)
    group_id, other = node.groups()
    node.at_rest()
    woken = asyncio.Event()
    node.partitions.get(group_id).subscribe(woken.set)
    node.log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    assert not woken.is_set()
    assert node.round() == {group_id, other}
    assert woken.is_set()
    assert not node.hosts[group_id].callbacks, "it hears of nothing any more"
    assert node.round() == set()


async def test_s12_a_full_disk_refuses_for_good_only_where_nobody_else_could_lead() -> None:
    node = Node(partitions=2)
    leaving, staying = node.groups()
    node.leaving.add(leaving)
    node.is_full = True
    reasons: list[str] = []
    for group_id in (leaving, staying):
        with pytest.raises(RakitError) as caught:
            node.append(group_id)
        assert not caught.value.may_be_applied
        reasons.append(reason_name(caught.value.reason))
    assert reasons == ["NO_LEADER", "NO_SPACE"]
    node.is_full = False
    node.append(staying)


async def test_s14_nothing_is_taken_any_more_once_the_partitions_are_closed() -> None:
    """The host still leads then, and has pending what the closed ones have proposed."""
    node = Node()
    [group_id] = node.groups()
    node.append(group_id)
    pending = node.partitions.append(group_id, batch(), None, None)
    node.partitions.close()
    with pytest.raises(RakitError) as caught:
        node.partitions.append(group_id, batch(), None, None)
    assert caught.value.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE
    assert not caught.value.may_be_applied
    assert len(node.hosts[group_id].waiting) == 1
    node.commit()
    assert (await pending).stored.base_offset == 1
