"""Commands find their leader, at most one hop away, and their outcome is told as it is (S22)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.servicer import PeerServicer
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1 import metadata_service_pb2_grpc as grpc_pb
from rakit.peer.v1.metadata_command_pb2 import MetadataCommand
from rakit.peer.v1.node_service_pb2 import Destination
from tests.cluster.harness import free_port
from tests.node.metadata.doubles import FakeHost, FakeProposal
from tests.node.metadata.machines import connect, until
from tests.node.metadata.support import Log


def client_of(host: FakeHost) -> MetadataClient:
    return MetadataClient(host, host.log.registry, lambda: 77)


@asynccontextmanager
async def two_nodes() -> AsyncGenerator[tuple[FakeHost, FakeHost], None]:
    """Node 1, and node 2 that takes commands of others over a real channel."""
    log = Log().found()
    near, far = FakeHost(1, log), FakeHost(2, log)
    server, port = grpc.aio.server(), free_port()
    servicer = PeerServicer()
    servicer.client = client_of(far)
    grpc_pb.add_MetadataPeerServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with connect(f"127.0.0.1:{port}") as channel:
        near.channels[2] = channel
        yield near, far
    await server.stop(None)


def create(name: str = "t") -> MetadataCommand:
    return commands.create_topic(CreateTopicRequest(name=name))


async def test_the_leader_proposes_itself_and_adds_what_the_state_cannot_know() -> None:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    host.up = {1, 3}
    result = await client_of(host).submit(create())
    assert result.topic_changed.create_time_ms == 77
    assert host.proposed[0].create_topic.avoid_node_ids == [2]


async def test_s22_another_node_forwards_to_the_leader() -> None:
    async with two_nodes() as (near, far):
        near.leaders.becomes(2)
        far.leaders.becomes(2)
        near.here.applied = 10
        result = await client_of(near).submit(create())
        assert result.topic_changed.name == "t"
        assert not near.proposed
        assert len(far.proposed) == 1


async def test_s22_a_forwarded_command_is_not_forwarded_again() -> None:
    async with two_nodes() as (near, far):
        near.leaders.becomes(2)
        far.leaders.becomes(3)
        with pytest.raises(RakitError) as error:
            await client_of(near).submit(create(), 0.3)
        assert reason_name(error.value.reason) == "NO_LEADER"
        assert not error.value.may_be_applied
        assert not far.proposed


async def test_a_command_waits_for_a_leader() -> None:
    host = FakeHost(1, Log().found())
    client = client_of(host)
    waiting = asyncio.create_task(client.submit(create()))
    await asyncio.sleep(0)
    assert not waiting.done()
    host.leaders.becomes(1)
    assert (await waiting).topic_changed.name == "t"


async def test_without_a_leader_the_change_was_certainly_not_made() -> None:
    with pytest.raises(RakitError, match="the change was not made") as error:
        await client_of(FakeHost(1, Log().found())).submit(create(), 0.05)
    assert reason_name(error.value.reason) == "NO_LEADER"
    assert not error.value.may_be_applied


async def test_a_lost_proposal_is_made_again_and_counts_once() -> None:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    host.lose = True
    waiting = asyncio.create_task(client_of(host).submit(create()))
    await until(lambda: host.proposed)
    # It was committed after all, though its leader never learned of it.
    host.log.apply(host.proposed[0])
    host.lose = False
    result = await waiting
    assert result.topic_changed.topic_id == 1
    assert host.log.registry.topic_count == 1


async def test_a_proposal_whose_fate_stays_open_is_unknown() -> None:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    host.lose = True
    with pytest.raises(RakitError, match="look before you try again") as error:
        await client_of(host).submit(create(), 0.05)
    assert reason_name(error.value.reason) == "OUTCOME_UNKNOWN"
    assert error.value.may_be_applied


async def test_s22_a_forward_that_breaks_after_sending_is_unknown() -> None:
    log = Log().found()
    near, far = FakeHost(1, log), Keeping(2, log)
    far.leaders.becomes(2)
    near.leaders.becomes(2)
    server, port = grpc.aio.server(), free_port()
    servicer = PeerServicer()
    servicer.client = client_of(far)
    grpc_pb.add_MetadataPeerServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with connect(f"127.0.0.1:{port}") as near.channels[2]:
        submitting = asyncio.create_task(client_of(near).submit(create(), 0.5))
        await until(lambda: far.proposed)
        # The leader's process dies with the command in its log; nobody knows what becomes of it.
        await server.stop(None)
        with pytest.raises(RakitError) as error:
            await submitting
    assert len(far.proposed) == 1
    assert reason_name(error.value.reason) == "OUTCOME_UNKNOWN"
    assert error.value.may_be_applied


class Keeping(FakeHost):
    """A host that takes proposals and does not get on with them."""

    def propose(self, group_id: int, data: bytes) -> FakeProposal:
        assert group_id == METADATA_GROUP_ID
        self.proposed.append(MetadataCommand.FromString(data))
        return FakeProposal((1, 5), asyncio.get_running_loop().create_future())


async def test_a_refusal_is_raised_as_it_was_decided() -> None:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    client = client_of(host)
    await client.submit(create())
    with pytest.raises(RakitError) as error:
        await client.submit(create())
    assert reason_name(error.value.reason) == "TOPIC_EXISTS"
    assert error.value.metadata == {"topic": "t"}


async def test_s22_a_known_topic_needs_no_barrier_an_unknown_one_does() -> None:
    host = FakeHost(1, Log().found())
    host.leaders.becomes(1)
    client = client_of(host)
    await client.submit(create())
    host.barrier_fails = True
    assert (await client.topic("t")).name == "t"
    with pytest.raises(RakitError) as error:
        await client.topic("u", 0.05)
    assert reason_name(error.value.reason) == "NO_QUORUM"
    host.barrier_fails = False
    with pytest.raises(RakitError) as error:
        await client.topic("u")
    assert reason_name(error.value.reason) == "UNKNOWN_TOPIC"


async def test_a_cluster_that_is_being_founded_is_not_read() -> None:
    with pytest.raises(RakitError, match="is being founded") as error:
        await client_of(FakeHost(1, Log())).barrier(0.05)
    assert reason_name(error.value.reason) == "NO_QUORUM"


FOREIGN = pb.FoundCluster(founding=pb.Founding(cluster_id="another"))
NONSENSE = {
    "nothing": MetadataCommand(),
    "something of the future": MetadataCommand.FromString(b"\x92\x03\x00"),
    "another cluster": MetadataCommand(found_cluster=FOREIGN),
    "an unmarked creation": MetadataCommand(create_topic=pb.CreateTopic(name="t")),
    "an unmarked update": MetadataCommand(update_topic=pb.UpdateTopic(name="t")),
    "an unmarked deletion": MetadataCommand(delete_topic=pb.DeleteTopic(name="t")),
}


@pytest.mark.parametrize("case", NONSENSE)
@pytest.mark.parametrize("leader", [1, 2])
async def test_what_makes_no_sense_never_gets_into_the_log(case: str, leader: int) -> None:
    async with two_nodes() as (near, far):
        near.leaders.becomes(leader)
        far.leaders.becomes(leader)
        with pytest.raises(RakitError) as error:
            await client_of(near).submit(NONSENSE[case])
        assert reason_name(error.value.reason) == "INVALID_REQUEST"
        assert not error.value.may_be_applied
        assert not near.proposed
        assert not far.proposed


@pytest.mark.parametrize(
    "meant", [None, Destination(cluster_id="cluster", node_id=1), Destination(node_id=2)]
)
async def test_a_command_for_another_node_or_cluster_is_refused(meant: Destination | None) -> None:
    """An address may belong to somebody else by now."""
    async with two_nodes() as (near, far):
        far.leaders.becomes(2)
        stub = grpc_pb.MetadataPeerServiceStub(near.channels[2])
        answer = await stub.Submit(wire.SubmitRequest(command=create(), destination=meant))
        assert "this is node 2 of cluster cluster, not node" in answer.refused.message
        assert not answer.refused.unknown
        assert not far.proposed


async def test_a_node_that_starts_takes_no_commands() -> None:
    async with two_nodes() as (near, _far):
        server, port = grpc.aio.server(), free_port()
        grpc_pb.add_MetadataPeerServiceServicer_to_server(PeerServicer(), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        near.leaders.becomes(2)
        near.channels[2] = connect(f"127.0.0.1:{port}")
        with pytest.raises(RakitError, match="the node is starting") as error:
            await client_of(near).submit(create(), 0.2)
        assert not error.value.may_be_applied
        await near.channels[2].close()
        await server.stop(None)
