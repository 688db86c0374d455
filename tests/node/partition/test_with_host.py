"""A partition on the real host and the real store: one node, which is its own majority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rakit.api.v1 import error_pb2, log_service_pb2
from rakit.api.v1.record_pb2 import Record
from rakit.multiraft.config import HostConfig
from rakit.multiraft.host import Host
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.store import RocksStore, StoreConfig
from rakit.node.errors import RakitError
from rakit.node.partition.batches import Batch, admit_rows
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.partition import Partition, PartitionContext
from rakit.node.partition.polling import Poller, Want
from rakit.node.partition.producers import Stamp
from rakit.node.partition.reader import Chunk
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.steps import at_once
from rakit.node.partition.stored import to_rows
from rakit.raft import ConfState
from tests.node.partition.fakes import nobody

GROUP = 5
REPLICA = replica_id(1, 1)
LEADER_SECONDS = 10.0


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@asynccontextmanager
async def node(directory: Path, clock: Clock, settings: TopicSettings) -> AsyncGenerator[Partition]:
    store = RocksStore.open(StoreConfig.small(directory), "n1")
    store.adopt("cluster", 1)
    host = Host(HostConfig(), 1, "cluster", store, PartitionMachine, clock_ms=clock)
    await host.start()
    if host.group(GROUP) is None:
        conf = ConfState(voters=(REPLICA,))
        host.create_group(GroupMeta(GROUP, REPLICA, GroupKind.PARTITION), conf)
    context = PartitionContext(
        disk=store,
        clock_ms=clock,
        fsynced=True,
        clock_trusted=lambda: not host.clock_is_wrong(),
        runs_are_read=lambda: True,
    )
    partition = Partition(host, GROUP, lambda: settings, context, nobody)
    try:
        await host.leaders.wait(GROUP, LEADER_SECONDS)
        yield partition
    finally:
        partition.close()
        await host.stop()
        store.close()


def batch(first: int, count: int) -> Batch:
    records = [Record(value=b"%d" % number) for number in range(first, first + count)]
    return at_once(admit_rows(records, TopicSettings().batch_limits))


def values(chunk: Chunk) -> list[int]:
    return [int(row.value) for each in chunk.batches for row in to_rows(each)]


async def read_all(partition: Partition, offset: int) -> list[int]:
    found: list[int] = []
    while True:
        chunk = await partition.read(offset, 4_000)
        if not chunk.batches:
            return found
        found += values(chunk)
        offset = chunk.next_offset


async def test_records_come_back_after_a_restart_and_retries_are_known(tmp_path: Path) -> None:
    clock, settings = Clock(), TopicSettings(segment_bytes=20_000)
    async with node(tmp_path, clock, settings) as partition:
        answers = [
            partition.append(batch(at * 10, 10), Stamp(7, 1, at + 1, at), at * 10)
            for at in range(60)
        ]
        again = partition.append(batch(590, 10), Stamp(7, 1, 60, 59), 590)
        last = (await asyncio.gather(*answers))[-1]
        assert (last.stored.end_offset, last.replicas, last.fsynced) == (600, 1, True)
        assert (await again).stored == last.stored
        assert await read_all(partition, 0) == list(range(600))
        first, end = partition.index_range()
        before = await partition.digest(first, last.stored.index)
        assert (before.end_offset, end) == (600, last.stored.index)
    async with node(tmp_path, clock, settings) as partition:
        assert await read_all(partition, 0) == list(range(600))
        assert await partition.digest(first, last.stored.index) == before
        retried = await partition.append(batch(590, 10), Stamp(7, 1, 60, 59), None)
        assert retried.duplicate
        assert retried.stored == last.stored
        state = await partition.producer_state(7, 61, 2)
        assert (state.state, state.final) == (log_service_pb2.BATCH_STATE_NOT_SEEN, True)
        with pytest.raises(RakitError) as caught:
            await partition.append(batch(600, 1), Stamp(7, 1, 61, 60), None)
        assert caught.value.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED


async def test_s1_retention_cuts_the_stored_log_and_a_restart_keeps_the_cut(
    tmp_path: Path,
) -> None:
    clock = Clock()
    settings = TopicSettings(segment_bytes=64 * 1024, retention_bytes=256 * 1024)
    async with node(tmp_path, clock, settings) as partition:
        for at in range(40):
            await partition.append(batch(at * 1000, 1000), None, None)
            clock.now_ms += 1_000
            partition.look_after()
        offsets = await partition.offsets(clock.now_ms - 2_000)
        assert 0 < offsets.earliest < offsets.latest == 40_000
        assert offsets.size_bytes <= 256 * 1024
        assert offsets.at_time == 38_000
        assert partition.index_range()[0] > 2, "the entries themselves are gone"
    async with node(tmp_path, clock, settings) as partition:
        assert partition.earliest() == offsets.earliest
        found = await read_all(partition, offsets.earliest)
        assert found == list(range(offsets.earliest, 40_000))
        with pytest.raises(RakitError) as caught:
            await partition.read(0, 1000)
        assert caught.value.metadata["earliest"] == str(offsets.earliest)


async def test_a_poll_wakes_with_the_commit(tmp_path: Path) -> None:
    async with node(tmp_path, Clock(), TopicSettings()) as partition:
        poll = Poller().poll(
            [Want(partition, 0)], max_bytes=1 << 20, min_bytes=1, max_wait_ms=60_000
        )
        waiting = asyncio.ensure_future(poll)
        await asyncio.sleep(0)
        await partition.append(batch(0, 3), None, None)
        async with asyncio.timeout(LEADER_SECONDS):
            (chunk,) = await waiting
        assert isinstance(chunk, Chunk)
        assert values(chunk) == [0, 1, 2]
