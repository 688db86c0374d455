"""S26 on real disks and sockets: what is promised is on the disk, and a restart resumes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from rakit.multiraft.store import StoreDamagedError
from rakit.node.metadata import record as records
from rakit.node.metadata.formation import Formation, FormationConfig
from rakit.node.metadata.greeter import resolve
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1 import metadata_service_pb2_grpc as grpc_pb
from rakit.peer.v1.node_service_pb2 import Destination
from tests.cluster.harness import free_port
from tests.node.metadata.machines import connect, until


class Founder:
    """A node that has nothing yet but its listener and its record."""

    def __init__(self, directory: Path, name: str, expect: int, store: str = "") -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.path = directory / f"{name}.json"
        self.expect = expect
        self.store = store or f"store-{name}"
        self.seeds: tuple[str, ...] = ()
        self.running: asyncio.Task[Member] | None = None

    async def open(self, cluster_id: str = "", node_id: int = 0) -> Formation:
        description = pb.NodeDescription(
            name=self.name, store_uuid=self.store, peer_address=self.address
        )
        config = FormationConfig(
            path=self.path,
            description=description,
            seeds=self.seeds,
            bootstrap_expect=self.expect,
            known_cluster_id=cluster_id,
            known_node_id=node_id,
        )
        self.formation = Formation(config, connect)
        self.server = grpc.aio.server()
        grpc_pb.add_FormationServiceServicer_to_server(self.formation.servicer, self.server)
        self.server.add_insecure_port(self.address)
        await self.server.start()
        return self.formation

    async def start(self) -> asyncio.Task[Member]:
        await self.open()
        self.running = asyncio.create_task(self.formation.run())
        return self.running

    async def crash(self) -> None:
        """Ends at once; what is on the disk stays."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            self.running = None
        await self.server.stop(None)
        await self.formation.close()

    @property
    def on_disk(self) -> wire.FormationRecord:
        return records.load(self.path, self.store)


def founders(directory: Path, count: int) -> list[Founder]:
    made = [Founder(directory, f"n{number}", count) for number in range(count)]
    for one in made:
        one.seeds = tuple(each.address for each in made)
    return made


async def test_s26_a_lone_node_without_seeds_founds_alone(tmp_path: Path) -> None:
    alone = Founder(tmp_path, "n0", 1)
    member = await (await alone.start())
    assert (member.node_id, member.metadata_replica_id) == (1, (1 << 24) | 1)
    assert alone.on_disk.member.cluster_id == member.cluster_id
    await alone.crash()


async def test_s26_nobody_founds_before_all_have_promised_and_a_restart_resumes(
    tmp_path: Path,
) -> None:
    a, b, c = founders(tmp_path, 3)
    await a.start()
    await b.start()
    # The third answers, so that a founding begins, but gives no promise: it does not look around.
    await c.open()
    await until(lambda: a.on_disk.HasField("founding") and b.on_disk.HasField("founding"))
    promised = a.on_disk.founding
    assert b.on_disk.founding == promised
    assert a.running is not None
    assert not a.running.done()
    assert not a.on_disk.HasField("member")
    # Everybody crashes with their promises; the founding goes on as the same one.
    for one in (a, b, c):
        await one.crash()
    members = await asyncio.gather(*[await one.start() for one in (a, b, c)])
    assert {one.cluster_id for one in members} == {promised.cluster_id}
    assert [one.node_id for one in members] == [1, 2, 3]
    # A member tells its founding: an empty node that is named there is a founder again.
    assert all(one.formation.standing().founding == promised for one in (a, b, c))
    for one in (a, b, c):
        await one.crash()


async def test_s26_a_founder_that_dies_after_the_decision_is_followed_when_it_returns(
    tmp_path: Path,
) -> None:
    a, b, c = founders(tmp_path, 3)
    for one in (a, b, c):
        await one.start()
    await until(lambda: any(one.on_disk.HasField("member") for one in (a, b, c)))
    for one in (a, b, c):
        await one.crash()
    members = await asyncio.gather(*[await one.start() for one in (a, b, c)])
    assert len({one.cluster_id for one in members}) == 1
    for one in (a, b, c):
        await one.crash()


async def test_a_member_is_one_at_once_after_a_restart_without_asking_anybody(
    tmp_path: Path,
) -> None:
    alone = Founder(tmp_path, "n0", 1)
    first = await (await alone.start())
    await alone.formation.metadata_was_seen()
    await alone.crash()
    alone.seeds = ("127.0.0.1:1",)
    again = await (await alone.start())
    assert again.cluster_id == first.cluster_id
    assert again.metadata_seen
    await alone.crash()


async def test_s11_a_record_of_another_store_means_nothing(tmp_path: Path) -> None:
    alone = Founder(tmp_path, "n0", 1)
    first = await (await alone.start())
    await alone.crash()
    alone.store = "a-new-store"
    second = await (await alone.start())
    assert second.cluster_id != first.cluster_id
    await alone.crash()


async def test_s11_a_node_whose_database_vanished_does_not_found(tmp_path: Path) -> None:
    alone = Founder(tmp_path, "n0", 1)
    formation = await alone.open(cluster_id="c")
    assert formation.standing().state == wire.FORMATION_STATE_REJOINING
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(formation.run(), 0.3)
    assert not alone.on_disk.HasField("founding")
    await alone.crash()


async def test_a_lost_record_beside_a_good_store_is_no_reason_to_found(tmp_path: Path) -> None:
    alone = Founder(tmp_path, "n0", 1)
    formation = await alone.open(cluster_id="c", node_id=7)
    member = await formation.run()
    assert (member.cluster_id, member.node_id, member.metadata_replica_id) == ("c", 7, 0)
    await alone.crash()


async def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    home = Founder(tmp_path, "n0", 1)
    await (await home.start())
    stray = Founder(tmp_path, "n1", 0)
    stray.seeds = (home.address,)
    formation = await stray.open(cluster_id="elsewhere")
    with pytest.raises(NodeRefusedError, match="belongs to cluster elsewhere") as error:
        await formation.run()
    assert error.value.refusal == pb.NODE_REFUSAL_IDENTITY_MISMATCH
    assert "correct --seeds, or start with an empty directory" in error.value.message
    await stray.crash()
    await home.crash()


async def test_a_member_that_is_not_ready_lets_others_wait(tmp_path: Path) -> None:
    home = Founder(tmp_path, "n0", 1)
    await (await home.start())
    async with connect(home.address) as channel:
        stub = grpc_pb.FormationServiceStub(channel)
        answer = await stub.Join(wire.JoinRequest(node=pb.NodeDescription(name="n1")))
    assert "not ready to admit" in answer.wait
    await home.crash()


class Desk:
    """Duties that admit whoever asks, to a cluster of any name."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.asked: list[wire.JoinRequest] = []

    def greeted(self, standing: wire.Standing) -> None:
        del standing

    def hints(self) -> list[wire.PeerHint]:
        return []

    async def admit(self, request: wire.JoinRequest) -> wire.JoinResponse:
        self.asked.append(request)
        return wire.JoinResponse(accepted=wire.JoinAccepted(cluster_id=self.cluster_id, node_id=2))

    async def give_up(self, request: wire.GiveUpRequest) -> wire.GiveUpResponse:
        return wire.GiveUpResponse(spared=request.cluster_id == self.cluster_id)


async def test_a_request_to_join_that_is_meant_for_another_node_is_not_passed_on(
    tmp_path: Path,
) -> None:
    home = Founder(tmp_path, "n0", 1)
    member = await (await home.start())
    home.formation.duties = desk = Desk(member.cluster_id)
    async with connect(home.address) as channel:
        stub = grpc_pb.FormationServiceStub(channel)
        for cluster_id, node_id in (("", 0), ("another", 1), (member.cluster_id, 2)):
            meant = Destination(cluster_id=cluster_id, node_id=node_id)
            answer = await stub.Join(wire.JoinRequest(destination=meant))
            assert f"this is node 1 of cluster {member.cluster_id}, not node" in answer.wait
        assert not desk.asked
        meant = Destination(cluster_id=member.cluster_id, node_id=1)
        assert (await stub.Join(wire.JoinRequest(destination=meant))).HasField("accepted")
    await home.crash()


async def test_a_node_joins_the_cluster_that_it_asked_and_no_other(tmp_path: Path) -> None:
    home = Founder(tmp_path, "n0", 1)
    member = await (await home.start())
    home.formation.duties = desk = Desk("another")
    late = Founder(tmp_path, "n1", 0)
    late.seeds = (home.address,)
    joining = await late.start()
    await until(lambda: len(desk.asked) > 1)
    assert not joining.done()
    assert not late.on_disk.HasField("member")
    meant = Destination(cluster_id=member.cluster_id, node_id=1)
    assert [one.destination for one in desk.asked[:2]] == [meant, meant]
    desk.cluster_id = member.cluster_id
    assert (await joining).cluster_id == member.cluster_id
    await late.crash()
    await home.crash()


def test_a_damaged_record_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "formation.json"
    path.write_text('{"storeUuid": "s", "founding": {')
    with pytest.raises(StoreDamagedError, match=r"formation\.json is damaged"):
        records.load(path, "s")


async def test_a_seed_that_is_a_name_stands_for_all_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()

    async def lookup(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        del port
        if host != "pods":
            raise OSError("no such name")
        rows = [(10, "::1"), (2, "10.0.0.2"), (2, "10.0.0.1")]
        return [(family, 1, 6, "", (address, 0)) for family, address in rows]

    monkeypatch.setattr(loop, "getaddrinfo", lookup)
    found = await resolve(["pods:7071", "gone:7071", "192.0.2.1:1", "[::1]:2"])
    assert found.addresses == ("10.0.0.1:7071", "10.0.0.2:7071", "192.0.2.1:1", "[::1]:2")
    assert found.unresolved == ("gone:7071",)


@pytest.mark.parametrize("seed", ["a..b:7071", f"{'x' * 64}:7071"])
async def test_a_seed_that_cannot_be_a_name_is_one_without_an_address(seed: str) -> None:
    assert (await resolve([seed])).unresolved == (seed,)
