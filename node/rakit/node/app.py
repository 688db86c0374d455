"""The composition root: one node, from its settings to its exit code.

Everything is built here, in one order, and taken down in the reverse one:

1. the store, which proves that the disk is this node's and whole;
2. the servers, since peers must be able to ask before there is a cluster;
3. the formation: find the cluster, or found it;
4. the host with its groups, the metadata service, the partitions;
5. the services, once this node is registered; then it says that it is ready.

It runs until it is told to stop, until the store fails, or until the cluster does not take it any
more. Whatever ends it, what was started is stopped; only after a failed store nothing is handed
over, because nothing that this node says counts any more (S12). A disk that hangs holds a thread
that nobody can end: then the store stays as it is, and the process is to be ended without waiting.
If the store is lost for good, and everything is down, the cluster is asked whether the next start
may begin with a new one (`giving_up`).

Exit codes: 0 stopped as asked, 2 misuse, 10 disk full, 11 storage error, 12 identity mismatch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc.aio

from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.multiraft.config import HostConfig, LinkConfig, peer_channel_options
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.host import Host
from rakit.multiraft.machine import GroupKind, GroupMeta, StateMachine
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    StoreError,
    close_in_time,
)
from rakit.node.config import NodeConfig
from rakit.node.filling import Filling
from rakit.node.giving_up import give_up_if_spared
from rakit.node.groups.client import GroupClient
from rakit.node.groups.coordinators import Coordinators
from rakit.node.groups.gateway import Gateway
from rakit.node.groups.machine import GroupsMachine
from rakit.node.health import late
from rakit.node.listeners import ListenError, Listeners
from rakit.node.metadata.formation import Formation, FormationConfig
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.service import MetadataConfig, MetadataService
from rakit.node.partition.commands import RUNS_LEVEL
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.partition import PartitionContext
from rakit.node.partitions import Partitions
from rakit.node.peers import Peers
from rakit.node.produce import Dispatch, InFlight, ProducePath
from rakit.node.reading.budget import ReadBudget
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import LocalReads
from rakit.node.routing import Router
from rakit.node.services.admission import Targeting
from rakit.node.services.cluster import ClusterService
from rakit.node.services.describe import Describe
from rakit.node.services.group import GroupService
from rakit.node.services.group_admin import GroupAdmin, GroupAdminParts
from rakit.node.services.group_pages import GroupPages
from rakit.node.services.handlers import Methods
from rakit.node.services.log import LogParts, LogService
from rakit.node.services.offsets import OffsetLookup
from rakit.node.services.peer import PeerService
from rakit.node.services.placement import ProduceParts
from rakit.node.services.standings import Standings
from rakit.node.services.subscribe import GroupParts
from rakit.node.services.topic import TopicService
from rakit.peer.v1 import metadata_service_pb2_grpc
from rakit.peer.v1.metadata_command_pb2 import NodeDescription
from rakit.raft import ConfState

logger = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_MISUSE: Final = 2
EXIT_STORAGE_ERROR: Final = 11
EXIT_IDENTITY_MISMATCH: Final = 12
#: A store that takes longer to close is on a disk that hangs. What would be written out is in the
#: synced log as well, as far as it was acknowledged.
CLOSE_S_MAX: Final = 10.0
#: How often the log says that acknowledged records may be lost (contract 14).
UNSAFE_REMINDER_S: Final = 60.0


def clock_ms() -> int:
    """Wall time; only leaders' stamps and commands use it (S3)."""
    return time.time_ns() // 1_000_000


def _connect(address: str) -> grpc.aio.Channel:
    """A channel to whoever is at an address, beside those of the host."""
    return grpc.aio.insecure_channel(
        address, options=peer_channel_options(LinkConfig(), bulk=False)
    )


@dataclass(frozen=True, slots=True)
class End:
    """How a node ended: the exit code, and one line for people where it was not on order."""

    code: int
    reason: str = ""
    #: What is wrong with the store will be so at every later start.
    store_is_lost: bool = False
    #: A thread waits for a disk that hangs. An ordinary exit would wait for it, for ever.
    disk_hangs: bool = False
    #: The store has failed and is left as it is. An ordinary exit would have RocksDB close it.
    store_is_open: bool = False


class Node:
    """One node. `run` lives from start to exit; `ready` and `stop` are for whoever embeds it."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        # The servers answer; then: the node has joined and its services are installed.
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self._stop = asyncio.Event()
        self.listeners: Listeners
        self.store: RocksStore
        self.host: Host
        self.metadata: MetadataService
        self.partitions: Partitions
        self.coordinators: Coordinators
        self.groups: GroupClient
        self._disk_hangs = False
        self._store_is_open = False
        self._tasks: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """Asks the node to drain and end."""
        self._stop.set()

    async def run(self) -> End:
        """Runs the node until it is stopped or cannot go on; returns how that ended."""
        end = await self._run()
        if end.store_is_lost and not self._disk_hangs:
            end = await self._begin_anew(end)
        if not self._disk_hangs:
            return replace(end, store_is_open=self._store_is_open)
        reason = end.reason or "the disk hangs: what was asked of it has not come back"
        return End(end.code or EXIT_STORAGE_ERROR, reason, disk_hangs=True)

    async def _begin_anew(self, end: End) -> End:
        """Gives the lost store up if the cluster can spare it, unless somebody says stop."""
        config = self.config
        try:
            if not await give_up_if_spared(config.data_dir, config.seeds, _connect, self._stop):
                return end
        except TimeoutError:
            self._disk_hangs = True
            return end
        reason = f"{end.reason}; the cluster holds all of it, so the next start begins a new store"
        return replace(end, reason=reason)

    async def _run(self) -> End:
        try:
            async with AsyncExitStack() as stack:
                starting = asyncio.create_task(self._start(stack))
                stopping = asyncio.create_task(self._stop.wait())
                try:
                    ends: set[asyncio.Future[Any]] = {starting, stopping}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    if not starting.done():
                        starting.cancel()
                        await asyncio.gather(starting, return_exceptions=True)
                        return End(EXIT_OK)
                    await starting
                    await self._until_the_end(stopping)
                finally:
                    stopping.cancel()
        except StoreError as error:
            # A full disk, or a directory that is not to be had, is clear without a traceback.
            riddle = error if error.exit_code == EXIT_STORAGE_ERROR else None
            logger.critical("the storage cannot be used: %s", error, exc_info=riddle)
            is_lost = isinstance(error, StoreDamagedError) and error.is_lost
            return End(error.exit_code, str(error), store_is_lost=is_lost)
        except StoreCorruptError as error:
            logger.critical("the storage is damaged", exc_info=error)
            return End(EXIT_STORAGE_ERROR, str(error))
        except NodeRefusedError as error:
            return End(EXIT_IDENTITY_MISMATCH, error.message)
        except ListenError as error:
            return End(EXIT_MISUSE, str(error))
        return End(EXIT_OK)

    async def _until_the_end(self, stopping: asyncio.Task[bool]) -> None:
        """Waits for the order to stop, and raises where something else ends the node."""
        ends: set[asyncio.Future[Any]] = {stopping, self.host.failed, self.metadata.failed}
        ends.update(self._tasks)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.host.failed.done():
            raise self.host.failed.result()
        if self.metadata.failed.done():
            raise self.metadata.failed.result()
        for task in self._tasks:
            if task.done():
                task.result()

    async def _start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._stored())
        self.listeners = Listeners(self.config)
        formation = self._formation()
        stack.push_async_callback(formation.close)
        stack.push_async_callback(self.listeners.close)
        await self.listeners.start()
        self.listening.set()
        member = await formation.run()
        self.store.adopt(member.cluster_id, member.node_id)
        await stack.enter_async_context(self._hosted(member, formation))
        await self._serve(stack, member)
        self.ready.set()

    @asynccontextmanager
    async def _stored(self) -> AsyncGenerator[None]:
        config = StoreConfig(
            directory=self.config.data_dir,
            fsync=not self.config.unsafe_no_fsync,
            reserve_bytes=self.config.disk_reserve_bytes,
        )
        self.store = RocksStore.open(config, node_name=self.config.name)
        try:
            yield
        finally:
            try:
                if not self._disk_hangs:
                    self._disk_hangs = not await close_in_time(self.store, CLOSE_S_MAX)
            finally:
                self._store_is_open = self.store.failed is not None

    def _formation(self) -> Formation:
        description = NodeDescription(
            name=self.config.name,
            store_uuid=self.store.store_uuid,
            peer_address=self.listeners.peer_advertised,
            rack=self.config.rack,
        )
        for listener, address in self.listeners.advertised.items():
            description.addresses.add(listener=listener, address=address)
        config = FormationConfig(
            path=self.config.data_dir / "formation.json",
            description=description,
            seeds=self.config.seeds,
            bootstrap_expect=self.config.bootstrap_expect,
            known_cluster_id=self.store.identity.cluster_id,
            known_node_id=self.store.identity.node_id,
        )
        formation = Formation(config, _connect)
        metadata_service_pb2_grpc.add_FormationServiceServicer_to_server(
            formation.servicer, late(self.listeners.peer_server)
        )
        return formation

    @asynccontextmanager
    async def _hosted(self, member: Member, formation: Formation) -> AsyncGenerator[None]:
        """The groups of this node, running and registered."""
        machine = MetadataMachine()

        def factory(meta: GroupMeta) -> StateMachine:
            match meta.kind:
                case GroupKind.METADATA:
                    return machine
                case GroupKind.PARTITION:
                    return PartitionMachine(meta)
                case GroupKind.CONSUMERS:
                    return GroupsMachine()

        tuning = self.config.tuning
        driver = DriverConfig(
            election_ticks=tuning.election_ticks, heartbeat_ticks=tuning.heartbeat_ticks
        )
        config = HostConfig(tick_ms=tuning.tick_ms, driver=driver)
        self.host = host = Host(
            config, member.node_id, member.cluster_id, self.store, factory, clock_ms=clock_ms
        )
        self.metadata = MetadataService(
            MetadataConfig(clock_ms=clock_ms), host, machine, member, formation
        )
        context = PartitionContext(
            disk=self.store,
            clock_ms=clock_ms,
            fsynced=self.store.fsynced,
            clock_trusted=lambda: not host.clock_is_wrong(),
            runs_are_read=lambda: machine.registry.feature_level >= RUNS_LEVEL,
        )
        self.partitions = Partitions(
            host,
            machine.registry,
            context,
            lacks_room=self.metadata.lacks_room,
            leaves=self.metadata.leaves,
        )
        self.coordinators = Coordinators(member.cluster_id, host, machine.registry, clock_ms)
        peer_server = self.listeners.peer_server
        host.servicer.add_to(peer_server)
        metadata_service_pb2_grpc.add_MetadataPeerServiceServicer_to_server(
            self.metadata.servicer, late(peer_server)
        )
        try:
            await host.listen(self.listeners.lane_socket)
            await host.start()
            await self.metadata.start()
            await self._joined()
            yield
        finally:
            await self.coordinators.close()
            try:
                await self.metadata.stop()
            finally:
                await host.stop()
                self._disk_hangs = host.disk_hangs
                # Not before: others ask for what is led here, and one view knows what is pending.
                self.partitions.close()

    async def _joined(self) -> None:
        """Waits until this node is registered, as long as that takes and the store holds."""
        ready = asyncio.create_task(self.metadata.ready(float("inf")))
        try:
            ends: set[asyncio.Future[Any]] = {ready, self.host.failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self.host.failed.done():
                raise self.host.failed.result()
            await ready
        finally:
            ready.cancel()

    async def _serve(self, stack: AsyncExitStack, member: Member) -> None:
        """Builds the paths and the services over the running host."""
        header = ResponseHeader(cluster_id=member.cluster_id, node_id=member.node_id)
        router = Router(member.node_id, self.metadata.client, self.host.leaders)
        peers = Peers(member.cluster_id, self.host.channel)
        dispatch = Dispatch(member.node_id, self.partitions, peers.link)
        stack.push_async_callback(dispatch.close)
        local = LocalReads(self.partitions)
        lookup = OffsetLookup(router, self.partitions, peers)
        produce = ProduceParts(router, dispatch, InFlight(), Targeting(), header)
        fetcher = Fetcher(router, local, peers)
        budget = ReadBudget()
        log = LogService(LogParts(produce, ProducePath(router, dispatch), fetcher, lookup, budget))
        host = self.host

        def members(group_id: int) -> ConfState | None:
            group = host.group(group_id)
            return None if group is None else group.conf_state

        self.groups = client = GroupClient(router, peers, self.coordinators)
        gateway = Gateway(member.node_id, client)
        stack.push_async_callback(gateway.close)
        group = GroupService(
            GroupParts(
                gateway,
                fetcher,
                budget,
                self.metadata.registry,
                header,
                self.listeners.gate.closing,
            ),
            GroupAdmin(
                GroupAdminParts(
                    client,
                    router,
                    lookup,
                    GroupPages(
                        self.metadata.registry,
                        Standings(router, self.partitions, peers),
                        clock_ms,
                    ),
                    fetcher,
                    header,
                )
            ),
        )
        self.listeners.gate.elsewhere = lambda name: router.elsewhere(name, host.node_is_up)
        describe = Describe(router, header, members)
        cluster = ClusterService(router, host, self.partitions, peers, describe)
        peer = PeerService(member.cluster_id, host, self.partitions, local)
        for name, register in (
            (PeerService.NAME, peer.register),
            (Coordinators.NAME, self.coordinators.register),
        ):
            methods = Methods(name, "", self.listeners.peer_gate)
            register(methods)
            self.listeners.peer_server.add_generic_rpc_handlers((methods.handler(),))
        self._supervise(stack, self.partitions.run_upkeep(), "upkeep of partitions")
        self._supervise(stack, self.coordinators.run(), "coordinators")
        if self.config.unsafe_no_fsync:
            self._supervise(stack, _remind(), "reminder")
        stack.push_async_callback(self._drain)
        await self.listeners.install(
            [
                (LogService.NAME, log.register),
                (TopicService.NAME, TopicService(router, describe).register),
                (ClusterService.NAME, cluster.register),
                (GroupService.NAME, group.register),
            ],
            Filling(host, self.metadata.registry).missing_count,
        )

    def _supervise(
        self, stack: AsyncExitStack, work: Coroutine[None, None, None], name: str
    ) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(end)

    async def _drain(self) -> None:
        """Client calls end first; the leaderships move when the host stops, right after."""
        grace_s = 0.0 if self.host.failed.done() else self.config.tuning.drain_ms / 1000
        await self.listeners.drain(grace_s)


async def _remind() -> None:
    while True:
        logger.warning(
            "--unsafe-no-fsync is set: a power cut may lose records that were acknowledged"
        )
        await asyncio.sleep(UNSAFE_REMINDER_S)
