"""Births and removals of a node's replicas, as the registry orders them."""

from __future__ import annotations

import asyncio

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, DeleteTopicRequest
from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupMeta
from rakit.multiraft.quarantine import Quarantined
from rakit.node.metadata import commands
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.replicas import LocalReplicas
from rakit.raft import ConfState
from tests.node.metadata.doubles import FakeHost
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
