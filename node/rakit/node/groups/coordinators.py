"""The coordinators of this node: one for each internal partition that it leads, while it leads it.

A coordinator begins when its replica has applied an entry of its own term, so it knows everything
that its predecessors did, and ends when the term is over. Whoever asks for a group that is led
elsewhere is told so; nothing is passed on (S22).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.multiraft.effects import RoleChange
from rakit.multiraft.machine import GroupKind
from rakit.node.errors import RakitError
from rakit.node.groups.client import SERVICE
from rakit.node.groups.coordinator import Coordinator, CoordinatorHost, Replica, Seat
from rakit.node.groups.machine import GroupsMachine
from rakit.node.metadata.registry import Registry
from rakit.node.partition.answers import not_leading
from rakit.node.services.handlers import Call, Methods
from rakit.peer.v1.coordinator_service_pb2 import CoordinateRequest, CoordinateResponse


class LedHere(Protocol):
    """What this node leads."""

    def led_here(self) -> dict[int, int]:
        """The groups that this node leads and may serve, with their terms."""
        ...


class CoordinatorsHost(CoordinatorHost, Protocol):
    """What the coordinators of a node need of the host."""

    node_id: int

    @property
    def leaders(self) -> LedHere:
        """The routing table."""
        ...

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        """Has every role change told; returns what ends that."""
        ...


class Coordinators:
    """See the module. `rakit.peer.v1.CoordinatorService` on one node."""

    NAME: Final = SERVICE

    def __init__(
        self,
        cluster_id: str,
        host: CoordinatorsHost,
        registry: Registry,
        clock_ms: Callable[[], int],
    ) -> None:
        self._cluster_id = cluster_id
        self._host = host
        self._registry = registry
        self._clock_ms = clock_ms
        self._running: dict[int, tuple[Coordinator, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = False
        self._end_roles = host.on_role(self._role_changed)
        for group_id in host.leaders.led_here():
            self._find(group_id)

    def register(self, methods: Methods) -> None:
        """Adds the one method, for peers."""

        async def coordinate(_call: Call, request: CoordinateRequest) -> CoordinateResponse:
            return await self.coordinate(request)

        methods.unary("Coordinate", CoordinateRequest, coordinate)

    async def run(self) -> None:
        """Ends only with the exception of a coordinator that failed: that is a bug."""
        await self._failed

    async def close(self) -> None:
        """Ends all coordinators; who waits is told."""
        self._closed = True
        self._end_roles()
        for group_id in list(self._running):
            self._end(group_id)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def coordinate(self, request: CoordinateRequest) -> CoordinateResponse:
        """Does what is asked of a group whose internal partition this node leads."""
        meant = request.destination
        if (meant.cluster_id, meant.node_id) != (self._cluster_id, self._host.node_id):
            raise RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                f"This is node {self._host.node_id} of cluster {self._cluster_id}, not node"
                f" {meant.node_id} of cluster {meant.cluster_id}.",
            )
        coordinator = self._find(request.group_id)
        if coordinator is None:
            raise self._elsewhere(request.group_id)
        response = CoordinateResponse()
        match request.WhichOneof("request"):
            case "join":
                response.join.CopyFrom(await coordinator.join(request.join))
            case "sync":
                response.sync.CopyFrom(await coordinator.sync(request.sync))
            case "commit":
                response.commit.CopyFrom(await coordinator.commit(request.commit))
            case "release":
                response.release.CopyFrom(await coordinator.release(request.release))
            case "leave":
                response.leave.CopyFrom(await coordinator.leave(request.leave))
            case "describe":
                return await coordinator.describe(request.describe)
            case "list":
                response.list.CopyFrom(await coordinator.list_names(request.list))
            case "drop":
                response.drop.CopyFrom(await coordinator.drop(request.drop))
            case None:
                raise RakitError(
                    error_pb2.ERROR_REASON_INVALID_REQUEST,
                    "Nothing is asked of the coordinator, or something that this version does not"
                    " know.",
                )
        return response

    def _elsewhere(self, group_id: int) -> RakitError:
        replica = self._replica(group_id)
        if replica is None:
            return RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                "This node holds no working replica of the group's partition.",
            )
        mine = replica.leader_replica == replica.meta.replica_id
        return not_leading(0 if mine else replica.leader_replica, replica.term)

    def _replica(self, group_id: int) -> Replica | None:
        replica = self._host.group(group_id)
        if replica is None or replica.meta.kind is not GroupKind.CONSUMERS:
            return None
        return replica

    def _find(self, group_id: int) -> Coordinator | None:
        """The coordinator of this term, begun if need be; None where this node does not lead."""
        replica = self._replica(group_id)
        ready = replica is not None and replica.ready and not self._closed
        held = self._running.get(group_id)
        if held is not None:
            if ready and replica is not None and held[0].term == replica.term:
                return held[0]
            self._end(group_id)
        if not ready or replica is None:
            return None
        machine = replica.machine
        assert isinstance(machine, GroupsMachine), "the group replicates consumer groups"
        seat = Seat(self._host, group_id, self._registry, self._clock_ms)
        coordinator = Coordinator(seat, replica.term, machine)
        task = asyncio.create_task(coordinator.run(), name=f"coordinator of group {group_id}")
        task.add_done_callback(self._task_ended)
        self._running[group_id] = coordinator, task
        return coordinator

    def _end(self, group_id: int) -> None:
        _, task = self._running.pop(group_id)
        self._ending.add(task)
        task.cancel()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)

    def _role_changed(self, change: RoleChange) -> None:
        if change.group_id in self._running or change.ready:
            self._find(change.group_id)
