"""Whole nodes without a broker: real stores, real hosts, real gRPC on loopback, in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from rakit.multiraft.config import HostConfig, peer_server_options
from rakit.multiraft.host import Host
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupKind, GroupMeta, StateMachine
from rakit.multiraft.store import RocksStore, StoreConfig
from rakit.node.checkpoints import CHECKPOINT_ENTRIES_COUNT
from rakit.node.health import late
from rakit.node.metadata.admission import AdmissionConfig
from rakit.node.metadata.formation import Formation, FormationConfig
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.service import MetadataConfig, MetadataService
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2_grpc as grpc_pb
from rakit.raft import Entry
from tests.cluster.harness import free_port


class Nothing:
    """A partition's machine that only counts."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        del entry, writes
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return str(self.count).encode()

    def restore(self, data: bytes, index: int) -> None:
        del index
        self.count = int(data or b"0")

    def checkpoint_due(self) -> bool:
        return False

    def trim_index(self) -> int:
        return 0

    def trim_targets(self) -> tuple[int, ...]:
        return ()


def connect(address: str) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.insecure_channel(address, options)


async def until(holds: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


class TestNode:
    """One node: `start` goes the whole way of a real one, `stop` and `crash` end it."""

    __test__ = False

    def __init__(
        self, directory: Path, name: str, seeds: tuple[str, ...], expect: int, rack: str = ""
    ) -> None:
        self.directory = directory
        self.name = name
        self.seeds = seeds
        self.expect = expect
        self.rack = rack
        self.port = free_port()
        self.host_config = HostConfig()
        self.checkpoint_entries_count = CHECKPOINT_ENTRIES_COUNT
        self.machine = MetadataMachine()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def node_id(self) -> int:
        return self.host.node_id

    def _factory(self, meta: GroupMeta) -> StateMachine:
        return self.machine if meta.kind is GroupKind.METADATA else Nothing()

    async def start(self) -> None:
        self.machine = MetadataMachine(self.checkpoint_entries_count)
        self.store = RocksStore.open(StoreConfig.small(self.directory), node_name=self.name)
        self.server = grpc.aio.server(options=peer_server_options())
        assert self.server.add_insecure_port(self.address) == self.port
        description = pb.NodeDescription(
            name=self.name,
            store_uuid=self.store.store_uuid,
            peer_address=self.address,
            addresses=[pb.NamedAddress(listener="default", address=f"{self.name}:7070")],
            rack=self.rack,
        )
        self.formation = Formation(
            FormationConfig(
                path=self.directory / "formation.json",
                description=description,
                seeds=self.seeds,
                bootstrap_expect=self.expect,
                known_cluster_id=self.store.identity.cluster_id,
                known_node_id=self.store.identity.node_id,
            ),
            connect,
        )
        grpc_pb.add_FormationServiceServicer_to_server(self.formation.servicer, self.server)
        await self.server.start()
        try:
            member = await self.formation.run()
        except BaseException:
            await self._close_below()
            raise
        self.store.adopt(member.cluster_id, member.node_id)
        self.host = Host(
            self.host_config,
            member.node_id,
            member.cluster_id,
            self.store,
            self._factory,
            clock_ms=lambda: int(time.time() * 1000),
        )
        self.host.servicer.add_to(self.server)
        await self.host.start()
        config = MetadataConfig(
            clock_ms=lambda: int(time.time() * 1000),
            admission=AdmissionConfig(leader_settles_ms=300, newcomer_settles_ms=300),
        )
        self.metadata = MetadataService(config, self.host, self.machine, member, self.formation)
        grpc_pb.add_MetadataPeerServiceServicer_to_server(self.metadata.servicer, late(self.server))
        await self.metadata.start()

    async def join(self, seconds: float = 20) -> None:
        await self.start()
        await self.metadata.ready(seconds)

    async def stop(self) -> None:
        await self.metadata.stop()
        await self.host.stop()
        await self._close_below()

    async def _close_below(self) -> None:
        await self.server.stop(None)
        await self.formation.close()
        self.store.close()


async def together(calls: list[Awaitable[None]]) -> None:
    await asyncio.gather(*calls)


def trio(tmp_path: Path, count: int = 3) -> list[TestNode]:
    """Nodes that are each other's seeds."""
    nodes = [TestNode(tmp_path / f"n{i}", f"n{i}", (), count, f"rack{i}") for i in range(count)]
    for node in nodes:
        node.seeds = tuple(one.address for one in nodes)
    return nodes
