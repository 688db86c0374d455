"""What stops a node's metadata service before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupMeta
from rakit.multiraft.store import StoreDamagedError
from rakit.node.metadata import commands
from rakit.node.metadata.formation import Formation, FormationConfig
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.record import Member
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.service import MetadataConfig, MetadataService
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import ConfState
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.machines import connect
from tests.node.metadata.support import Log, describe


class EmptyHost(FakeHost):
    """A host whose disk holds no group."""

    refuses = False

    def group(self, group_id: int) -> GroupView | None:
        del group_id
        return None

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        if self.refuses:
            raise GroupRefusedError("dead")
        self.created = (meta, conf, first_leader)


def service_of(tmp_path: Path, host: FakeHost, member: Member) -> MetadataService:
    config = FormationConfig(
        path=tmp_path / "formation.json",
        description=describe("n1"),
        seeds=(),
        bootstrap_expect=1,
        known_cluster_id=member.cluster_id,
        known_node_id=member.node_id,
    )
    formation = Formation(config, connect)
    return MetadataService(
        MetadataConfig(clock_ms=lambda: 0), host, host.log.machine, member, formation
    )


async def test_s10_a_metadata_group_that_was_there_before_is_not_made_anew(tmp_path: Path) -> None:
    seen = Member("c", 1, "store-n1", 1 << 24 | 1, metadata_seen=True)
    host = EmptyHost(1, Log())
    with pytest.raises(StoreDamagedError, match="is gone, or shut out for damage"):
        await service_of(tmp_path, host, seen).start()
    assert not hasattr(host, "created")


async def test_a_lost_record_and_a_lost_group_together_are_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreDamagedError):
        await service_of(tmp_path, EmptyHost(1, Log()), Member("c", 1, "store-n1", 0)).start()


async def test_a_replica_that_is_dead_already_is_damage(tmp_path: Path) -> None:
    host = EmptyHost(1, Log())
    host.refuses = True
    with pytest.raises(StoreDamagedError, match="cannot be made: dead"):
        await service_of(tmp_path, host, Member("c", 1, "store-n1", 1 << 24 | 1)).start()


@pytest.mark.parametrize("founder", [True, False])
async def test_s11_only_a_founder_begins_from_the_first_configuration(
    tmp_path: Path, founder: bool
) -> None:
    founding = pb.Founding(cluster_id="c", members=[describe("n1"), describe("n2")])
    member = Member("c", 1, "store-n1", 1 << 24 | 1, founding if founder else None)
    host = EmptyHost(1, Log())
    service = service_of(tmp_path, host, member)
    await service.start()
    meta, conf, _ = host.created
    assert meta.replica_id == member.metadata_replica_id
    assert conf == (ConfState(voters=(1 << 24 | 1, 2 << 24 | 2)) if founder else None)
    await service.stop()


async def test_s8_births_are_trusted_from_the_next_group_id_of_a_read_of_this_start(
    tmp_path: Path,
) -> None:
    """What the node's own replica of the registry shows before may be older than the last cut."""
    log = Log().found(1)
    request = CreateTopicRequest(name="t", partition_count=3, replication_factor=1)
    log.do(commands.create_topic(request))
    host = FakeHost(1, log)
    host.barrier_fails = True
    member = Member("cluster", 1, "store-n1", 1 << 24 | 1, metadata_seen=True)
    service = service_of(tmp_path, host, member)
    await service.start()
    with pytest.raises(TimeoutError):
        await service.ready(0.05)
    assert host.births_trusted_from == 0
    host.barrier_fails = False
    await service.ready(10)
    assert host.births_trusted_from == log.registry.counters.group_id == METADATA_GROUP_ID + 4
    await service.stop()
