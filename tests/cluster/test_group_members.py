"""Members of a group on the gateways of three processes: one is killed, one stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.api.v1.record_pb2 import Record, Rows
from tests.cluster.harness import Cluster, NodeProcess, cluster_of, until
from tests.cluster.test_groups import PARTITIONS, TOPIC, described, group_coordinated_by
from tests.node.groups.consumer import Consumer
from tests.node.groups.history import History

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
#: The shortest: a member on a gateway is then given up after 6 s.
JOIN: dict[str, Any] = {"topics": [TOPIC], "session_grace_ms": 1000}


class Producer:
    """Produces numbered values to all partitions in turn, each until it is acknowledged."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        self.nodes = nodes
        self.values: set[bytes] = set()
        self._stop = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        at = 0
        while not self._stop:
            value = b"%d" % at
            rows = Rows(records=[Record(value=value)])
            request = ProduceRequest(topic=TOPIC, partition=at % PARTITIONS, rows=rows)
            try:
                await self.nodes[at % len(self.nodes)].log.Produce(request, timeout=5)
            except grpc.aio.AioRpcError:
                # It may be stored or not; it is sent again, and counts once either way.
                continue
            self.values.add(value)
            at += 1
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._stop = True
        await self.task


def seen_by(*consumers: Consumer) -> set[bytes]:
    return {value for each in consumers for _, _, value in each.seen}


async def eventually(what: str, holds: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return holds()

    await until(what, ask)


async def share(consumers: list[Consumer]) -> None:
    """Waits until everybody has the same number of partitions."""
    each_has = PARTITIONS // len(consumers)
    await eventually(
        f"everybody has {each_has}", lambda: {len(one.owned) for one in consumers} == {each_has}
    )


async def started(tmp_path: Path, cluster: Cluster) -> None:
    del tmp_path
    cluster.start()
    await cluster.ready()
    await cluster.create(TOPIC, PARTITIONS)


async def test_p5_a_killed_gateways_partitions_move_and_its_commits_are_kept(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "killed", "a", "b", "c") as cluster:
        await started(tmp_path, cluster)
        a, b, c = cluster.nodes.values()
        history = History()
        join = JOIN | {"group": "g"}
        consumers = [Consumer([node.groups], history, join) for node in (a, b, c)]
        producer = Producer([a, b])
        try:
            for each in consumers:
                each.start()
            await share(consumers)
            gone = consumers[2]
            await eventually("it has committed", lambda: gone.owned <= gone.committed.keys())
            lost = set(gone.owned)
            before = [len(each.seen) for each in consumers[:2]]
            c.kill()
            await gone.stop()
            await share(consumers[:2])
            moved_at = len(producer.values)
            await eventually("more came", lambda: len(producer.values) > moved_at + 50)
            await producer.stop()
            rest = consumers[:2]
            await eventually("nothing is lost", lambda: producer.values <= seen_by(*rest, gone))
            for partition in lost:
                new = [one for each, at in zip(rest, before, strict=True) for one in each.seen[at:]]
                offsets = [at for part, at, _ in new if part == partition]
                # One owner after the other, without a hole, from what was committed.
                assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
                assert offsets[0] >= gone.committed[partition]
            assert history.violations == []
        finally:
            for each in consumers:
                await each.stop()


async def test_a_member_whose_gateway_is_killed_goes_on_elsewhere_with_what_it_had(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "resumed", "a", "b", "c") as cluster:
        await started(tmp_path, cluster)
        a, b, c = cluster.nodes.values()
        history = History()
        join = JOIN | {"group": "g", "session_grace_ms": 30_000}
        stays = Consumer([a.groups], history, join)
        moves = Consumer([c.groups, b.groups], history, join)
        producer = Producer([a, b])
        try:
            stays.start()
            moves.start()
            await share([stays, moves])
            before = set(moves.owned), len(stays.events)
            member_id = moves.id
            c.kill()
            await eventually("it is back", lambda: moves.joins == 2 and moves.owned == before[0])
            assert moves.id == member_id
            await producer.stop()
            await eventually("nothing is lost", lambda: producer.values <= seen_by(stays, moves))
            heard = [each.split()[0] for each in stays.events[before[1] :]]
            assert not {"assigned", "revoking", "joined"} & set(heard), "a rebalance"
            assert history.violations == []
        finally:
            await producer.stop()
            for each in (stays, moves):
                await each.stop()


async def test_s25_a_gateway_that_stood_still_serves_nothing_that_was_given_away(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "paused", "a", "b", "c") as cluster:
        await started(tmp_path, cluster)
        a, b, c = cluster.nodes.values()
        history = History()
        name = await group_coordinated_by(cluster, a, b)
        consumers = [Consumer([each.groups], history, JOIN | {"group": name}) for each in (a, c)]
        producer = Producer([a, b])
        try:
            for each in consumers:
                each.start()
            await share(consumers)
            c.pause()
            await eventually("its share moves", lambda: len(consumers[0].owned) == PARTITIONS)
            c.resume()
            await eventually("its stream ends", lambda: bool(consumers[1].refusals))
            (refusal, *_) = consumers[1].refusals
            assert refusal is None or refusal.reason in {"NODE_UNAVAILABLE", "MEMBER_FENCED"}
            await share(consumers)
            await producer.stop()
            await eventually("nothing is lost", lambda: producer.values <= seen_by(*consumers))
            assert history.violations == []
        finally:
            await producer.stop()
            for each in consumers:
                await each.stop()


async def test_a_coordinator_that_moves_is_nothing_that_streams_hear_of(tmp_path: Path) -> None:
    async with cluster_of(tmp_path / "moved", "a", "b", "c") as cluster:
        await started(tmp_path, cluster)
        a, b, c = cluster.nodes.values()
        history = History()
        name = await group_coordinated_by(cluster, c)
        consumers = [Consumer([each.groups], history, JOIN | {"group": name}) for each in (a, b)]
        producer = Producer([a, b])
        try:
            for each in consumers:
                each.start()
            await share(consumers)
            before = [len(each.events) for each in consumers]
            c.kill()

            async def moved() -> bool:
                return (await described(a, name)).coordinator_node_id > 0

            await until("another one coordinates", moved)
            produced = len(producer.values)
            await eventually("records come on", lambda: len(producer.values) > produced + 100)
            # Longer than a lease: they are renewed by the new one.
            await asyncio.sleep(5)
            await producer.stop()
            await eventually("nothing is lost", lambda: producer.values <= seen_by(*consumers))
            for each, count in zip(consumers, before, strict=True):
                heard = {one.split()[0] for one in each.events[count:]}
                assert not {"assigned", "revoking", "joined"} & heard
                assert each.refusals == []
            assert history.violations == []
        finally:
            await producer.stop()
            for each in consumers:
                await each.stop()
