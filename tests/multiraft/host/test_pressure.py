"""Slow followers and broken lanes, seen by whole hosts."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from pathlib import Path

from rakit.multiraft.config import HostConfig, LinkConfig
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.hello import CONTROL, DATA
from tests.multiraft.host.nodes import Cluster

KIB = 1 << 10
NARROW = HostConfig(
    driver=DriverConfig(
        message_bytes_max=12 * KIB, send_bytes_max=12 * KIB, step_bytes_max=16 * KIB
    ),
    link=LinkConfig(
        bulk_bytes_min=16 * KIB,
        bulk_in_flight_count_max=1,
        request_bytes_max=32 * KIB,
        data_queue_bytes_max=64 * KIB,
    ),
)


async def test_s17_a_slow_follower_fills_its_lane_only_and_catches_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, config=NARROW)
    await cluster.start()
    leader, slow = await cluster.leader(), cluster.followers()[0]
    transport = leader.host._peers.transport
    refused_before = transport.refused_count
    full = 0
    slow.engine.flushes.clear()
    for _ in range(10):
        await cluster.propose(*[b"x" * 10 * KIB] * 10)
        # The quarter at which the groups pause, and the step that went beyond.
        assert transport.waiting_bytes(slow.node_id) <= (16 + 16 + 12) * KIB
        full += slow.node_id in transport._shut
    assert full > 5, "it takes in nothing while its disk hangs"
    assert leader.leads, "a slow follower costs nobody the leadership"
    slow.engine.flushes.set()
    await cluster.agreed(100)
    assert transport.refused_count == refused_before, "nothing was read to be thrown away"
    await cluster.stop()


async def test_a_broken_lane_loses_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start()
    leader, follower = await cluster.leader(), cluster.followers()[0]
    sessions = follower.host._peers.transport._sessions
    term = leader.host.leaders.get(5)
    for number in range(20):
        await cluster.propose(b"%d" % number)
        for lane in (DATA, CONTROL) if number % 5 == 0 else (DATA,):
            session = sessions.get((leader.node_id, lane))
            if session is not None:
                session.end("the test breaks it")
    await cluster.agreed(20)
    assert leader.host.leaders.get(5) == term, "a blink is no reason for an election"
    await cluster.stop()
