"""Whole nodes in one process: a host on a real store, behind a real server on loopback."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import grpc.aio

from rakit.multiraft.config import HostConfig, LivenessConfig, peer_server_options
from rakit.multiraft.host import Host
from rakit.multiraft.machine import GroupKind, GroupMeta, MachineFactory, replica_id
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.engine import NO_SEGMENTS, EngineError, Operation, RocksEngine
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.store.witness import Witness
from rakit.raft import ConfState, Role
from tests.multiraft.host.support import Cable, Journal, until

GROUP = 5


class FaultyEngine(RocksEngine):
    """RocksDB on a disk that can be made to stall, fail or hang."""

    stalls_left = 0
    write_fault: Fault | None = None
    flush_fault: Fault | None = None

    def __init__(self, path: Path, config: StoreConfig, *, create: bool) -> None:
        super().__init__(path, config, create=create)
        self.flushes = threading.Event()
        self.flushes.set()
        #: A flush has met a disk that hangs.
        self.hanging = threading.Event()
        self.batches: list[Sequence[Operation]] = []

    def write(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
    ) -> None:
        if self.write_fault is not None:
            raise EngineError(self.write_fault, "IO error: injected")
        if self.stalls_left:
            self.stalls_left -= 1
            self.batches.append(operations)
            raise EngineError(Fault.STALL, "Result incomplete: Write stall")
        if self.batches:
            self.batches.append(operations)
        super().write(number, operations, segments)

    def flush_wal(self, *, durably: bool = True) -> Witness:
        if not self.flushes.is_set():
            self.hanging.set()
        assert self.flushes.wait(30), "a test must let the disk go on"
        if self.flush_fault is not None:
            raise EngineError(self.flush_fault, "IO error: injected")
        return super().flush_wal(durably=durably)


class Node:
    """One node that can be stopped, killed and started again on its directory."""

    def __init__(self, node_id: int, directory: Path, config: HostConfig) -> None:
        self.node_id = node_id
        self._directory = directory
        self._config = config
        self.port = self.lane_port = 0
        self.clock_offset_ms = 0
        self.factory: MachineFactory = Journal

    async def start(self) -> None:
        await self.open()
        await self.host.start()
        self.running = True

    async def open(self) -> None:
        """Does all that a start does but for the host's own."""
        config = StoreConfig.small(self._directory / f"node-{self.node_id}")
        self.store = RocksStore.open(config, f"node-{self.node_id}", open_engine=FaultyEngine)
        if not self.store.identity.cluster_id:
            self.store.adopt("cluster", self.node_id)
        self.host = Host(
            self._config,
            self.node_id,
            "cluster",
            self.store,
            self.factory,
            clock_ms=lambda: time.time_ns() // 1_000_000 + self.clock_offset_ms,
        )
        self.server = grpc.aio.server(options=peer_server_options())
        self.host.servicer.add_to(self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()
        lanes = socket.create_server(("127.0.0.1", self.lane_port))
        self.lane_port = lanes.getsockname()[1]
        await self.host.listen(lanes)

    async def stop(self) -> None:
        """Ends the node the way that a terminated process does."""
        if self.running:
            self.running = False
            await self.host.stop()
            await self.server.stop(None)
            self.store.close()

    async def kill(self) -> None:
        """Ends the node without hand-over and without a last flush."""
        self.running = False
        self.host._stopped = True
        await self.server.stop(None)
        await self.host._peers.transport.close()
        await self.host._lane_server.close()
        await self.host._steps.stop()
        self.store.close()

    @property
    def engine(self) -> FaultyEngine:
        return cast("FaultyEngine", self.store._engine)

    @property
    def journal(self) -> Journal:
        group = self.host.group(GROUP)
        assert group is not None
        return cast("Journal", group.machine)

    @property
    def leads(self) -> bool:
        group = self.host.group(GROUP) if self.running else None
        return group is not None and group.role is Role.LEADER and group.ready


class Cluster:
    """Nodes 1 to n that know each other, with one group on all of them."""

    def __init__(self, directory: Path, count: int = 3, config: HostConfig | None = None) -> None:
        config = HostConfig() if config is None else config
        self.nodes = [Node(node_id, directory, config) for node_id in range(1, count + 1)]
        self.conf = ConfState(voters=tuple(replica_id(each.node_id, 1) for each in self.nodes))

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
        for node in self.nodes:
            self.introduce(node)
        await until(self.all_up)
        for node in self.nodes:
            node.host.create_group(self.meta(node), self.conf)
        await self.leader()

    def meta(self, node: Node) -> GroupMeta:
        return GroupMeta(GROUP, replica_id(node.node_id, 1), GroupKind.PARTITION)

    def introduce(self, node: Node) -> None:
        for other in self.nodes:
            node.host.set_peer(other.node_id, f"127.0.0.1:{other.port}")

    def all_up(self) -> bool:
        running = [each for each in self.nodes if each.running]
        return all(a.host.node_is_up(b.node_id) for a in running for b in running)

    async def restart(self, node: Node) -> None:
        await node.start()
        self.introduce(node)

    async def leader(self, seconds: float = 10) -> Node:
        await until(lambda: any(each.leads for each in self.nodes), seconds)
        return next(each for each in self.nodes if each.leads)

    def followers(self) -> list[Node]:
        return [each for each in self.nodes if each.running and not each.leads]

    async def propose(self, *payloads: bytes) -> None:
        """Has payloads acknowledged by whoever leads, however often that takes."""
        leader = await self.leader()
        proposals = [leader.host.propose(GROUP, each) for each in payloads]
        async with asyncio.timeout(20):
            done = await asyncio.gather(*[each.done for each in proposals])
        assert not any(each.lost for each in done)

    async def agreed(self, count: int) -> None:
        """Waits until every running node has applied as many entries, and compares them."""
        running = [each for each in self.nodes if each.running]
        await until(lambda: all(len(each.journal.payloads) >= count for each in running), 20)
        assert len({tuple(each.journal.payloads) for each in running}) == 1

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()


async def cabled(cluster: Cluster, node: Node) -> list[Cable]:
    """Puts a cable between a node and every other one, in both directions."""
    cables: list[Cable] = []
    for other in cluster.nodes:
        if other is node:
            continue
        for caller, called in ((node, other), (other, node)):
            # Data goes by the port that the called node names, at the address where it was called.
            lane = called.host._peers.transport
            cables.append(await Cable(lane.lane_port).lay())
            lane.lane_port = cables[-1].port
            cables.append(await Cable(called.port).lay())
            caller.host.set_peer(called.node_id, f"127.0.0.1:{cables[-1].port}")
    await until(cluster.all_up)
    return cables


FAST = HostConfig(liveness=LivenessConfig(ping_ms=50, silence_ms=300))
