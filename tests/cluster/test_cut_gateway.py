"""A node is cut off from the others by its network, and the members on its gateway still reach it.

Nothing tells it: no connection is reset and no process stands still, as it does in
`test_group_members`. Its members end by what they were promised, before others get what they had.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from rakit.api.v1.group_service_pb2 import (
    CommitOffsetsRequest,
    OffsetCommit,
    SubscribeResponse,
)
from tests.cluster.harness import Cluster, NodeProcess, cluster_of
from tests.cluster.network import Network, require_networks
from tests.cluster.test_group_members import JOIN, Producer, eventually, seen_by, share, started
from tests.cluster.test_groups import PARTITIONS, TOPIC, described, group_coordinated_by
from tests.node.groups.consumer import Consumer
from tests.node.groups.history import History
from tests.node.services.served import Refusal, refusal_of

# One switch at a time: two of them in one process tree would only wait for each other's cores.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("network"),
]
NAMES = ("a", "b", "c")


@pytest.fixture
def network() -> Iterator[Network]:
    require_networks()
    with Network(NAMES) as network:
        yield network


def place(cluster: Cluster, network: Network) -> None:
    for name, node in cluster.nodes.items():
        node.host, node.command = network.host(name), network.command(name)


async def commit_refused(node: NodeProcess, request: CommitOffsetsRequest) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.groups.CommitOffsets(request, timeout=20)
    return refusal_of(refused.value)


def heard_first(consumer: Consumer, partitions: set[int], of: Consumer) -> list[bool]:
    """Of each time that a consumer is given such partitions: whether another's stream had ended."""
    assert consumer.stream is not None
    heard = consumer.stream.on_event
    ended: list[bool] = []

    def note(event: SubscribeResponse) -> None:
        if partitions & {each.partition for each in event.assigned.added}:
            ended.append(bool(of.refusals))
        heard(event)

    consumer.stream.on_event = note
    return ended


@pytest.mark.parametrize("coordinators", [("a", "b"), ("c",)], ids=["beyond", "cut-off-as-well"])
async def test_s25_p5_a_gateway_behind_a_cut_ends_before_others_own_and_commits_nothing_after(
    network: Network, tmp_path: Path, coordinators: tuple[str, ...]
) -> None:
    async with cluster_of(tmp_path / "cut", *NAMES) as cluster:
        place(cluster, network)
        await started(tmp_path, cluster)
        a, b, c = cluster.nodes.values()
        history = History()
        name = await group_coordinated_by(cluster, *(cluster.nodes[each] for each in coordinators))
        join = JOIN | {"group": name}
        stays, cut = consumers = [Consumer([each.groups], history, join) for each in (a, c)]
        producer = Producer([a, b])
        try:
            for each in consumers:
                each.start()
            await share(consumers)
            await eventually("it has committed", lambda: cut.owned <= cut.committed.keys())
            lost, old_id = set(cut.owned), cut.id
            members = (await described(a, name)).members
            (epoch,) = [each.member_epoch for each in members if each.member_id == old_id]
            had_ended = heard_first(stays, lost, of=cut)
            network.cut_off("c", "ab")
            for partition in lost:
                # Sent over a connection that works, to a node that cannot pass it on.
                cut.commit(TOPIC, partition, 0)
            await eventually("its stream ends", lambda: bool(cut.refusals))
            await eventually("its share moves", lambda: len(stays.owned) == PARTITIONS)
            assert all(had_ended), "its stream ended before another had its share"
            (first, *_) = cut.refusals
            assert first is not None
            assert first.reason == "NODE_UNAVAILABLE"

            one = OffsetCommit(topic=TOPIC, partition=min(lost), offset=0)
            request = CommitOffsetsRequest(
                group=name, member_id=old_id, member_epoch=epoch, offsets=[one]
            )
            refused = await commit_refused(c, request)
            assert refused.reason in {"NO_LEADER", "NODE_UNAVAILABLE", "OUTCOME_UNKNOWN"}, refused
            for node in (a, b):
                assert (await commit_refused(node, request)).reason == "MEMBER_FENCED"
            network.heal()
            await share(consumers)
            assert cut.id != old_id, "the old session was over"
            for node in (a, b, c):
                assert (await commit_refused(node, request)).reason == "MEMBER_FENCED"
            await producer.stop()
            await eventually("nothing is lost", lambda: producer.values <= seen_by(*consumers))
            group = await described(b, name)
            assert all(each.committed_offset > 0 for each in group.partitions), group
            assert history.violations == []
        finally:
            await producer.stop()
            for each in consumers:
                await each.stop()
