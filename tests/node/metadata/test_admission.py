"""S11: who takes the place of whom is found out, and in doubt nobody takes anybody's place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rakit.multiraft.hello import FEATURE_LEVEL, Rollback
from rakit.node.metadata.admission import Admission, AdmissionConfig
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.greeter import Greeter
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.machines import connect
from tests.node.metadata.support import Log, describe, register

ME = wire.Standing(node=describe("n1"), state=wire.FORMATION_STATE_MEMBER, cluster_id="cluster")


class FakeGreeter(Greeter):
    """Finds a store at an address, or nobody."""

    def __init__(self) -> None:
        super().__init__(connect, 1)
        self.at: dict[str, str] = {}
        #: The start of whoever is there; 0: its groups have not been started.
        self.boot_epoch = 0

    async def greet(self, address: str, standing: wire.Standing) -> wire.GreetResponse | None:
        assert standing == ME
        if address not in self.at:
            return None
        found = wire.Standing(node=describe("somebody", store=self.at[address]))
        found.boot_epoch = self.boot_epoch
        return wire.GreetResponse(standing=found)


@dataclass
class Desk:
    """Node 1 leads; node 2 is the one whose place a newcomer wants."""

    host: FakeHost
    greeter: FakeGreeter
    admission: Admission
    now_ms: list[int]

    async def ask(
        self,
        node: pb.NodeDescription,
        *,
        forwarded: bool = False,
        node_id: int = 0,
        boot_epoch: int = 0,
        feature_level: int = 0,
    ) -> wire.JoinResponse:
        request = wire.JoinRequest(
            node=node,
            forwarded=forwarded,
            node_id=node_id,
            boot_epoch=boot_epoch,
            feature_level=feature_level,
        )
        return await self.admission.admit(request, ME, [wire.PeerHint(node_id=1, address="n1")])


def desk(leader_settles_ms: int = 0) -> Desk:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    host.here.ready = True
    now_ms = [1_000_000]
    client = MetadataClient(host, host.log.registry, lambda: now_ms[0])
    greeter = FakeGreeter()
    config = AdmissionConfig(leader_settles_ms=leader_settles_ms)
    admission = Admission(config, host, client, greeter, lambda: now_ms[0])
    return Desk(host, greeter, admission, now_ms)


NEWCOMER = describe("n2", store="fresh")


@pytest.mark.parametrize(
    ("node", "node_id"),
    [(describe("n4"), 0), (describe("n2"), 2)],
    ids=["a new one", "one that went back to it"],
)
async def test_who_runs_an_earlier_version_than_the_cluster_writes_is_told_to_end(
    node: pb.NodeDescription, node_id: int
) -> None:
    it = desk()
    it.host.log.do(register(describe("n2")))
    assert (await it.ask(node, node_id=node_id)).HasField("accepted"), "the level is the first"
    level = pb.RaiseFeatureLevel(feature_level=FEATURE_LEVEL)
    it.host.log.do(pb.MetadataCommand(raise_feature_level=level))
    for told in (0, FEATURE_LEVEL - 1):
        answer = await it.ask(node, node_id=node_id, feature_level=told)
        assert answer.refused.node_refusal == pb.NODE_REFUSAL_VERSION_TOO_OLD
        assert "does not read what this cluster writes" in answer.refused.message
    for told in (FEATURE_LEVEL, FEATURE_LEVEL + 1):
        answer = await it.ask(node, node_id=node_id, feature_level=told)
        assert answer.HasField("accepted")


async def test_a_new_name_is_admitted_and_told_where_the_others_are() -> None:
    answer = await desk().ask(describe("n4"))
    assert answer.accepted.cluster_id == "cluster"
    assert answer.accepted.node_id == 4
    assert [one.address for one in answer.accepted.peers] == ["n1"]


async def test_a_store_that_nobody_finds_is_replaced() -> None:
    at = desk()
    answer = await at.ask(NEWCOMER)
    assert answer.accepted.node_id == 2
    assert at.host.log.registry.nodes[2].store_uuid == "fresh"


async def test_a_store_that_answers_is_alive_whatever_the_links_say() -> None:
    at = desk()
    at.greeter.at["n2:7071"] = "store-n2"
    answer = await at.ask(NEWCOMER)
    assert answer.refused.node_refusal == pb.NODE_REFUSAL_NAME_TAKEN
    assert "two living nodes with one name" in answer.refused.message


async def test_a_store_whose_links_still_stand_may_be_alive() -> None:
    at = desk()
    at.host.up.add(2)
    assert "may still be alive" in (await at.ask(NEWCOMER)).wait
    at.host.up.discard(2)
    assert (await at.ask(NEWCOMER)).HasField("accepted")


async def test_a_leader_that_knows_nobody_yet_declares_nobody_dead() -> None:
    assert "may still be alive" in (await desk(leader_settles_ms=60_000).ask(NEWCOMER)).wait


async def test_a_node_that_was_admitted_a_moment_ago_may_not_listen_yet() -> None:
    at = desk()
    at.host.log.do(register(describe("n4", address="n4:7071")), time_ms=at.now_ms[0] - 1)
    twin = describe("n4", store="other")
    assert "may still be alive" in (await at.ask(twin)).wait
    # Another store at its address is proof that it is not there.
    at.greeter.at["n4:7071"] = "other"
    assert (await at.ask(twin)).HasField("accepted")


async def test_nobody_takes_the_place_of_the_leader() -> None:
    answer = await desk().ask(describe("n1", store="fresh"))
    assert answer.refused.node_refusal == pb.NODE_REFUSAL_NAME_TAKEN


async def test_a_replaced_store_is_told_so_though_its_successor_lives() -> None:
    at = desk()
    assert (await at.ask(NEWCOMER)).HasField("accepted")
    at.host.up.add(2)
    answer = await at.ask(describe("n2"))
    assert answer.refused.node_refusal == pb.NODE_REFUSAL_STORE_REPLACED


@pytest.mark.parametrize(("leader", "forwarded"), [(0, False), (3, True)])
async def test_s22_without_a_leader_at_hand_the_newcomer_asks_again(
    leader: int, forwarded: bool
) -> None:
    at = desk()
    at.host.leaders.becomes(leader)
    answer = await at.ask(NEWCOMER, forwarded=forwarded)
    assert "leader" in answer.wait
    assert not at.host.proposed


async def test_a_leader_that_is_not_ready_admits_nobody() -> None:
    at = desk()
    at.host.here.ready = False
    assert "getting ready" in (await at.ask(describe("n4"))).wait


MOVED = describe("n2", address="elsewhere:7071")


async def test_a_node_that_moved_is_registered_where_it_is_now() -> None:
    at = desk()
    # Somebody else has its old address, or nobody.
    for old in ({}, {"n2:7071": "a stranger"}):
        at.greeter.at = old
        at.greeter.boot_epoch = 5
        answer = await at.ask(MOVED, node_id=2, boot_epoch=9)
        assert answer.accepted.node_id == 2
        assert at.host.log.registry.nodes[2].peer_address == "elsewhere:7071"
        at.host.log.do(register(describe("n2"), node_id=2))


async def test_a_node_that_asks_again_from_where_it_is_registered_is_itself() -> None:
    at = desk()
    at.greeter.at["n2:7071"] = "store-n2"
    at.greeter.boot_epoch = 9
    at.host.boot_epochs[2] = 9
    assert (await at.ask(describe("n2"), node_id=2, boot_epoch=9)).HasField("accepted")


async def test_s11_a_copy_of_a_living_nodes_directory_is_refused_and_changes_nothing() -> None:
    at = desk()
    at.greeter.at["n2:7071"] = "store-n2"
    at.greeter.boot_epoch = 5
    for epoch in (0, 4, 9):
        answer = await at.ask(MOVED, node_id=2, boot_epoch=epoch)
        assert answer.refused.node_refusal == pb.NODE_REFUSAL_STORE_IN_USE
        assert "two living nodes with one name: node 2, 'n2', runs at n2:7071" in (
            answer.refused.message
        )
    assert not at.host.proposed


async def test_s11_of_two_processes_that_start_at_once_none_is_cut_off_in_doubt() -> None:
    at = desk()
    # The one at the registered address has not got as far as its groups.
    at.greeter.at["n2:7071"] = "store-n2"
    assert "is starting at n2:7071" in (await at.ask(MOVED, node_id=2, boot_epoch=9)).wait
    # Nobody is found there, but somebody talks to this node as node 2.
    at.greeter.at.clear()
    at.host.boot_epochs[2] = 5
    assert "still answers as node 2" in (await at.ask(MOVED, node_id=2, boot_epoch=9)).wait
    assert not at.host.proposed
    at.host.boot_epochs.clear()
    assert (await at.ask(MOVED, node_id=2, boot_epoch=9)).HasField("accepted")


@pytest.mark.parametrize("leader", [1, 3])
async def test_s7_a_store_that_went_back_is_refused_by_whoever_remembers(leader: int) -> None:
    at = desk()
    at.host.leaders.becomes(leader)
    at.host.rollback = Rollback(2, "store-n2", remembered=500, opened=400)
    answer = await at.ask(describe("n2"), node_id=2, boot_epoch=9)
    assert answer.refused.node_refusal == pb.NODE_REFUSAL_STORE_ROLLED_BACK
    assert (
        "went back in time: it had synced 500 writes and came back with 400"
        in answer.refused.message
    )
    assert "move its data directory away and start it with an empty one" in answer.refused.message
    assert not at.host.proposed
