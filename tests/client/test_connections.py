"""Unary requests find a node that answers; what is known of leaders only gets newer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc.aio
import pytest

from rakit.api.v1.topic_service_pb2 import GetTopicRequest
from rakit.client import ClientConfig, Cluster, Node, NotFoundError, UnavailableError
from rakit.client import connections as module
from rakit.client.config import bootstrap_addresses
from rakit.client.connections import Connections
from rakit.client.errors import OutcomeUnknownError, make_error
from rakit.client.metadata import Metadata, client_addresses
from tests.multiraft.host.support import Cable

from .fake_cluster import FakeCluster

CONFIG = ClientConfig(("127.0.0.1:1",), request_timeout_ms=3_000, attempt_timeout_ms=300)
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def connections(fake: FakeCluster) -> AsyncIterator[Connections]:
    made = Connections(replace(CONFIG, bootstrap=tuple(fake.bootstrap.split(","))))
    yield made
    await made.close()


async def get_topic(connections: Connections, name: str = "t") -> str:
    answer = await connections.call(lambda stubs: stubs.topic.GetTopic, GetTopicRequest(name=name))
    return answer.topic.name


async def test_a_request_goes_on_until_a_node_answers(
    fake: FakeCluster, connections: Connections
) -> None:
    await fake.nodes[1].stop()
    await fake.nodes[3].stop()
    assert await get_topic(connections) == "t"
    # Known by now: no more detours.
    assert connections.pick() == fake.nodes[2].address


async def test_a_node_that_hangs_costs_one_attempt(
    fake: FakeCluster, connections: Connections
) -> None:
    slow = connections.pick()
    hung = next(node for node in fake.nodes.values() if node.address == slow)
    hung.is_hung = True
    started = asyncio.get_running_loop().time()
    assert await get_topic(connections) == "t"
    assert 0.3 <= asyncio.get_running_loop().time() - started < 2


async def test_a_connection_that_was_cut_without_a_word_is_given_up_in_time(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_TIMEOUT_MS", 200)
    cable = await Cable(int(fake.nodes[1].address.rpartition(":")[2])).lay()
    behind = f"127.0.0.1:{cable.port}"
    quick = replace(CONFIG, bootstrap=(behind,), keepalive_ms=200, keepalive_timeout_ms=200)
    connections = Connections(quick)
    try:
        assert await get_topic(connections) == "t"
        fake.nodes[1].is_hung = True
        call = connections.stubs(behind).topic.GetTopic(GetTopicRequest(name="t"))
        cable.cut()
        async with asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError, match="ping timeout"):
                await call
    finally:
        await connections.close()
        await cable.close()


async def test_what_cannot_succeed_is_not_tried_again(connections: Connections) -> None:
    with pytest.raises(NotFoundError):
        await get_topic(connections, "nowhere")


async def test_when_every_node_hangs_the_outcome_is_unknown(
    fake: FakeCluster, connections: Connections
) -> None:
    for node in fake.nodes.values():
        node.is_hung = True
    with pytest.raises(OutcomeUnknownError) as caught:
        await connections.call(
            lambda stubs: stubs.topic.GetTopic, GetTopicRequest(name="t"), timeout_ms=700
        )
    assert caught.value.maybe_applied


async def test_without_any_node_patience_is_shorter() -> None:
    connections = Connections(replace(CONFIG, unreachable_timeout_ms=200))
    started = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError, match=f"no node answers at {NOBODY}:"):
        await get_topic(connections)
    assert asyncio.get_running_loop().time() - started < 2
    await connections.close()


async def test_addresses_of_the_bootstrap_list_are_never_forgotten(
    connections: Connections, fake: FakeCluster
) -> None:
    connections.learn(["10.0.0.1:7070"])
    bootstrap = fake.bootstrap.split(",")
    for address in bootstrap:
        connections.failed(address)
    assert connections.pick() == "10.0.0.1:7070"
    connections.learn([])
    assert connections.pick() == bootstrap[0]


async def test_an_address_that_never_served_is_asked_less_often_than_the_balancer(
    connections: Connections, fake: FakeCluster
) -> None:
    connections.learn(["10.0.0.1:7070", "10.0.0.2:7070"])
    connections.served("10.0.0.2:7070")
    bootstrap = fake.bootstrap.split(",")
    for address in ("10.0.0.1:7070", "10.0.0.2:7070", *bootstrap):
        connections.failed(address)
    assert connections.pick() == "10.0.0.2:7070", "it served, and failed first of those that did"
    connections.learn([*bootstrap, "10.0.0.1:7070"])
    assert connections.pick() in bootstrap
    for address in bootstrap:
        connections.served(address)
        connections.failed(address)
    # Behind a balancer one failure says little about the next attempt.
    assert connections.pick() in bootstrap


def test_addresses_come_from_the_flag_else_the_environment_else_the_default() -> None:
    environ = {"RAKIT_BOOTSTRAP": "a:1, b:2"}
    assert bootstrap_addresses("c:3", environ) == ("c:3",)
    assert bootstrap_addresses(None, environ) == ("a:1", "b:2")
    assert bootstrap_addresses(None, {}) == ("127.0.0.1:7070",)
    with pytest.raises(ValueError, match="'nonsense' is not host:port"):
        ClientConfig(("nonsense",))


def test_nodes_are_reached_by_the_listener_that_the_bootstrap_list_uses() -> None:
    def node(number: int, *, is_up: bool = True) -> Node:
        inner, outer = f"10.0.0.{number}:7070", f"public-{number}:443"
        addresses = (("default", inner), ("public", outer))
        return Node(number, f"n{number}", "", is_up, addresses, "", "", 0, 0)

    cluster = Cluster("c", (node(1), node(2, is_up=False), node(3)), 1, 0, 0, 0)
    assert client_addresses(cluster.nodes, ("public-1:443",)) == ["public-1:443", "public-3:443"]
    for bootstrap in ("10.0.0.2:7070", "balancer:7070"):
        assert client_addresses(cluster.nodes, (bootstrap,)) == ["10.0.0.1:7070", "10.0.0.3:7070"]


async def test_of_two_statements_about_a_leader_the_later_term_wins(
    fake: FakeCluster, connections: Connections
) -> None:
    metadata = Metadata(connections, ())
    await metadata.topic("t")
    first, second = fake.nodes[1].address, fake.nodes[2].address

    def hint(address: str, term: int) -> bool:
        told = {"leader_node_id": "2", "leader_address": address, "leader_term": str(term)}
        return metadata.learn_leader(make_error("NOT_LEADER", "text", told), "t", 0)

    assert metadata.leader_address("t", 0) == first
    assert not hint(second, 0)
    assert metadata.leader_address("t", 0) == first
    assert hint(second, 5)
    assert metadata.leader_address("t", 0) == second
    # A node that lags behind still names the old leader.
    await metadata.refresh("t")
    assert metadata.leader_address("t", 0) == second
    metadata.forget_leader("t", 0, first)
    assert metadata.leader_address("t", 0) == second
    metadata.forget_leader("t", 0, second)
    assert metadata.leader_address("t", 0) == ""
    assert not metadata.learn_leader(make_error("NO_LEADER", "text"), "t", 0)


async def test_one_question_serves_all_who_ask(fake: FakeCluster, connections: Connections) -> None:
    metadata = Metadata(connections, ())
    first, *others = [asyncio.create_task(metadata.refresh("t")) for _ in range(20)]
    await asyncio.sleep(0)
    # One that gives up takes nothing away from the others.
    first.cancel()
    await asyncio.gather(*others)
    assert sum(node.topic_questions for node in fake.nodes.values()) == 1
    await metadata.close()
