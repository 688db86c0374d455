"""What stops a node's metadata service before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupMeta
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.store import StoreDamagedError
from rakit.node.metadata import commands, service
from rakit.node.metadata.formation import Formation, FormationConfig
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError, to_refusal
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.service import MetadataConfig, MetadataService
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.node_service_pb2 import Destination
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
    with pytest.raises(StoreDamagedError, match="metadata group is gone") as caught:
        await service_of(tmp_path, host, seen).start()
    assert not caught.value.is_lost, "a read that failed may hide it"
    assert not hasattr(host, "created")


@pytest.mark.parametrize(
    ("shut_out", "is_lost"),
    [
        (Quarantined(1 << 24 | 1, "a bad block"), True),
        (Quarantined(1 << 24 | 1, "a second leader", at_fault=False), False),
        (Quarantined(1 << 24 | 1, "no file handle", for_good=False), False),
        (Quarantined(0, "a bad block"), False),
    ],
)
async def test_s9_only_a_replica_of_the_metadata_group_that_is_at_fault_makes_its_store_a_lost_one(
    tmp_path: Path, shut_out: Quarantined, *, is_lost: bool
) -> None:
    host = EmptyHost(1, Log())
    host.quarantined[METADATA_GROUP_ID] = shut_out
    seen = Member("c", 1, "store-n1", 1 << 24 | 1, metadata_seen=True)
    with pytest.raises(StoreDamagedError, match=shut_out.reason) as caught:
        await service_of(tmp_path, host, seen).start()
    assert caught.value.is_lost is is_lost


async def test_a_lost_record_and_a_lost_group_together_are_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreDamagedError) as caught:
        await service_of(tmp_path, EmptyHost(1, Log()), Member("c", 1, "store-n1", 0)).start()
    assert not caught.value.is_lost


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
    made = service_of(tmp_path, host, member)
    await made.start()
    meta, conf, _ = host.created
    assert meta.replica_id == member.metadata_replica_id
    assert conf == (ConfState(voters=(1 << 24 | 1, 2 << 24 | 2)) if founder else None)
    await made.stop()


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
    made = service_of(tmp_path, host, member)
    await made.start()
    with pytest.raises(TimeoutError):
        await made.ready(0.05)
    assert host.births_trusted_from == 0
    host.barrier_fails = False
    await made.ready(10)
    assert host.births_trusted_from == log.registry.counters.group_id == METADATA_GROUP_ID + 4
    await made.stop()


class Lone(FakeHost):
    """A host that knows the others, until they go on without it."""

    turned_away: Callable[[int], None]

    def set_peer(self, node_id: int, address: str | None) -> None:
        assert (node_id, address) in {(2, "n2:7071"), (3, "n3:7071")}

    def on_turned_away(self, callback: Callable[[int], None]) -> Callable[[], None]:
        self.turned_away = callback
        return lambda: None


@pytest.mark.parametrize("sign", ["no leader", "turned away"])
async def test_s11_a_running_node_asks_whether_it_was_replaced_when_others_go_on_without_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sign: str,
) -> None:
    monkeypatch.setattr(service, "STRAY_SECONDS", 0.05)
    host = Lone(1, Log().found())
    host.leaders.becomes(2)
    running = service_of(tmp_path, host, Member("cluster", 1, "store-n1", 1 << 24 | 1))
    asked: list[tuple[str, wire.JoinRequest]] = []

    async def join(address: str, request: wire.JoinRequest, seconds: float) -> wire.JoinResponse:
        asked.append((address, request))
        assert seconds > 0
        gone = NodeRefusedError(pb.NODE_REFUSAL_STORE_REPLACED, "its replicas are dead for good")
        return wire.JoinResponse(refused=to_refusal(gone))

    monkeypatch.setattr(running._formation.greeter, "join", join)
    await running.start()
    await running.ready(5)
    # While all is well nobody is asked, however long that is.
    await asyncio.sleep(0.2)
    assert not asked
    host.leaders.becomes(0)
    if sign == "turned away":
        monkeypatch.setattr(service, "STRAY_SECONDS", 60)
        host.turned_away(3)
    async with asyncio.timeout(5):
        error = await running.failed
    assert isinstance(error, NodeRefusedError)
    assert error.refusal == pb.NODE_REFUSAL_STORE_REPLACED
    address, request = asked[0]
    # The log says what is known, and not that others go on: they may be down.
    said = {"no leader": "no leader of the metadata group is known", "turned away": "do not talk"}
    assert [text in caplog.text for text in said.values()] == [key == sign for key in said]
    # Who turned it away knows why, so it is asked first.
    node_id = 3 if sign == "turned away" else 2
    assert address == f"n{node_id}:7071"
    assert request.destination == Destination(cluster_id="cluster", node_id=node_id)
    assert (request.node_id, request.boot_epoch, request.opened_counter) == (1, 1, 1)
    await running.stop()
