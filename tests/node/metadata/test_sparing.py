"""Whether a cluster can spare a store: only if everything is whole without it (S9)."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rakit.multiraft.machine import replica_id
from rakit.node.filling import Filling
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.sparing import Sparing, is_well_without
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1 import metadata_service_pb2_grpc as grpc_pb
from rakit.peer.v1.node_service_pb2 import Destination
from rakit.raft import ConfState
from tests.node.metadata.machines import TestNode, connect, trio, until
from tests.node.metadata.test_cluster import create, running

ONE, TWO, THREE, NEW = (replica_id(*each) for each in ((1, 1), (2, 1), (3, 1), (1, 9)))
THREE_OF_THEM = ConfState((ONE, TWO, THREE))


@pytest.mark.parametrize(
    ("conf", "whole", "well"),
    [
        pytest.param(THREE_OF_THEM, {ONE, TWO, THREE}, True, id="all are whole"),
        pytest.param(THREE_OF_THEM, {TWO, THREE}, True, id="both others are"),
        pytest.param(THREE_OF_THEM, {ONE, TWO}, False, id="one of the others is not"),
        pytest.param(ConfState((ONE, TWO)), {ONE, TWO}, False, id="one of two is no majority"),
        pytest.param(ConfState((ONE,)), {ONE}, False, id="nobody else votes"),
        pytest.param(ConfState((TWO, THREE)), {TWO, THREE}, True, id="it does not vote"),
        pytest.param(
            ConfState((TWO, THREE), learners=(NEW,)), {TWO, THREE}, True, id="it learns only"
        ),
        pytest.param(
            ConfState((ONE, TWO, THREE), voters_outgoing=(TWO, THREE)),
            {TWO, THREE},
            False,
            id="a joint phase",
        ),
        pytest.param(
            ConfState((ONE, TWO, THREE), learners_next=(NEW,)),
            {TWO, THREE},
            False,
            id="one is to learn next",
        ),
    ],
)
def test_s9_a_group_can_spare_a_replica_while_a_majority_is_whole_without_its_node(
    conf: ConfState, whole: set[int], *, well: bool
) -> None:
    assert is_well_without(conf, {ONE, TWO, THREE, NEW}, 1, whole) is well


def test_s9_the_replica_of_a_store_that_was_replaced_is_no_part_of_what_is_whole() -> None:
    """It is dead, and its leader still knows what it held."""
    four, five = replica_id(4, 1), replica_id(5, 1)
    conf = ConfState((ONE, TWO, THREE, four, five))
    whole = {ONE, TWO, THREE, four}
    assert is_well_without(conf, set(conf.voters), 2, whole)
    replaced = {NEW, TWO, THREE, four, five}
    assert not is_well_without(conf, replaced, 2, whole)


@dataclass
class Case:
    """Three nodes, of which one has ended and asks."""

    nodes: list[TestNode]
    gone: TestNode
    gone_id: int
    cluster_id: str
    store_uuid: str
    group_id: int

    @property
    def leader(self) -> TestNode:
        """Of the metadata group."""
        return next(each for each in self.nodes if leads(each, METADATA_GROUP_ID))

    async def ask(self, of: TestNode, **changes: str | int) -> wire.GiveUpResponse:
        asked = {
            "cluster_id": self.cluster_id,
            "node_id": self.gone_id,
            "store_uuid": self.store_uuid,
        }
        async with connect(of.address) as channel:
            stub = grpc_pb.FormationServiceStub(channel)
            return await stub.GiveUp(wire.GiveUpRequest(**(asked | changes)), timeout=30)  # type: ignore[arg-type]

    async def objection(self) -> str:
        """What the leader says; it does not spare the store."""
        answer = await self.ask(self.leader)
        assert not answer.spared
        return answer.objection


def leads(node: TestNode, group_id: int) -> bool:
    group = node.host.group(group_id)
    return group is not None and group.ready


@asynccontextmanager
async def one_gone(tmp_path: Path, factor: int = 3) -> AsyncGenerator[Case]:
    async with running(trio(tmp_path)) as nodes:
        topic = await create(nodes[0], "t", 1, factor)
        place = topic.partitions[0]
        gone = next(each for each in nodes if place.on_node(each.node_id) is not None)
        case = Case(
            nodes,
            gone,
            gone.node_id,
            gone.host.identity.cluster_id,
            gone.store.store_uuid,
            place.group_id,
        )
        await until(lambda: any(leads(each, place.group_id) for each in nodes))
        nodes.remove(gone)
        await gone.stop()
        await until(lambda: any(leads(each, METADATA_GROUP_ID) for each in nodes))
        await until(lambda: not any(each.host.node_is_up(case.gone_id) for each in nodes))
        yield case


async def test_s9_a_store_is_spared_when_every_group_is_whole_and_led_without_it(
    tmp_path: Path,
) -> None:
    async with one_gone(tmp_path) as case:
        await until(lambda: any(leads(each, case.group_id) for each in case.nodes))
        for asked in case.nodes:
            answer = await case.ask(asked)
            assert answer.spared, answer.objection
            wrong = await case.ask(asked, store_uuid="another")
            assert "does not know that store" in wrong.objection
            strange = await case.ask(asked, cluster_id="another")
            assert not strange.spared
        other = next(each for each in case.nodes if each is not case.leader)
        again = await case.ask(other, forwarded=True)
        assert not again.spared, "one hop at most"


async def test_s9_a_store_of_a_node_that_answers_is_not_spared(tmp_path: Path) -> None:
    async with one_gone(tmp_path) as case:
        living = next(each for each in case.nodes if each is not case.leader)
        for node in case.nodes:
            answer = await case.ask(
                case.leader, node_id=node.node_id, store_uuid=node.store.store_uuid
            )
            assert f"node {node.node_id} still answers" in answer.objection
        assert living.host.quarantined == {}


async def test_s9_what_lies_on_that_node_alone_is_not_spared(tmp_path: Path) -> None:
    async with one_gone(tmp_path, factor=1) as case:
        assert await case.objection() == "1 of its groups have no leader elsewhere"


async def test_s9_a_group_of_two_cannot_spare_either(tmp_path: Path) -> None:
    async with one_gone(tmp_path, factor=2) as case:
        # Whoever is left may lead on for a moment.
        said = await case.objection()
        assert "have no leader elsewhere" in said or "no majority answers" in said


async def test_s9_nothing_is_spared_while_another_node_is_not_well(tmp_path: Path) -> None:
    async with one_gone(tmp_path) as case:
        await until(lambda: any(leads(each, case.group_id) for each in case.nodes))
        assert (await case.ask(case.leader)).spared
        for node in case.nodes:
            node.store._uncompacted = "a bad block"
            assert f"node {node.node_id}: a table of its own" in await case.objection()
            node.store._uncompacted = ""
        assert (await case.ask(case.leader)).spared
        other = next(each for each in case.nodes if each is not case.leader)
        other.host.quarantine(case.group_id, "a reader found damage")
        # Or the group has no leader any more, or no majority: whatever is seen first.
        assert await case.objection()
        await until(lambda: not leads(case.leader, case.group_id))
        assert f"node {other.node_id}: a replica is shut out there" in await case.objection()


async def test_s9_an_answer_for_one_group_twice_is_none_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leadership may move between two answers, and a registry may be behind."""
    async with one_gone(tmp_path, factor=1) as case:
        twice = [METADATA_GROUP_ID, 99]

        async def answer(_self: Sparing, _node_id: int) -> wire.SpareResponse:
            return wire.SpareResponse(group_ids=twice)

        monkeypatch.setattr(Sparing, "_spare", answer)
        assert await case.objection() == "1 of its groups have no leader elsewhere"
        twice.append(case.group_id)
        assert (await case.ask(case.leader)).spared


async def test_s9_nothing_is_spared_while_another_node_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_gone(tmp_path) as case:
        await until(lambda: any(leads(each, case.group_id) for each in case.nodes))

        def three(_self: Filling) -> int:
            return 3

        monkeypatch.setattr(Filling, "missing_count", three)
        assert "3 of its own replicas are being filled" in await case.objection()
        monkeypatch.undo()
        assert (await case.ask(case.leader)).spared


async def test_s9_nothing_is_spared_without_the_answer_of_every_other_node(tmp_path: Path) -> None:
    async with one_gone(tmp_path) as case:
        other = next(each for each in case.nodes if each is not case.leader)
        leader = case.leader
        case.nodes.remove(other)
        await other.stop()
        answer = await case.ask(leader)
        assert not answer.spared
        assert answer.objection


async def test_s9_a_node_answers_for_itself_alone(tmp_path: Path) -> None:
    async with one_gone(tmp_path) as case:
        node = case.leader
        async with connect(node.address) as channel:
            stub = grpc_pb.MetadataPeerServiceStub(channel)
            for cluster_id, node_id in ((case.cluster_id, 99), ("another", node.node_id)):
                meant = Destination(cluster_id=cluster_id, node_id=node_id)
                request = wire.SpareRequest(destination=meant, node_id=case.gone_id)
                answer = await stub.Spare(request, timeout=10)
                assert f"this is node {node.node_id}" in answer.objection
