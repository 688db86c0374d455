"""What happens to pods of the StatefulSet, by its own manifests: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from rakit.api.v1.cluster_service_pb2 import GetClusterRequest, Node
from rakit.api.v1.topic_service_pb2 import GetTopicRequest
from tests.cluster.harness import LIMIT_S, until
from tests.cluster.test_three_nodes import same_on_all
from tests.deploy.manifests import Pod
from tests.deploy.places import Places, PodProcess, is_ready, places_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
TOPIC = "t"
PARTITIONS = 2
VOTER = 1
UP = 1


class Writer:
    """A client that produces all the while, and what it was told is stored."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.acknowledged: list[int] = []
        self._process = process
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.acknowledged.append(int(line))

    async def goes_on(self) -> None:
        """Waits for acknowledgements of what it sends from now on."""
        wanted = len(self.acknowledged) + 20

        async def has() -> bool:
            assert self._process.returncode is None, "the client gave up"
            return len(self.acknowledged) >= wanted

        await until("acknowledgements", has)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), LIMIT_S) == 0
        await self._listening


@asynccontextmanager
async def writing(places: Places) -> AsyncGenerator[Writer]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *places.client("write", TOPIC), stdin=pipe, stdout=pipe
    )
    try:
        yield Writer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stored(places: Places) -> list[int]:
    pipe = asyncio.subprocess.PIPE
    reading = await asyncio.create_subprocess_exec(*places.client("read", TOPIC), stdout=pipe)
    said, _ = await asyncio.wait_for(reading.communicate(), LIMIT_S)
    assert reading.returncode == 0
    return [int(line) for line in said.split()]


async def test_pods_come_and_go_and_lose_their_disks_by_the_manifests_alone(tmp_path: Path) -> None:
    async with places_of(tmp_path) as places:
        await a_pod_that_waits_for_the_others_is_alive(places)
        await places.create(TOPIC, partitions=PARTITIONS)
        async with writing(places) as writer:
            await writer.goes_on()
            await all_pods_restart_at_once(places)
            await writer.goes_on()
            await a_pod_loses_its_volume(places)
            await writer.goes_on()
            await a_pod_comes_back_elsewhere(places)
            await writer.goes_on()
            await a_fourth_pod_joins(places)
            await writer.goes_on()
            await writer.stop()
        assert sorted(await stored(places)) == writer.acknowledged
        for partition in range(PARTITIONS):
            await same_on_all(places, TOPIC, partition=partition)


async def a_pod_that_waits_for_the_others_is_alive(places: Places) -> None:
    """Kubernetes may be slow to start the others; nobody must end this one meanwhile."""
    first, *others = [places.pod(ordinal) for ordinal in range(3)]
    first.start()
    await until("it listens", partial(first.probe, "startup"))
    assert await first.probe("liveness")
    assert not await first.probe("readiness")
    for each in others:
        each.start()
    for each in (first, *others):
        await is_ready(each)
    await places.ready()


async def all_pods_restart_at_once(places: Places) -> None:
    """By an order to stop, as when machines are drained; each comes back under another address."""
    pods = [places.pod(ordinal) for ordinal in range(3)]
    codes = await asyncio.gather(*(pod.stop() for pod in pods))
    assert codes == [0, 0, 0], [pod.tail for pod in pods]
    for pod in pods:
        await moved(places, pod)
    for pod in pods:
        pod.start()
    for pod in pods:
        await is_ready(pod)
    await places.ready()


async def moved(places: Places, pod: PodProcess) -> None:
    await pod.close()
    places.move(pod)


async def a_pod_loses_its_volume(places: Places) -> None:
    """S11: it comes back as a new store under its old name, and is filled without an operator."""
    pod = places.pod(1)
    before = await seen_by(places.pod(0), pod)
    assert await pod.stop() == 0, pod.tail
    pod.lose_volume()
    pod.start()
    await is_ready(pod)
    assert await votes(pod), "nobody takes another one away before"
    after = await seen_by(places.pod(0), pod)
    assert after.store_uuid != before.store_uuid
    assert after.node_id == before.node_id
    for partition in range(PARTITIONS):
        await same_on_all(places, TOPIC, partition=partition)


async def votes(pod: PodProcess) -> bool:
    answer = await pod.topics.GetTopic(GetTopicRequest(name=TOPIC), timeout=5)
    partitions = [[each.role for each in one.replicas] for one in answer.topic.partitions]
    return partitions == [[VOTER] * 3] * PARTITIONS


async def seen_by(other: PodProcess, pod: PodProcess) -> Node:
    """A pod as another one has it in its registry."""
    answer = await other.cluster.GetCluster(GetClusterRequest(), timeout=5)
    (found,) = [each for each in answer.nodes if each.name == pod.name]
    return found


async def a_pod_comes_back_elsewhere(places: Places) -> None:
    """Its name leads there, so nothing changes in the registry."""
    pod = places.pod(2)
    before = await seen_by(places.pod(0), pod)
    assert await pod.stop() == 0, pod.tail
    await moved(places, pod)
    pod.start()
    await is_ready(pod)
    await places.ready()
    for partition in range(PARTITIONS):
        await same_on_all(places, TOPIC, partition=partition)
    after = await seen_by(places.pod(0), pod)
    assert after.peer_address == before.peer_address
    assert after.addresses == before.addresses
    assert after.state == UP


async def a_fourth_pod_joins(places: Places) -> None:
    """More replicas of the set, and not a word changed in what they are told."""
    pod = places.pod(3)
    pod.start()
    await is_ready(pod)
    await places.ready()
    answer = await pod.cluster.GetCluster(GetClusterRequest(), timeout=5)
    assert sorted(each.name for each in answer.nodes) == [Pod(n).name for n in range(4)]
    topic = await places.create("on-four", partitions=4)
    holders = {each.node_id for part in topic.partitions for each in part.replicas}
    assert len(holders) == 4, "new replicas are spread over all pods"
