"""Births and removals of a node's replicas, as the registry orders them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, DeleteTopicRequest
from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.quarantine import Quarantined
from rakit.node.metadata import commands
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.replicas import LocalReplicas
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import ConfState, Status
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.machines import until
from tests.node.metadata.support import Log


class DamagedHost(FakeHost):
    """A host on which a partition's replica is shut out."""

    def __init__(self, node_id: int, log: Log, group_id: int) -> None:
        super().__init__(node_id, log)
        self.quarantined[group_id] = Quarantined(node_id << 24 | 1, "damage")
        self.created: list[GroupMeta] = []
        self.removed: list[int] = []

    def group(self, group_id: int) -> GroupView | None:
        del group_id
        return None

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        del conf, first_leader
        self.created.append(meta)
        raise GroupRefusedError("it is shut out")

    def remove_group(self, group_id: int) -> None:
        self.removed.append(group_id)
        del self.quarantined[group_id]


@dataclass
class Working:
    """A replica that goes about its business."""

    meta: GroupMeta
    conf_state: ConfState = field(default_factory=ConfState)
    ready: bool = False
    term: int = 1
    applied: int = 1
    leader_replica: int = 0

    def status(self) -> Status:
        raise AssertionError("nobody asks for it here")


class Holding(FakeHost):
    """A host whose births and removals are written down; it may hold a replica of one group."""

    def __init__(self, node_id: int, log: Log, group_id: int, sequence: int = 0) -> None:
        super().__init__(node_id, log)
        self.did: list[tuple[object, ...]] = []
        self.held: dict[int, Working] = {}
        if sequence:
            meta = GroupMeta(group_id, replica_id(node_id, sequence), GroupKind.PARTITION)
            self.held[group_id] = Working(meta)

    def group(self, group_id: int) -> GroupView | None:
        return self.held.get(group_id)

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        del first_leader
        assert meta.group_id not in self.held, "the old one stands in its way"
        self.did.append(("create", meta.replica_id, conf))
        self.held[meta.group_id] = Working(meta)

    def remove_group(self, group_id: int) -> None:
        self.did.append(("remove", self.held.pop(group_id).meta.replica_id))


def replace_on(log: Log, group_id: int, node_id: int) -> int:
    """Has the registry name a new replica of a group on a node; returns it."""
    place = log.registry.partition(group_id)
    assert place is not None
    command = pb.ReplaceReplica(
        group_id=group_id,
        replica_id=place.on_node(node_id) or 0,
        seen_replica_ids=place.replica_ids,
    )
    result = log.do(pb.MetadataCommand(replace_replica=command))
    return result.replica_replaced.replica_id


def topic(log: Log, name: str = "t") -> int:
    """Creates a topic with one partition; returns its group."""
    request = CreateTopicRequest(name=name, partition_count=1, replication_factor=1)
    log.do(commands.create_topic(request))
    info = log.registry.topic(name)
    assert info is not None
    return info.partitions[0].group_id


async def settled(replicas: LocalReplicas) -> None:
    running = asyncio.create_task(replicas.run())
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    replicas.close()


async def test_s9_a_quarantined_replica_goes_with_its_topic() -> None:
    log = Log().found(1)
    group_id = topic(log)
    host = DamagedHost(1, log, group_id)
    replicas = LocalReplicas(host, log.registry, "store-n1")
    await settled(replicas)
    assert not host.removed, "its topic is there"
    replicas = LocalReplicas(host, log.registry, "store-n1")
    log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    await settled(replicas)
    assert host.removed == [group_id]


async def test_s9_a_quarantined_replica_of_a_topic_that_is_gone_is_removed_at_the_start() -> None:
    log = Log().found(1)
    group_id = topic(log)
    log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    host = DamagedHost(1, log, group_id)
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert host.removed == [group_id]


async def test_s8_a_working_replica_that_is_replaced_is_buried_and_its_successor_born_empty() -> (
    None
):
    """It does not know that it has lost what it had acknowledged."""
    log = Log().found(1)
    group_id = topic(log)
    host = Holding(1, log, group_id, sequence=1)
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert host.did == [], "it is the one that the registry names"
    fresh = replace_on(log, group_id, 1)
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert host.did == [("remove", replica_id(1, 1)), ("create", fresh, None)]
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert len(host.did) == 2


async def test_s8_a_replica_is_replaced_as_soon_as_the_registry_says_so() -> None:
    log = Log().found(1)
    group_id = topic(log)
    host = Holding(1, log, group_id, sequence=1)
    replicas = LocalReplicas(host, log.registry, "store-n1")
    running = asyncio.create_task(replicas.run())
    old = replica_id(1, 1)
    for _ in range(2):  # the second time it looks at nothing but what it is told of
        host.did.clear()
        fresh = replace_on(log, group_id, 1)
        await until(lambda: len(host.did) == 2)
        assert host.did == [("remove", old), ("create", fresh, None)]
        old = fresh
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    replicas.close()


async def test_s8_a_registry_of_the_past_removes_nothing() -> None:
    log = Log().found(1)
    group_id = topic(log)
    host = Holding(1, log, group_id, sequence=3)
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert host.did == []


async def test_s11_a_registry_that_speaks_of_another_store_replaces_nothing_on_this_one() -> None:
    log = Log().found(1)
    group_id = topic(log)
    replace_on(log, group_id, 1)
    host = Holding(1, log, group_id, sequence=1)
    await settled(LocalReplicas(host, log.registry, "another store"))
    assert host.did == []


async def test_s8_a_shut_out_replica_makes_way_for_its_successor() -> None:
    log = Log().found(1)
    group_id = topic(log)
    host = Holding(1, log, group_id)
    host.quarantined[group_id] = Quarantined(replica_id(1, 1), "damage")
    fresh = replace_on(log, group_id, 1)
    await settled(LocalReplicas(host, log.registry, "store-n1"))
    assert host.did == [("create", fresh, None)], "the host clears the old one away"
