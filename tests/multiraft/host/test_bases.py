"""Bases in parts over real links, seen by whole hosts."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rakit.multiraft.config import HostConfig
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.hello import DATA
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupMeta
from rakit.raft import Entry
from tests.multiraft.host.nodes import GROUP, Cluster, Node
from tests.multiraft.host.support import Journal, until

KIB = 1 << 10
CONFIG = HostConfig(
    driver=DriverConfig(base_part_bytes_max=16 * KIB, base_inflight_bytes_max=32 * KIB)
)


class Trimming(Journal):
    """Takes a checkpoint at each b"cut", and lets the log go up to the one before."""

    def __init__(self, meta: GroupMeta) -> None:
        super().__init__(meta)
        self._due = False
        self._latest = self._before = 0

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        self._due = entry.data == b"cut"
        if self._due:
            self._before, self._latest = self._latest, entry.index
        return super().apply(entry, writes)

    def restore(self, data: bytes, index: int) -> None:
        super().restore(data, index)
        self._latest = index

    def checkpoint_due(self) -> bool:
        return self._due

    def trim_index(self) -> int:
        return self._before

    def trim_targets(self) -> tuple[int, ...]:
        return (self._latest,)


def base_of(node: Node) -> tuple[int, int]:
    """Where a log begins, and in how many parts that state lies."""
    group = node.host.group(GROUP)
    assert group is not None
    index = group.storage.base.index
    return index, len(group.storage.checkpoint(index).parts)


@pytest.mark.parametrize("breaks", [0, 5])
async def test_s17_a_node_that_was_away_gets_a_large_base_while_others_are_served(
    tmp_path: Path, breaks: int
) -> None:
    cluster = Cluster(tmp_path, config=CONFIG)
    for node in cluster.nodes:
        node.factory = Trimming
    await cluster.start()
    away = cluster.followers()[0]
    await away.stop()
    await cluster.propose(*[b"%06d" % number + b"x" * 10 * KIB for number in range(200)])
    await cluster.propose(b"cut", b"a", b"cut", b"b")
    leader = await cluster.leader()
    await until(lambda: base_of(leader)[0] > 200)
    await cluster.restart(away)
    slowest = 0.0
    for number in range(40):
        began = time.monotonic()
        await cluster.propose(b"meanwhile %d" % number)
        slowest = max(slowest, time.monotonic() - began)
        session = away.host._peers.transport._sessions.get((leader.node_id, DATA))
        if number < breaks and session is not None:
            session.end("the test breaks it")
    await cluster.agreed(244)
    index, parts = base_of(away)
    assert (index, parts) == base_of(leader)
    assert parts > 100
    assert slowest < 1, "nobody waits for a base"
    await cluster.stop()
