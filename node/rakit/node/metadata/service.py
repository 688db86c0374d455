"""The metadata service of a node: everything in this package put together and kept running.

`start` makes the node's replica of the metadata group if the disk has none yet, tells the host
where the other nodes are, and starts the tasks: finding nodes, registering this one, and, once the
registry is known to be current, births, membership and leaderships. `ready` returns when the node
is registered as what it is: from then on it has joined. Later it asks again whenever its peers
refuse it or it hears of no leader: its place may have been given to another store.

`failed` resolves when the node must stop: with `NodeRefusedError` when the cluster does not take it
any more, or with the exception of a task that should never end. Nothing here goes on half.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.hello import FEATURE_LEVEL
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.multiraft.store import StoreDamagedError
from rakit.multiraft.store.errors import LossKind, LossReport
from rakit.node.errors import RakitError
from rakit.node.metadata.admission import Admission, AdmissionConfig
from rakit.node.metadata.caretaker import Caretaker
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.directory import Directory
from rakit.node.metadata.evictions import Evictions
from rakit.node.metadata.formation import Formation
from rakit.node.metadata.founding import first_voters
from rakit.node.metadata.leaderships import Leaderships
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import METADATA_GROUP_ID, NodeInfo, Registry
from rakit.node.metadata.replicas import LedGroups, LocalReplicas
from rakit.node.metadata.servicer import PeerServicer
from rakit.node.metadata.sparing import Sparing
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.raft import ConfState

_log = logging.getLogger(__name__)

#: Without a leader of the metadata group for so long, a node asks whether it still belongs; and so
#: long it waits before it asks again.
STRAY_SECONDS: Final = 5.0
#: Between two requests to be registered.
_ASK_AGAIN_SECONDS: Final = 0.2


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
        self.servicer = PeerServicer()
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
        self._evictions = Evictions(host, self.client)
        #: Whether this node has read the registry since its start and is registered in it.
        self.joined = False
        # Joined, or failed.
        self._decided = asyncio.Event()
        self._sparing = Sparing(host, self.client)
        self._duties = _Duties(self._directory, self._admission, self._sparing, formation)
        # Who refused this node's hello since it asked for the last time whether it belongs.
        self._turned_away_by = set[int]()
        self._was_turned_away = asyncio.Event()
        self._unsubscribe = host.on_turned_away(self._turned_away)
        host.refuse_replaced(registry.is_replaced)
        formation.boot_epoch = host.identity.boot_epoch
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def registry(self) -> Registry:
        """The local registry: consistent, and possibly a little behind."""
        return self.client.registry

    def lacks_room(self, group_id: int) -> bool:
        """Whether a group led here is to take no records, for want of room."""
        return self._leaderships.lacks_room(group_id)

    def leaves(self, group_id: int) -> bool:
        """Whether this node, whose disk is nearly full, has somebody to lead a group instead."""
        return self._leaderships.leaves(group_id)

    async def start(self) -> None:
        """Starts everything; the host has been started. Raises `StoreDamagedError`."""
        if self._host.group(METADATA_GROUP_ID) is None:
            self._make_group()
        self._directory.begin(self.member.peers)
        self.servicer.client, self.servicer.sparing = self.client, self._sparing
        self._formation.duties = self._duties
        for work in (
            self._directory.run(),
            self._caretaker.run(),
            self._led.run(),
            self._leaderships.run(),
            self._evictions.run(),
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
        self.servicer.client = self.servicer.sparing = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unsubscribe()
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
            raise self._without_its_group()
        conf = None
        if member.founding is not None:
            conf = ConfState(voters=first_voters(member.founding))
        meta = GroupMeta(METADATA_GROUP_ID, member.metadata_replica_id, GroupKind.METADATA)
        try:
            self._host.create_group(meta, conf)
        except GroupRefusedError as error:
            raise _damaged(f"the metadata group cannot be made: {error}") from error

    def _without_its_group(self) -> StoreDamagedError:
        """The replica is gone that was seen at work, or shut out. It is lost if it is at fault.

        One that is gone may only be hidden, by a read that failed at this start.
        """
        shut_out = self._host.quarantined.get(METADATA_GROUP_ID)
        is_lost = shut_out is not None and shut_out.may_be_replaced
        why = "gone" if shut_out is None else f"shut out: {shut_out.reason}"
        return _damaged(f"this node's replica of the metadata group is {why}", is_lost=is_lost)

    async def _register(self) -> None:
        """Reads the registry once for certain, makes this node's entry right, starts the rest."""
        while not await self._is_registered():
            if not await self._ask_to_be_registered():
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
        # Read for certain in this start: what has no id yet did not exist before it (S8).
        self._host.trust_births_from(self.registry.counters.group_id)
        await self._formation.metadata_was_seen()
        self._supervise(self._replicas.run())
        self._supervise(self._stay_registered())
        self.joined = True
        self._decided.set()

    async def _is_registered(self) -> bool:
        try:
            registry = await self.client.barrier(self._config.register_timeout_ms / 1000)
        except RakitError as error:
            _log.info("not registered yet: %s", error)
            return False
        mine = self._formation.config.description
        return _is_right(registry.nodes.get(self.member.node_id), mine)

    async def _ask_to_be_registered(self) -> bool:
        """Has the leader register this node; raises `NodeRefusedError` when it is not taken.

        Others are asked as well: a leader that looks for this node at its old address does not
        reach it, and one whose registry has replaced this store (S11) does not even try. Those who
        do not talk to this node come first, because they know why.
        """
        request = wire.JoinRequest(
            node=self._formation.config.description,
            node_id=self.member.node_id,
            boot_epoch=self._host.identity.boot_epoch,
            opened_counter=self._host.identity.opened_counter,
            feature_level=FEATURE_LEVEL,
        )
        if _accepted(await self._duties.admit(request)):
            return True
        seconds = self._config.register_timeout_ms / 1000
        request.destination.cluster_id = self.member.cluster_id
        hostile, self._turned_away_by = self._turned_away_by, set[int]()
        book = self._directory.book.current
        for node_id in sorted(book, key=lambda one: (one not in hostile, one)):
            request.destination.node_id = node_id
            if _accepted(await self._formation.greeter.join(book[node_id], request, seconds)):
                return True
        return False

    async def _stay_registered(self) -> None:
        """Asks again whether this node belongs, when the others seem to go on without it.

        It may have been paused or cut off until another store took its place (S11): then nobody
        talks to it, and it must not stay beside its successor.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STRAY_SECONDS):
                    await self._was_turned_away.wait()
            if self._was_turned_away.is_set():
                sign = "other nodes do not talk to this one"
            elif not self.client.leader_node():
                sign = "no leader of the metadata group is known"
            else:
                continue
            self._was_turned_away.clear()
            _log.warning("%s; it asks whether it still belongs", sign)
            await self._ask_to_be_registered()
            # Links try again several times a second, and are turned away each time.
            await asyncio.sleep(STRAY_SECONDS)

    def _turned_away(self, node_id: int) -> None:
        self._turned_away_by.add(node_id)
        self._was_turned_away.set()

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
    sparing: Sparing
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

    async def give_up(self, request: wire.GiveUpRequest) -> wire.GiveUpResponse:
        return await self.sparing.asked(request)


def _is_right(known: NodeInfo | None, mine: pb.NodeDescription) -> bool:
    """Whether the registry says of this node what it says of itself."""
    if known is None or (known.name, known.store_uuid) != (mine.name, mine.store_uuid):
        return False
    return known.moved(mine) == known


def _accepted(answer: wire.JoinResponse | None) -> bool:
    """Raises `NodeRefusedError` if the node is not taken."""
    if answer is not None and answer.HasField("refused"):
        raise NodeRefusedError(answer.refused.node_refusal, answer.refused.message)
    return answer is not None and answer.HasField("accepted")


def _damaged(detail: str, *, is_lost: bool = False) -> StoreDamagedError:
    return StoreDamagedError(LossReport(LossKind.UNREADABLE, detail), is_lost=is_lost)
