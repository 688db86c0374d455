"""Consumer groups in a cluster of processes: the coordinator is killed, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rakit.api.v1 import group_service_pb2 as api
from rakit.api.v1.cluster_service_pb2 import GetClusterRequest
from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.api.v1.record_pb2 import Record, Rows
from tests.cluster.harness import LIMIT_S, Cluster, NodeProcess, cluster_of, until

TOPIC = "work"
PARTITIONS = 6


class Member:
    """A member on a stream, with everything that it was told."""

    def __init__(self, node: NodeProcess, group: str) -> None:
        self.call = node.groups.Subscribe()
        self.group = group
        self.owned: set[int] = set()
        self.committed: dict[int, int] = {}
        self._tag = 0
        self._waiting: dict[int, asyncio.Future[api.Committed]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def join(self) -> None:
        join = api.JoinGroup(group=self.group, topics=[TOPIC], credit_bytes=1 << 20)
        await self.call.write(api.SubscribeRequest(join=join))
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.call:
            match event.WhichOneof("event"):
                case "assigned":
                    self.owned = {each.partition for each in event.assigned.owned}
                case "revoking":
                    done = api.RevokeDone(partitions=event.revoking.partitions)
                    self.owned -= {each.partition for each in event.revoking.partitions}
                    await self.call.write(api.SubscribeRequest(revoked=done))
                case "committed":
                    self._waiting.pop(event.committed.tag).set_result(event.committed)
                case _:
                    pass

    async def commit(self, offset: int) -> None:
        """Commits everything that it owns; notes what was acknowledged."""
        self._tag += 1
        done = self._waiting[self._tag] = asyncio.get_running_loop().create_future()
        partitions = sorted(self.owned)
        offsets = [
            api.OffsetCommit(topic=TOPIC, partition=each, offset=offset) for each in partitions
        ]
        request = api.CommitRequest(tag=self._tag, offsets=offsets)
        await self.call.write(api.SubscribeRequest(commit=request))
        committed = await asyncio.wait_for(done, LIMIT_S)
        if committed.HasField("error") or committed.errors:
            return
        self.committed.update(dict.fromkeys(partitions, offset))

    async def close(self) -> None:
        self.call.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


async def described(node: NodeProcess, group: str) -> api.Group:
    answer = await node.groups.GetGroup(api.GetGroupRequest(group=group), timeout=5)
    return answer.group


def assignment(group: api.Group) -> dict[str, list[int]]:
    return {each.member_id: sorted(one.partition for one in each.owned) for each in group.members}


async def group_coordinated_by(cluster: Cluster, *nodes: NodeProcess) -> str:
    """A group whose coordinator is on one of the nodes."""
    ids = {
        (await node.cluster.GetCluster(GetClusterRequest(), timeout=5)).header.node_id
        for node in nodes
    }
    node = next(iter(cluster.nodes.values()))
    for at in range(100):
        name = f"g{at}"
        offset = api.OffsetCommit(topic=TOPIC, partition=0, offset=0)
        request = api.CommitOffsetsRequest(group=name, offsets=[offset])
        await node.groups.CommitOffsets(request, timeout=LIMIT_S)
        if (await described(node, name)).coordinator_node_id in ids:
            return name
    raise AssertionError("one node of three coordinates no group")


async def test_s25_a_killed_coordinator_costs_no_commit_and_moves_no_partition(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "groups", "a", "b", "c") as cluster:
        cluster.start()
        await cluster.ready()
        await cluster.create(TOPIC, PARTITIONS)
        a, b, c = cluster.nodes.values()
        for partition in range(PARTITIONS):
            rows = Rows(records=[Record(value=b"%d" % at) for at in range(50)])
            request = ProduceRequest(topic=TOPIC, partition=partition, rows=rows)
            await a.log.Produce(request, timeout=LIMIT_S)
        name = await group_coordinated_by(cluster, c)
        members = [Member(a, name), Member(b, name)]
        for member in members:
            await member.join()

        async def settled() -> bool:
            group = await described(a, name)
            return group.state == api.GROUP_STATE_STABLE and len(group.members) == 2

        await until("both members have their share", settled)
        await until("they know it", lambda: _sizes(members))
        before = assignment(await described(a, name))
        for member in members:
            await member.commit(10)
        committing = [
            asyncio.create_task(_commit_until(member, range(11, 51))) for member in members
        ]
        await asyncio.sleep(0)
        c.kill()
        await asyncio.gather(*committing)
        group = await until("a new coordinator answers", lambda: described(a, name))
        assert assignment(group) == before
        acknowledged = members[0].committed | members[1].committed
        assert len(acknowledged) == PARTITIONS
        kept = {each.partition: each.committed_offset for each in group.partitions}
        assert all(kept[each] >= offset for each, offset in acknowledged.items())
        assert set(acknowledged.values()) == {50}, "the last commits came through as well"
        for member in members:
            await member.close()


async def _sizes(members: list[Member]) -> bool:
    return [len(each.owned) for each in members] == [PARTITIONS // 2] * 2


async def _commit_until(member: Member, offsets: range) -> None:
    for offset in offsets:
        await member.commit(offset)
