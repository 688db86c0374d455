"""The metadata service of a node: everything in this package put together and kept running.

`start` makes the node's replica of the metadata group if the disk has none yet, tells the host
where the other nodes are, and starts the tasks: finding nodes, registering this one, and, once the
registry is known to be current, births, membership and leaderships. `ready` returns when the node
is registered as what it is: from then on it has joined.

`failed` resolves when the node must stop: with `NodeRefusedError` when the cluster does not take it
any more, or with the exception of a task that should never end. Nothing here goes on half.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field

from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.multiraft.store import StoreDamagedError
from rakit.multiraft.store.errors import LossKind, LossReport
from rakit.node.errors import RakitError
from rakit.node.metadata.admission import Admission, AdmissionConfig
from rakit.node.metadata.caretaker import Caretaker
from rakit.node.metadata.client import MetadataClient, SubmitServicer
from rakit.node.metadata.directory import Directory
from rakit.node.metadata.formation import Formation
from rakit.node.metadata.founding import first_voters
from rakit.node.metadata.leaderships import Leaderships
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import METADATA_GROUP_ID, NodeInfo, Registry
from rakit.node.metadata.replicas import LedGroups, LocalReplicas
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.raft import ConfState

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetadataConfig:
    """Settings of the metadata service."""

    #: Wall clock of commands; replicas never read it.
    clock_ms: Callable[[], int]
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    #: One attempt to read and register; it is repeated until it succeeds.
    register_timeout_ms: int = 3_000

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        assert self.register_timeout_ms > 0, "a registration takes time"


class MetadataService:
    """See the module."""

    def __init__(
        self,
        config: MetadataConfig,
        host: HostPort,
        machine: MetadataMachine,
        member: Member,
        formation: Formation,
    ) -> None:
        registry = machine.registry
        self.member = member
        self.client = MetadataClient(host, registry, config.clock_ms)
        self.submit_servicer = SubmitServicer()
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._config = config
        self._host = host
        self._formation = formation
        self._directory = Directory(
            host, registry, formation.greeter, formation.config.seeds, formation.standing
        )
        self._admission = Admission(
            config.admission, host, self.client, formation.greeter, config.clock_ms
        )
        self._caretaker = Caretaker(host, self.client, member.founding)
        self._replicas = LocalReplicas(host, registry, member.store_uuid)
        self._led = LedGroups(host, registry)
        self._leaderships = Leaderships(host, registry)
        #: Whether this node has read the registry since its start and is registered in it.
        self.joined = False
        # Joined, or failed.
        self._decided = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def registry(self) -> Registry:
        """The local registry: consistent, and possibly a little behind."""
        return self.client.registry

    async def start(self) -> None:
        """Starts everything; the host has been started. Raises `StoreDamagedError`."""
        if self._host.group(METADATA_GROUP_ID) is None:
            self._make_group()
        self._directory.begin(self.member.peers)
        self.submit_servicer.client = self.client
        self._formation.duties = _Duties(self._directory, self._admission, self._formation)
        for work in (
            self._directory.run(),
            self._caretaker.run(),
            self._led.run(),
            self._leaderships.run(),
            self._register(),
        ):
            self._supervise(work)

    async def ready(self, timeout_seconds: float) -> None:
        """Returns when this node has joined. Raises `NodeRefusedError`, `TimeoutError`."""
        async with asyncio.timeout(timeout_seconds):
            await self._decided.wait()
        if self.failed.done():
            raise self.failed.result()

    async def stop(self) -> None:
        """Ends every task. The host is still running."""
        self._formation.duties = None
        self.submit_servicer.client = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in (
            self._directory,
            self._caretaker,
            self._replicas,
            self._led,
            self._leaderships,
            self.client,
        ):
            part.close()

    def _make_group(self) -> None:
        """Makes this node's replica of the metadata group: as a founder's, or an empty one."""
        member = self.member
        if member.metadata_seen or not member.metadata_replica_id:
            raise _damaged("the metadata group of this node is gone, or shut out for damage")
        conf = None
        if member.founding is not None:
            conf = ConfState(voters=first_voters(member.founding))
        meta = GroupMeta(METADATA_GROUP_ID, member.metadata_replica_id, GroupKind.METADATA)
        try:
            self._host.create_group(meta, conf)
        except GroupRefusedError as error:
            raise _damaged(f"the metadata group cannot be made: {error}") from error

    async def _register(self) -> None:
        """Reads the registry once for certain, makes this node's entry right, starts the rest."""
        registered = False
        while not registered:
            registered = await self._try_to_register()
        # Read for certain in this start: what has no id yet did not exist before it (S8).
        self._host.trust_births_from(self.registry.counters.group_id)
        await self._formation.metadata_was_seen()
        self._supervise(self._replicas.run())
        self.joined = True
        self._decided.set()

    async def _try_to_register(self) -> bool:
        seconds = self._config.register_timeout_ms / 1000
        mine = self._formation.config.description
        try:
            registry = await self.client.barrier(seconds)
            if _is_right(registry.nodes.get(self.member.node_id), mine):
                return True
            register = pb.RegisterNode(node=mine, node_id=self.member.node_id)
            await self.client.submit(pb.MetadataCommand(register_node=register), seconds)
        except NodeRefusedError:
            raise
        except RakitError as error:
            _log.info("not registered yet: %s", error)
            await self._ask_to_be_registered()
            return False
        return True

    async def _ask_to_be_registered(self) -> None:
        """Has a member register this node, or say why it is not taken any more.

        A leader that looks for this node at its old address does not reach it, and one whose
        registry has replaced this store (S11) does not even try.
        """
        request = wire.JoinRequest(node=self._formation.config.description)
        for address in sorted(set(self._directory.book.current.values())):
            seconds = self._config.register_timeout_ms / 1000
            answer = await self._formation.greeter.join(address, request, seconds)
            if answer is not None and answer.HasField("refused"):
                raise NodeRefusedError(answer.refused.node_refusal, answer.refused.message)
            if answer is not None and answer.HasField("accepted"):
                return

    def _supervise(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None or self.failed.done():
            return
        assert isinstance(error, Exception), "anything else ends the loop itself"
        if not isinstance(error, NodeRefusedError):
            _log.critical("a task of the metadata service failed", exc_info=error)
        self.failed.set_result(error)
        self._decided.set()


@dataclass(frozen=True, slots=True)
class _Duties:
    """Implements `MemberDuties`."""

    directory: Directory
    admission: Admission
    formation: Formation

    def greeted(self, standing: wire.Standing) -> None:
        self.directory.greeted(standing)

    def hints(self) -> Iterable[wire.PeerHint]:
        return self.directory.hints()

    async def admit(self, request: wire.JoinRequest) -> wire.JoinResponse:
        me = self.formation.standing()
        mine = wire.PeerHint(node_id=me.node_id, address=me.node.peer_address)
        peers = [mine, *self.directory.hints()]
        return await self.admission.admit(request, me, peers)


def _is_right(known: NodeInfo | None, mine: pb.NodeDescription) -> bool:
    """Whether the registry says of this node what it says of itself."""
    if known is None or (known.name, known.store_uuid) != (mine.name, mine.store_uuid):
        return False
    return known.moved(mine) == known


def _damaged(detail: str) -> StoreDamagedError:
    return StoreDamagedError(LossReport(LossKind.UNREADABLE, detail))
