"""The other nodes, as one piece: streams to and from them, who is up, who leads what, whose clock.

It joins four parts that know nothing of each other: `transport` (streams), `liveness` (up or down),
`leaders` (the routing table) and `hello.StoreMemory` (rolled-back stores), and passes on to the
driver what concerns groups: nodes that came or went, appends that were lost. A node whose step loop
is held up by its disk answers no pings, so that its peers stop counting on it.

An answer to a ping also names replicas that are shut out for a loss of their own, to the node that
leads their groups: only the leader knows whether a majority is well without them (S8). A bounded
number is named at a time, in turns, so that those which cannot be replaced take nobody's place.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from rakit.multiraft.config import HostConfig
from rakit.multiraft.effects import RoleChange
from rakit.multiraft.hello import DATA, Gate, Lane, NodeIdentity, Rollback, StoreMemory
from rakit.multiraft.inbox import Arrival, Inbox
from rakit.multiraft.leaders import Leaders
from rakit.multiraft.liveness import Change, Liveness, NodeChange
from rakit.multiraft.machine import node_of
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.transport import Transport
from rakit.peer.v1 import raft_service_pb2 as wire

_log = logging.getLogger(__name__)

#: Replicas that one answer to a ping names: a disk may be damaged all over, and pings are small.
SHUT_OUT_COUNT_MAX: Final = 64


class GroupInputs(Protocol):
    """The part of the driver that hears of nodes."""

    @property
    def quarantined(self) -> Mapping[int, Quarantined]:
        """The damaged replicas of this node by group id."""
        ...

    def node_up(self, node_id: int) -> None:
        """A node answers."""
        ...

    def node_down(self, node_id: int) -> None:
        """A node is gone."""
        ...

    def leader_ended(self, group_id: int) -> None:
        """The node that was known to lead a group says that it does not."""
        ...

    def lane_shut(self, node_id: int) -> None:
        """The way to that node takes no more appends."""
        ...

    def lane_open(self, node_id: int) -> None:
        """It does again."""
        ...

    def unreachable(self, group_id: int, replica_id: int) -> None:
        """An append to that replica did not leave."""
        ...

    def link_lost(self, node_id: int) -> None:
        """Appends under way to that node are lost."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What `Peers` stands on, given by the host."""

    groups: GroupInputs
    inbox: Inbox
    memory: StoreMemory
    #: Has the step loop run soon.
    wake: Callable[[], None]
    #: Wall clock, for S3 only.
    clock_ms: Callable[[], int]
    #: Monotonic clock of the loop.
    now_ms: Callable[[], int]
    #: The highest write that is known to be durable (S7).
    synced_counter: Callable[[], int]
    #: Whether the step loop makes turns.
    responsive: Callable[[], bool]
    #: Whether the disk is nearly full.
    low_space: Callable[[], bool]


class Peers:
    """Every other node; implements `PeerEvents`."""

    def __init__(
        self, identity: NodeIdentity, config: HostConfig, around: Surroundings, rng: random.Random
    ) -> None:
        self._identity = identity
        self._around = around
        self.liveness = Liveness(config.liveness, around.now_ms())
        self.leaders = Leaders(identity.node_id, self.liveness.is_up)
        self.gate = Gate(
            identity, around.synced_counter, around.memory, self._rolled_back, self.answering
        )
        self.transport = Transport(self.gate, config.link, self, rng)
        self._rolled_back_stores: set[str] = set()
        #: How many replicas each node has shut out, as it said last.
        self.quarantined_counts: dict[int, int] = {}
        #: Replicas of groups led here that other nodes have shut out, as they said last: by node,
        #: the replica of each group.
        self.shut_out: dict[int, dict[int, int]] = {}
        #: Of this node's own: where the next answer begins that cannot name them all.
        self._named_count = 0
        #: Nodes whose disk is nearly full, as they said last.
        self.low_space: set[int] = set()
        #: Called when a node came (True) or went.
        self.node_callbacks: list[Callable[[int, bool], None]] = []
        #: Called when a peer refuses to talk to this node, because of who it is.
        self.turned_away_callbacks: list[Callable[[int], None]] = []

    def set_peer(self, node_id: int, address: str | None) -> None:
        """Takes in where a node is; None: it is no longer part of the cluster."""
        self.transport.set_peer(node_id, address)
        if address is None:
            self._changed(self.liveness.forget(node_id))
            self.low_space.discard(node_id)
            self.shut_out.pop(node_id, None)
        else:
            self.liveness.watch(node_id, self._around.now_ms())

    def answering(self, node_id: int) -> int:
        """Returns the boot epoch of the process that answers for a node at this moment, else 0.

        A process that has ended still counts as up for a moment, but our link to it has broken.
        """
        return self.liveness.boot_epoch(node_id) if self.transport.reaches(node_id) else 0

    def tick(self) -> None:
        """Sends the pings that are due and looks for silence."""
        now_ms = self._around.now_ms()
        self._changed(self.liveness.check(now_ms))
        for node_id in self.transport.peers:
            self._ping_if_due(node_id, now_ms, at_once=False)

    def role_changed(self, change: RoleChange) -> None:
        """Takes in what a replica of this node has become, and tells the peers."""
        term = self.leaders.role_changed(change)
        if term is not None:
            self.transport.announce(change.group_id, term)

    def group_removed(self, group_id: int) -> None:
        """Tells the peers that this node no longer leads a group that it led."""
        term = self.leaders.group_removed(group_id)
        if term is not None:
            self.transport.announce(group_id, term)

    def introduced(self, node_id: int, boot_epoch: int) -> None:
        """See `PeerEvents`."""
        now_ms = self._around.now_ms()
        self._changed(self.liveness.hello(node_id, boot_epoch, now_ms))
        # The round trip that makes it up should not wait for the next tick.
        self._ping_if_due(node_id, now_ms, at_once=not self.liveness.is_up(node_id))

    def disconnected(self, node_id: int, lane: Lane) -> None:
        """See `PeerEvents`."""
        if lane == DATA:
            self._around.groups.link_lost(node_id)
            self._around.wake()

    def refused(self, node_id: int) -> None:
        """See `PeerEvents`."""
        self._changed(self.liveness.refused(node_id))

    def turned_away(self, node_id: int) -> None:
        """See `PeerEvents`."""
        for callback in list(self.turned_away_callbacks):
            callback(node_id)

    def pinged(self, node_id: int, ping: wire.Ping) -> wire.Ping | None:
        """See `PeerEvents`."""
        if not self._around.responsive():
            return None
        pong = self._ping(ping.number)
        shut_out = self._shut_out_for(node_id)
        if len(shut_out) > SHUT_OUT_COUNT_MAX:
            first = self._named_count % len(shut_out)
            self._named_count += SHUT_OUT_COUNT_MAX
            shut_out = (shut_out[first:] + shut_out[:first])[:SHUT_OUT_COUNT_MAX]
        pong.shut_out_group_ids.extend([group_id for group_id, _ in shut_out])
        pong.shut_out_replica_ids.extend([replica for _, replica in shut_out])
        return pong

    def _shut_out_for(self, node_id: int) -> list[tuple[int, int]]:
        """What that node can have replaced, since it leads the group."""
        return [
            (group_id, shut_out.replica_id)
            for group_id, shut_out in self._around.groups.quarantined.items()
            if shut_out.may_be_replaced
            and (leader := self.leaders.get(group_id)) is not None
            and leader.node_id == node_id
        ]

    def ponged(self, node_id: int, pong: wire.Ping) -> None:
        """See `PeerEvents`."""
        clocks = (pong.clock_ms, self._around.clock_ms())
        now_ms = self._around.now_ms()
        self.gate.heard(node_id, pong.boot_epoch, pong.synced_counter)
        self.quarantined_counts[node_id] = pong.quarantined_count
        named = zip(pong.shut_out_group_ids, pong.shut_out_replica_ids, strict=False)
        self.shut_out[node_id] = {
            # A node speaks of its own replicas only.
            group_id: replica
            for group_id, replica in islice(named, SHUT_OUT_COUNT_MAX)
            if node_of(replica) == node_id
        }
        (self.low_space.add if pong.low_space else self.low_space.discard)(node_id)
        self._changed(self.liveness.pong(node_id, pong.number, pong.boot_epoch, clocks, now_ms))

    def announced(self, node_id: int, leaderships: wire.Leaderships) -> None:
        """See `PeerEvents`."""
        led = zip(leaderships.group_ids, leaderships.terms, strict=False)
        deposed = self.leaders.announced(
            node_id, led, leaderships.ended_group_ids, complete=leaderships.complete
        )
        # A farewell may be lost; this is said again with every new stream, so it cannot be.
        for group_id in deposed:
            self._around.groups.leader_ended(group_id)
        if deposed:
            self._around.wake()

    def led_here(self) -> dict[int, int]:
        """See `PeerEvents`."""
        return self.leaders.led_here()

    def lane_changed(self, node_id: int, *, has_room: bool) -> None:
        """See `PeerEvents`."""
        if has_room:
            self._around.groups.lane_open(node_id)
            self._around.wake()
        else:
            self._around.groups.lane_shut(node_id)

    def unreachable(self, group_id: int, replica_id: int) -> None:
        """See `PeerEvents`."""
        self._around.groups.unreachable(group_id, replica_id)

    async def arrived(self, arrival: Arrival) -> None:
        """See `PeerEvents`."""
        await self._around.inbox.put(arrival)

    def _ping_if_due(self, node_id: int, now_ms: int, *, at_once: bool) -> None:
        if self.transport.reaches(node_id):
            number = self.liveness.ping_due(node_id, now_ms, at_once=at_once)
            if number is not None:
                self.transport.ping(node_id, self._ping(number))

    def _ping(self, number: int) -> wire.Ping:
        return wire.Ping(
            number=number,
            boot_epoch=self._identity.boot_epoch,
            clock_ms=self._around.clock_ms(),
            synced_counter=self._around.synced_counter(),
            quarantined_count=len(self._around.groups.quarantined),
            low_space=self._around.low_space(),
        )

    def _rolled_back(self, rollback: Rollback) -> None:
        """Tells people, once: the store calls again and again."""
        if rollback.store_uuid not in self._rolled_back_stores:
            self._rolled_back_stores.add(rollback.store_uuid)
            _log.error("%s", rollback)

    def _changed(self, changes: list[NodeChange]) -> None:
        for each in changes:
            up = each.change is Change.UP
            _log.info("node %d is %s: %s", each.node_id, each.change.value, each.reason)
            if up:
                self._around.groups.node_up(each.node_id)
            else:
                self._around.groups.node_down(each.node_id)
            self.leaders.node_changed(each.node_id)
            for callback in list(self.node_callbacks):
                callback(each.node_id, up)
        if changes:
            self._around.wake()
