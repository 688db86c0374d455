"""When the disk stalls, hangs or fails: what is retried, what is given up, what is never said."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rakit.multiraft.config import HostConfig
from rakit.multiraft.effects import Effects
from rakit.multiraft.host import HostStoppedError
from rakit.multiraft.kv import Op
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.store import discarding
from rakit.multiraft.store.errors import Fault
from tests.multiraft.host.nodes import GROUP, Cluster
from tests.multiraft.host.support import until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    await made.start()
    yield made
    for node in made.nodes:
        node.engine.flushes.set()
    await made.stop()


async def test_s12_a_stalled_batch_is_written_again_unchanged_before_any_other(
    cluster: Cluster,
) -> None:
    leader = await cluster.leader()
    leader.engine.stalls_left = 5
    first = leader.host.propose(GROUP, b"stalled")
    await until(lambda: leader.engine.stalls_left < 4)
    second = leader.host.propose(GROUP, b"after it")
    done = await asyncio.gather(first.done, second.done)
    assert [each.lost for each in done] == [False, False]
    attempts = [[each for each in batch if each[0] == Op.PUT] for batch in leader.engine.batches]
    assert attempts[0] == attempts[1] == attempts[5], "the batch that was let through at last"
    await cluster.agreed(2)
    assert leader.journal.payloads == [b"stalled", b"after it"]


@pytest.mark.parametrize("where", ["write", "flush"])
async def test_s12_a_failed_store_answers_unknown_and_silences_the_node(
    cluster: Cluster, where: str
) -> None:
    leader = await cluster.leader()
    await cluster.propose(b"safe")
    if where == "write":
        leader.engine.write_fault = Fault.DISK_FULL
    else:
        leader.engine.flush_fault = Fault.DISK_FULL
    completion = await leader.host.propose(GROUP, b"unknown").done
    failure = await leader.host.failed
    assert failure.disk_full
    assert failure.exit_code == 10
    # The others may yet commit it; this node will never know.
    assert completion.lost
    with pytest.raises(HostStoppedError):
        leader.host.propose(GROUP, b"x")
    sessions = leader.host._peers.transport._sessions
    await until(lambda: not sessions)
    assert leader.host._peers.transport.peers == []
    others = [each for each in cluster.nodes if each is not leader]
    await until(lambda: any(each.leads for each in others), 10)
    leader.running = False
    await leader.server.stop(None)
    await leader.host.stop()
    leader.store.close()
    await cluster.propose(b"the rest goes on")
    assert cluster.followers()[0].journal.payloads[0] == b"safe"


async def test_s13_a_leader_whose_disk_hangs_is_replaced(cluster: Cluster) -> None:
    leader = await cluster.leader()
    leader.engine.flushes.clear()
    hanging = leader.host.propose(GROUP, b"hanging")
    others = [each for each in cluster.nodes if each is not leader]
    await until(lambda: any(each.leads for each in others), 10)
    assert not hanging.done.done() or hanging.done.result().lost
    new = next(each for each in others if each.leads)
    assert not (await new.host.propose(GROUP, b"goes on").done).lost
    leader.engine.flushes.set()
    completion = await hanging.done
    await cluster.agreed(2)
    if not completion.lost:
        assert b"hanging" in leader.journal.payloads


HURRIED = HostConfig(stop_transfer_ms_max=200, stop_flush_ms_max=200, stop_sync_ms_max=200)


async def test_s13_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, config=HURRIED)
    await cluster.start()
    leader = await cluster.leader()
    leader.engine.flushes.clear()
    hanging = leader.host.propose(GROUP, b"hanging")
    await until(leader.engine.hanging.is_set)
    async with asyncio.timeout(5):
        await leader.host.stop()
    assert leader.host.disk_hangs
    assert (await hanging.done).lost, "whoever waits is answered"
    # What the flush says when it comes back after all is heard by nobody.
    leader.engine.flushes.set()
    leader.running = False
    await leader.server.stop(None)
    await until(lambda: not leader.host._steps._syncer._thread.is_alive())
    leader.store.close()
    await cluster.propose(b"the rest goes on")
    await cluster.stop()


async def test_s12_a_failed_write_ends_the_node_also_while_a_flush_hangs(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, config=HURRIED)
    await cluster.start()
    leader = await cluster.leader()
    leader.engine.flushes.clear()
    leader.host.propose(GROUP, b"hanging")
    await until(leader.engine.hanging.is_set)
    leader.engine.write_fault = Fault.DISK_FULL
    leader.host.propose(GROUP, b"fails")
    assert (await leader.host.failed).exit_code == 10
    async with asyncio.timeout(5):
        await leader.host.stop()
    assert leader.host.disk_hangs
    leader.engine.flushes.set()
    leader.running = False
    await leader.server.stop(None)
    await until(lambda: not leader.host._steps._syncer._thread.is_alive())
    leader.store.close()
    await cluster.stop()


async def test_s12_a_stop_does_not_wait_for_a_store_that_fails_meanwhile(tmp_path: Path) -> None:
    patient = HostConfig(stop_flush_ms_max=60_000)
    cluster = Cluster(tmp_path, count=1, config=patient)
    await cluster.start()
    (node,) = cluster.nodes
    node.engine.flushes.clear()
    node.host.propose(GROUP, b"never durable")
    await until(node.engine.hanging.is_set)
    stopping = asyncio.create_task(node.host.stop())
    await asyncio.sleep(0)
    node.engine.flush_fault = Fault.OTHER
    node.engine.flushes.set()
    async with asyncio.timeout(10):
        await stopping
    assert (await node.host.failed).exit_code != 0
    await cluster.stop()


async def test_a_stop_that_a_healthy_disk_serves_leaves_the_store_to_be_closed(
    cluster: Cluster,
) -> None:
    await cluster.propose(b"x")
    leader = await cluster.leader()
    await leader.host.stop()
    assert not leader.host.disk_hangs


async def test_s13_a_node_whose_writes_stall_is_silent(cluster: Cluster) -> None:
    leader = await cluster.leader()
    others = [each for each in cluster.nodes if each is not leader]
    leader.engine.stalls_left = 1 << 30
    leader.host.propose(GROUP, b"stalled")
    await until(lambda: not any(each.host.node_is_up(leader.node_id) for each in others), 10)
    await until(lambda: any(each.leads for each in others), 10)
    leader.engine.stalls_left = 0
    await until(cluster.all_up, 10)
    await cluster.propose(b"x")


async def test_a_broken_rule_stops_the_node_like_a_broken_disk(cluster: Cluster) -> None:
    leader = await cluster.leader()

    def broken() -> None:
        raise ValueError("a bug")

    leader.host.on_applied(GROUP, broken)
    leader.host.propose(GROUP, b"x")
    failure = await leader.host.failed
    assert "a bug" in str(failure)
    assert failure.exit_code == 11


@pytest.mark.parametrize(
    ("at_fault", "for_good", "marked"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
async def test_s9_a_store_with_a_replica_in_dispute_is_marked_for_a_person(
    cluster: Cluster, *, at_fault: bool, for_good: bool, marked: bool
) -> None:
    node = cluster.nodes[0]
    shut_out = Quarantined(1, "a second leader", for_good=for_good, at_fault=at_fault)
    node.host._deliver(Effects(0, quarantined=[(GROUP, shut_out)]))
    directory = node.store._directory.path
    await asyncio.to_thread(node.store.maintain)
    assert (directory / discarding.DISPUTED).exists() is marked
