"""Three processes on loopback: kills, restarts and moves, with data that must survive them."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from rakit.api.v1.cluster_service_pb2 import (
    GetClusterRequest,
    GetDigestRequest,
    TransferLeadershipRequest,
)
from rakit.api.v1.log_service_pb2 import (
    FetchRequest,
    GetOffsetsRequest,
    InitProducerRequest,
    Position,
    ProduceRequest,
    ProducerStamp,
    ReadRequest,
    ReadResponse,
)
from rakit.api.v1.record_pb2 import Record, Records, Rows
from rakit.api.v1.topic_service_pb2 import GetTopicRequest
from tests.cluster.harness import Cluster, NodeProcess, cluster_of, free_port, read_all, until
from tests.node.services.served import refusal_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
NAMES = ("a", "b", "c")


def batch(topic: str, value: bytes, partition: int = 0) -> ProduceRequest:
    rows = Rows(records=[Record(value=value)])
    return ProduceRequest(topic=topic, partition=partition, rows=rows)


async def put(node: NodeProcess, topic: str, value: bytes, partition: int = 0) -> int:
    return (await node.log.Produce(batch(topic, value, partition), timeout=10)).base_offset


class Writer:
    """Produces one batch after the other through one node, as an idempotent producer does.

    Whatever happened to an attempt, it is repeated with the same sequence until it is acknowledged.
    """

    def __init__(self, nodes: list[NodeProcess], topic: str, name: str = "writer") -> None:
        self.name = name
        self.nodes = nodes
        self.topic = topic
        self.acknowledged: list[bytes] = []
        self.longest_gap_s = 0.0
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    async def run(self) -> None:
        producer = await self.nodes[0].log.InitProducer(
            InitProducerRequest(producer_name=self.name), timeout=10
        )
        loop = asyncio.get_running_loop()
        last = loop.time()
        sequence = 0
        while not self._stop:
            sequence += 1
            value = b"%d" % sequence
            stamp = ProducerStamp(
                producer_id=producer.producer_id,
                epoch=producer.epoch,
                sequence=sequence,
                previous_sequence=sequence - 1,
            )
            request = ProduceRequest(
                topic=self.topic, partition=0, columns=Records(values=[value]), producer=stamp
            )
            await self._acknowledged(request)
            self.acknowledged.append(value)
            self.longest_gap_s = max(self.longest_gap_s, loop.time() - last)
            last = loop.time()

    async def _acknowledged(self, request: ProduceRequest) -> None:
        for attempt in range(1000):
            node = self.nodes[attempt % len(self.nodes)]
            try:
                await node.log.Produce(request, timeout=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
            else:
                return
        raise AssertionError("a thousand attempts failed")

    async def has(self, count: int) -> bool:
        return len(self.acknowledged) >= count


async def same_on_all(cluster: Cluster, topic: str, replicas: int = 3, partition: int = 0) -> None:
    """Waits until every replica holds the same bytes (P9)."""

    async def compare() -> bool:
        node = next(each for each in cluster.nodes.values() if each.process is not None)
        request = GetDigestRequest(topic=topic, partition=partition)
        answer = await node.cluster.GetDigest(request, timeout=10)
        digests = [each.digest for each in answer.replicas if not each.error]
        assert len(set(digests)) <= 1, answer
        return len(digests) == replicas

    await until(f"{replicas} equal replicas", compare)


async def test_a_cluster_serves_and_survives_what_happens_to_its_nodes(tmp_path: Path) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        cluster.start()
        await cluster.ready()
        topic = await cluster.create("t")
        assert len(topic.partitions[0].replicas) == 3
        await any_node_takes_a_batch(cluster)
        shared = await callers_on_any_node_share_entries(cluster)
        await the_leader_is_killed_under_load(cluster)
        await the_leader_is_paused(cluster)
        await all_nodes_restart(cluster)
        assert await read_all(cluster.nodes["b"], "shared") == shared
        await nodes_are_stopped_in_turn_under_load(cluster)
        await a_node_moves(cluster)
        await one_node_reads_what_all_lead(cluster)
        await a_leadership_moves_on_request(cluster)
        await without_a_majority_errors_are_true(cluster)


async def any_node_takes_a_batch(cluster: Cluster) -> None:
    """Produce through a node that does not lead is forwarded; leader_only gives the hint."""
    leader = await cluster.leader("t")
    for number, node in enumerate(cluster.nodes.values()):
        assert await put(node, "t", b"any %d" % number) == number
    other = cluster.others(leader)[0]
    request = batch("t", b"x")
    request.leader_only = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.log.Produce(request, timeout=10)
    refusal = refusal_of(caught.value)
    assert (refusal.reason, refusal.outcome) == ("NOT_LEADER", "NOT_APPLIED")
    assert refusal.metadata["leader_address"] == leader.address
    for node in cluster.nodes.values():
        assert await read_all(node, "t") == [b"any 0", b"any 1", b"any 2"]


async def callers_on_any_node_share_entries(cluster: Cluster) -> list[bytes]:
    """Each with a producer of its own; returns what is stored, in its order."""
    await cluster.create("shared")
    nodes = list(cluster.nodes.values())
    entries: set[tuple[int, int]] = set()
    stored: dict[int, bytes] = {}

    async def call(number: int) -> None:
        node = nodes[number % len(nodes)]
        producer = await node.log.InitProducer(InitProducerRequest(), timeout=10)
        for sequence in range(1, 11):
            request = batch("shared", b"%d of %d" % (sequence, number))
            request.producer.producer_id = producer.producer_id
            request.producer.epoch = producer.epoch
            request.producer.sequence = sequence
            request.producer.previous_sequence = sequence - 1
            answer = await node.log.Produce(request, timeout=10)
            again = await node.log.Produce(request, timeout=10)
            assert (answer.duplicate, again.duplicate) == (False, True)
            assert (again.base_offset, again.index) == (answer.base_offset, answer.index)
            entries.add((answer.term, answer.index))
            stored[answer.base_offset] = request.rows.records[0].value

    await asyncio.gather(*(call(number) for number in range(24)))
    assert sorted(stored) == list(range(240))
    assert len(entries) < 240, "calls that come together share entries"
    values = [stored[offset] for offset in range(240)]
    for node in nodes:
        assert await read_all(node, "shared") == values
    return values


async def the_leader_is_killed_under_load(cluster: Cluster) -> None:
    """P1, P3: nothing acknowledged is lost, nothing is stored twice; the killed node rejoins."""
    leader = await cluster.leader("t")
    before = await read_all(leader, "t")
    writer = Writer(cluster.others(leader), "t")
    writing = asyncio.create_task(writer.run())
    await until("some writes", lambda: writer.has(100))
    leader.kill()
    killed_at = len(writer.acknowledged)
    await until("writes after the kill", lambda: writer.has(killed_at + 100))
    cluster.start(leader.name)
    await cluster.ready()
    writer.stop()
    await writing
    assert await read_all(leader, "t") == before + writer.acknowledged
    await same_on_all(cluster, "t")
    assert writer.longest_gap_s < 5


async def the_leader_is_paused(cluster: Cluster) -> None:
    """A leader that stands still is replaced, and finds its place again when it wakes (S16)."""
    leader = await cluster.leader("t")
    other = cluster.others(leader)[0]
    before = await read_all(other, "t")
    leader.pause()
    await until("a write without the paused leader", lambda: wrote(other, b"while paused"))
    leader.resume()
    await until("a write through the woken node", lambda: wrote(leader, b"after the pause"))
    values = (await read_all(leader, "t"))[len(before) :]
    assert set(values) == {b"while paused", b"after the pause"}


async def wrote(node: NodeProcess, value: bytes) -> bool:
    await put(node, "t", value)
    return True


async def all_nodes_restart(cluster: Cluster) -> None:
    """Everything is there after all nodes were stopped, and after all were killed at once."""
    first = cluster.nodes["a"]
    before = await read_all(first, "t")
    codes = await asyncio.gather(*(node.stop() for node in cluster.nodes.values()))
    assert codes == [0, 0, 0], [node.tail for node in cluster.nodes.values()]
    cluster.start()
    await cluster.ready()
    assert await read_all(first, "t") == before
    offset = await put(first, "t", b"after the stop")
    assert offset == len(before)
    for node in cluster.nodes.values():
        node.kill()
    cluster.start()
    await cluster.ready()
    assert await read_all(first, "t") == [*before, b"after the stop"]


async def nodes_are_stopped_in_turn_under_load(cluster: Cluster) -> None:
    """As a rolling update does; calls go on at any node, also at one that hands over (S14)."""
    await cluster.create("rolled")
    nodes = list(cluster.nodes.values())
    writers = [Writer(nodes[at % 3 :] + nodes[: at % 3], "rolled", f"{at}") for at in range(24)]
    writing = [asyncio.create_task(writer.run()) for writer in writers]
    for node in nodes:
        counts = [len(writer.acknowledged) for writer in writers]
        for writer, count in zip(writers, counts, strict=True):
            await until("writes before the stop", partial(writer.has, count + 10))
        assert await node.stop() == 0, node.tail
        cluster.start(node.name)
        await cluster.ready()
    for writer in writers:
        writer.stop()
    await asyncio.gather(*writing)
    stored = await read_all(nodes[0], "rolled")
    assert len(stored) == sum(len(writer.acknowledged) for writer in writers)
    await same_on_all(cluster, "rolled")


async def a_node_moves(cluster: Cluster) -> None:
    """A node that comes back at other addresses is found there."""
    node = cluster.nodes["c"]
    assert await node.stop() == 0
    await node.close()
    seeds = cluster.seeds
    node.client_port, node.peer_port = free_port(), free_port()
    node.start(seeds, 3)
    await cluster.ready()
    answer = await cluster.nodes["a"].cluster.GetCluster(GetClusterRequest(), timeout=5)
    moved = next(each for each in answer.nodes if each.name == "c")
    assert (moved.peer_address, moved.addresses[0].address) == (node.peer_address, node.address)
    await put(node, "t", b"from the new place")
    await same_on_all(cluster, "t")


async def one_node_reads_what_all_lead(cluster: Cluster) -> None:
    """Fetch and Read join partitions of different leaders, and wait for news from any."""
    topic = await cluster.create("spread", partitions=6)
    assert len({each.leader_node_id for each in topic.partitions}) == 3, "leaders are even"
    node = cluster.nodes["a"]
    positions = [Position(topic="spread", partition=number) for number in range(6)]
    follow = node.log.Read(ReadRequest(positions=positions, follow=True), timeout=30)
    await follow.initial_metadata()
    stored = Records(values=[b"value"]).ByteSize()
    for number in range(6):
        request = FetchRequest(
            positions=positions, max_wait_ms=20_000, min_bytes=1 + number * stored
        )
        polling = asyncio.ensure_future(node.log.Fetch(request, timeout=30))
        await put(cluster.nodes["b"], "spread", b"value", partition=number)
        answer = await follow.read()
        assert isinstance(answer, ReadResponse)
        assert (answer.data.partition, answer.data.records[0].value) == (number, b"value")
        fetched = await polling
        assert sum(len(each.records) for each in fetched.partitions) == number + 1
    follow.cancel()
    assert await read_all(node, "spread", 6) == [b"value"] * 6
    latest = await node.log.GetOffsets(GetOffsetsRequest(topic="spread"), timeout=10)
    assert [each.latest for each in latest.partitions] == [1] * 6


async def a_leadership_moves_on_request(cluster: Cluster) -> None:
    """Asked through any node; produce through a node that led until now goes on."""
    for node in cluster.nodes.values():
        before = await cluster.leader("t")
        request = TransferLeadershipRequest(topic="t")
        answer = await node.cluster.TransferLeadership(request, timeout=10)
        await put(before, "t", b"after the transfer")
        after = await cluster.leader("t")
        assert after is not before
        assert answer.leader_node_id


async def without_a_majority_errors_are_true(cluster: Cluster) -> None:
    """Two of three nodes are gone: nothing is promised, GetCluster still answers."""
    node = await cluster.leader("t")
    count = len(await read_all(node, "t"))
    for other in cluster.others(node):
        other.kill()
    reasons: set[str] = set()
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.log.Produce(batch("t", b"in doubt"), timeout=4)
        refusal = refusal_of(caught.value)
        assert refusal.outcome == (
            "UNKNOWN" if refusal.reason == "OUTCOME_UNKNOWN" else "NOT_APPLIED"
        )
        reasons.add(refusal.reason)
    assert reasons <= {"OUTCOME_UNKNOWN", "NO_LEADER"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.topics.GetTopic(GetTopicRequest(name="t"), timeout=2)
    assert refusal_of(caught.value).reason == "NO_QUORUM"
    answer = await node.cluster.GetCluster(GetClusterRequest(), timeout=2)
    assert sorted(each.state for each in answer.nodes) == [1, 2, 2]
    cluster.start(*(other.name for other in cluster.others(node)))
    await cluster.ready()
    values = (await read_all(node, "t"))[count:]
    assert values in ([], [b"in doubt"]), "at most the one whose outcome was unknown"


async def test_nodes_join_and_a_lost_disk_is_replaced(tmp_path: Path) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        cluster.start()
        await cluster.ready()
        await cluster.create("t")
        for number in range(10):
            await put(cluster.nodes["a"], "t", b"%d" % number)
        await a_fourth_node_joins(cluster)
        await a_living_node_keeps_its_name(cluster)
        await a_lost_disk_is_replaced(cluster)


async def a_fourth_node_joins(cluster: Cluster) -> None:
    cluster.add("d")
    cluster.start("d")
    await cluster.ready()
    topic = await cluster.create("on-four", partitions=4)
    holders = {each.node_id for part in topic.partitions for each in part.replicas}
    assert len(holders) == 4, "replicas are spread over all nodes"
    assert len(await read_all(cluster.nodes["d"], "t")) == 10


async def a_living_node_keeps_its_name(cluster: Cluster) -> None:
    """S11: a second node with the name of a living one is refused with exit code 12."""
    twin = NodeProcess("b", cluster.directory / "twin")
    twin.directory.mkdir()
    twin.start(cluster.seeds, 3)
    assert await twin.ended() == 12, twin.tail
    text = twin.output.splitlines()[-1]
    assert text.startswith("rakit: two living nodes with one name: node ")
    assert "is called 'b', lives at" in text
    assert "start this node with another --name" in text


async def a_lost_disk_is_replaced(cluster: Cluster) -> None:
    """S11: an empty disk under a dead node's name is admitted, and its replicas are rebuilt."""
    node = cluster.nodes["b"]
    node.kill()
    shutil.rmtree(node.data_dir)
    cluster.start("b")
    await cluster.ready()
    await same_on_all(cluster, "t")
    request = GetTopicRequest(name="t")

    async def votes_again() -> bool:
        answer = await node.topics.GetTopic(request, timeout=5)
        return [each.role for each in answer.topic.partitions[0].replicas] == [1, 1, 1]

    await until("the new replica votes", votes_again)
    assert await read_all(node, "t") == [b"%d" % number for number in range(10)]
