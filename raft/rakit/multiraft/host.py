"""The host of many Raft groups: the asyncio half in one object, for the node above it.

It puts together the parts that this package has (driver, step loop, peers, reads) and is what a
node's own code talks to: propose, read, change members, know leaders, know who is up.

Rules:

- Everything runs on one event loop and in one task (`step_loop`); no group has a task, a timer or
  a queue of its own. Calls into the host are plain function calls into the driver; what they
  asked for is done in the next turn, together with everything else that was asked meanwhile.
- Every proposal gets exactly one answer. When the store fails or the host stops, whoever waits is
  told `lost`: the outcome is unknown, never "failed" (S12).
- A caller that gives up waiting changes nothing: its entry is replicated all the same.
- A failed store resolves `failed` and silences this node at once. The node above ends the process.
- Start and stop leave the loop to others: the groups are loaded in steps, and a stop ends within
  the limits of `HostConfig`, also on a disk that hangs. Then `disk_hangs` tells that the store is
  not to be touched any more, not even to be closed: only the end of the process lets go of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import grpc.aio

from rakit.multiraft.barriers import BarrierLostError, Barriers
from rakit.multiraft.config import HostConfig
from rakit.multiraft.driver import Driver, Group
from rakit.multiraft.effects import Completion, Effects, Envelope, RoleChange
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.framed import LaneServer
from rakit.multiraft.hello import (
    FEATURE_LEVEL,
    NodeIdentity,
    Rollback,
    StoreMemory,
    StoreStart,
    next_boot_epoch,
)
from rakit.multiraft.leaders import Leaders
from rakit.multiraft.machine import GroupMeta, MachineFactory, node_of
from rakit.multiraft.peers import Peers, Surroundings
from rakit.multiraft.quarantine import REMEDY_FOR_GOOD, Quarantined
from rakit.multiraft.step_loop import Rim, StepLoop
from rakit.multiraft.store.errors import StoreFailedError
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.transport import RaftPeerServicer
from rakit.raft import ConfChange, ConfState, EntryID, Payload, Role

_log = logging.getLogger(__name__)


class HostStoppedError(ProposalRefusedError):
    """The host has stopped or its store has failed; nothing was proposed."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An entry on its way, and the future of its one answer."""

    entry: EntryID
    done: asyncio.Future[Completion]


class Host:
    """All groups of a node, from `start` to `stop`."""

    def __init__(
        self,
        config: HostConfig,
        node_id: int,
        cluster_id: str,
        store: RocksStore,
        factory: MachineFactory,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self.config = config
        self.node_id = node_id
        self._store = store
        self._loop = asyncio.get_running_loop()
        rng = random.Random()
        settings = dataclasses.replace(
            config.driver, boot=store.boot, doubtful=bool(store.loss.doubt)
        )
        self.driver = Driver(settings, node_id, store, factory, rng)
        memory = StoreMemory(store)
        rim = Rim(
            send=self._send,
            can_send=self._can_send,
            synced=self._synced,
            deliver=self._deliver,
            prepare=self._prepare,
            tick=self._tick,
            failed=self._store_failed,
        )
        self._steps = StepLoop(config, self.driver, store, memory, rim)
        epoch, self._boot_note = next_boot_epoch(store, clock_ms())
        self.identity = NodeIdentity(
            cluster_id, node_id, store.store_uuid, epoch, store.opened_counter
        )
        around = Surroundings(
            groups=self.driver,
            inbox=self._steps.inbox,
            memory=memory,
            wake=self._steps.wake,
            clock_ms=clock_ms,
            now_ms=lambda: int(self._loop.time() * 1000),
            # Without fsync nothing is durable, and peers must not hold a loss against this store.
            synced_counter=lambda: store.synced_counter if store.fsynced else 0,
            responsive=lambda: self._steps.responsive,
            low_space=lambda: store.low_space,
        )
        self._peers = Peers(self.identity, config, around, rng)
        self._barriers = Barriers(self.driver.read_index, config.barrier_count_max)
        self._waiting: dict[asyncio.Future[Completion], tuple[int, EntryID]] = {}
        self._applied_callbacks: dict[int, list[Callable[[], None]]] = {}
        self._role_callbacks: list[Callable[[RoleChange], None]] = []
        self._something_changed = asyncio.Event()
        self._stopped = False
        self._lost_logs: set[tuple[int, int]] = set()
        self._memory = memory
        #: After `stop`: a flush never came back.
        self.disk_hangs = False
        #: Resolves when the store is poisoned; nothing leaves this node any more.
        self.failed: asyncio.Future[StoreFailedError] = self._loop.create_future()
        #: To be added to the server that peers connect to.
        self.servicer = RaftPeerServicer(self._peers.transport)
        self._lane_server = LaneServer(self._peers.transport.accept_frames)

    async def listen(self, bound: socket.socket) -> None:
        """Has peers open their data lanes as frames on a socket; it is closed with the host."""
        self._peers.transport.lane_port = bound.getsockname()[1]
        self._lane_server.start(bound)

    async def start(self) -> None:
        """Loads the groups from the store and begins to step them."""
        for _ in self.driver.loading():
            await asyncio.sleep(0)
        await self._steps.start(self._boot_note)

    async def stop(self) -> None:
        """Hands leaderships over, flushes, and ends everything. The store stays open."""
        if self._stopped:
            return
        try:
            if not self.failed.done():
                await self._hand_over()
                await self._flush()
        finally:
            self._stopped = True
            try:
                await self._peers.transport.close()
                await self._lane_server.close()
            finally:
                await self._end_steps()

    async def _end_steps(self) -> None:
        try:
            self.disk_hangs = not await self._steps.stop()
        finally:
            self._give_up("the host stopped")
        if self.disk_hangs:
            _log.critical("a flush has not come back: the disk hangs, and the store stays open")

    # Groups.

    @property
    def groups(self) -> Mapping[int, Group]:
        """The working replicas of this node."""
        return self.driver.groups

    def group(self, group_id: int) -> Group | None:
        """Returns a replica of this node."""
        return self.driver.group(group_id)

    @property
    def quarantined(self) -> Mapping[int, Quarantined]:
        """The replicas of this node that are shut out (S5, S9)."""
        return self.driver.quarantined

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        """Creates a replica; `conf` is None for one that joins later.

        `first_leader` is the replica that stands for election first while the group is newborn.
        Raises `GroupRefusedError`.
        """
        self._refuse_if_stopped()
        self.driver.create_group(meta, conf, first_leader)
        self._steps.wake()

    def remove_group(self, group_id: int) -> None:
        """Removes a replica for good: its id is dead from now on."""
        self._refuse_if_stopped()
        self.driver.remove_group(group_id)
        self._peers.group_removed(group_id)
        self._steps.wake()

    def trust_births_from(self, group_id: int) -> None:
        """Takes in that no group from this id on existed when this start began.

        To be called after a first linearizable read of what gives out the ids (S8; see `boot`).
        """
        self._refuse_if_stopped()
        self.driver.trust_births_from(group_id)
        self._steps.wake()

    def quarantine(self, group_id: int, reason: str, *, for_good: bool = True) -> None:
        """Shuts a replica out that a reader could not read (S9); its data stays."""
        self._refuse_if_stopped()
        self.driver.quarantine(group_id, reason, for_good=for_good)
        self._steps.wake()

    def propose(self, group_id: int, *pieces: Payload) -> Proposal:
        """Appends an entry, of these pieces in a row, to a group that this node leads.

        Raises `NotLeadingError`, `OverloadedError`, `UnknownGroupError`: nothing was appended.
        """
        self._refuse_if_stopped()
        done: asyncio.Future[Completion] = self._loop.create_future()
        entry = self.driver.propose(group_id, pieces, done)
        self._waiting[done] = (group_id, entry)
        self._steps.proposed(sum(map(len, pieces)))
        return Proposal(entry, done)

    async def change_membership(self, group_id: int, change: ConfChange) -> Completion:
        """Changes a group's members and returns when that is applied or lost.

        Raises as `propose` does, and `ConfChangeRefusedError`.
        """
        self._refuse_if_stopped()
        done: asyncio.Future[Completion] = self._loop.create_future()
        entry = self.driver.propose_conf_change(group_id, change, done)
        self._waiting[done] = (group_id, entry)
        self._steps.wake()
        return await done

    async def read_barrier(self, group_id: int) -> int:
        """Returns an applied index that everything acknowledged before this call lies up to.

        Raises `BarrierLostError` when no leader confirmed it, `UnknownGroupError`,
        `OverloadedError`.
        """
        self._refuse_if_stopped()
        self._steps.wake()
        return await self._barriers.read(group_id)

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        """Asks a group that this node leads to be led by another voter."""
        self._refuse_if_stopped()
        self.driver.transfer_leader(group_id, to_replica)
        self._steps.wake()

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Has a callback called when the group's applied index grew; returns what ends that."""
        callbacks = self._applied_callbacks.setdefault(group_id, [])
        callbacks.append(callback)

        def end() -> None:
            callbacks.remove(callback)
            if not callbacks and self._applied_callbacks.get(group_id) is callbacks:
                del self._applied_callbacks[group_id]

        return end

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        """Has a callback called at every change of a replica's role; returns what ends that."""
        self._role_callbacks.append(callback)
        return lambda: self._role_callbacks.remove(callback)

    # Nodes.

    @property
    def leaders(self) -> Leaders:
        """Which node leads which group, here and elsewhere."""
        return self._peers.leaders

    def set_peer(self, node_id: int, address: str | None) -> None:
        """Takes in where a node is; None: it is no longer part of the cluster."""
        if node_id != self.node_id and not self._stopped:
            self._peers.set_peer(node_id, address)

    def channel(self, node_id: int) -> grpc.aio.Channel:
        """Returns the channel to a peer for the node's own calls; raises `UnknownPeerError`."""
        return self._peers.transport.channel(node_id)

    def node_is_up(self, node_id: int) -> bool:
        """Tells whether a node answered lately; this one always did."""
        return node_id == self.node_id or self._peers.liveness.is_up(node_id)

    def feature_level(self, store_uuid: str) -> int:
        """Returns what the version reads that greeted last on a store; 0: none has told it."""
        if store_uuid == self.identity.store_uuid:
            return FEATURE_LEVEL
        return self._memory.feature_level(store_uuid)

    def round_trip_ms(self, node_id: int) -> int | None:
        """Returns how long the newest ping of a peer took."""
        return self._peers.liveness.round_trip_ms(node_id)

    def on_node(self, callback: Callable[[int, bool], None]) -> Callable[[], None]:
        """Has a callback told of nodes that came (True) or went; returns what ends that."""
        self._peers.node_callbacks.append(callback)
        return lambda: self._peers.node_callbacks.remove(callback)

    def refuse_replaced(self, is_replaced: Callable[[int, str], bool]) -> None:
        """From now on, peers on a store that lost its node id to another one are refused (S11)."""
        self._peers.gate.is_replaced = is_replaced

    def on_turned_away(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Has a callback told of a peer that refuses this node because of who it is."""
        self._peers.turned_away_callbacks.append(callback)
        return lambda: self._peers.turned_away_callbacks.remove(callback)

    def rollback_of(self, start: StoreStart) -> Rollback | None:
        """Returns what a start of a store lacks that the store had (S7); None: nothing is known."""
        return self._peers.gate.rollback_of(start)

    def answering(self, node_id: int) -> int:
        """Returns the boot epoch of the process that answers for a peer at this moment, else 0."""
        return self._peers.answering(node_id)

    def clock_skew_ms(self) -> int | None:
        """Returns this node's clock minus the median of all; None without a clock to compare."""
        return self._peers.liveness.clock_skew_ms()

    def clock_is_wrong(self) -> bool:
        """Tells whether this node must not decide about retention by its clock (S3)."""
        return self._peers.liveness.clock_is_wrong()

    @property
    def loop_lag_ms(self) -> float:
        """How late the event loop was at the newest tick."""
        return self._steps.lag_ms

    # What needs a person.

    def quarantined_count(self, node_id: int) -> int:
        """Returns how many replicas a node has shut out, as it said last."""
        if node_id == self.node_id:
            return len(self.quarantined)
        return self._peers.quarantined_counts.get(node_id, 0)

    @property
    def damaged_store(self) -> str:
        """The damage for which this node's store rewrites no tables (S9); empty: none."""
        return self._store.uncompacted

    def has_room(self, node_id: int) -> bool:
        """Tells whether a node's disk takes more records, as it said last."""
        if node_id == self.node_id:
            return not self._store.low_space
        return node_id not in self._peers.low_space

    @property
    def somebody_lacks_room(self) -> bool:
        """Tells whether `has_room` is false for any node."""
        return self._store.low_space or bool(self._peers.low_space)

    @property
    def lost_logs(self) -> list[tuple[int, int]]:
        """Groups and their members elsewhere that came back without what they had acknowledged."""
        return [
            (group_id, replica)
            for group_id, replica in sorted(self._lost_logs)
            if (group := self.group(group_id)) is not None and replica in group.conf_state
        ]

    @property
    def damaged_groups(self) -> list[int]:
        """Groups led here that have, or had, damaged replicas elsewhere, ascending."""
        named = self._peers.shut_out.values()
        shut_out = {group_id for replicas in named for group_id in replicas}
        return sorted(shut_out.union(group_id for group_id, _ in self.lost_logs))

    def shut_out_elsewhere(self, group_id: int) -> set[int]:
        """The replicas of a group led here that other nodes have shut out for good (S9).

        As their nodes said last, for a loss of their own; of nodes that are up.
        """
        return {
            replicas[group_id]
            for node_id, replicas in self._peers.shut_out.items()
            if group_id in replicas and self.node_is_up(node_id)
        }

    @property
    def rolled_back_stores(self) -> list[Rollback]:
        """Stores of other nodes that went back in time and are not talked to any more (S7)."""
        return self._memory.rollbacks()

    # What the step loop calls.

    def _prepare(self) -> None:
        self._barriers.begin()

    def _tick(self) -> None:
        self._peers.tick()

    def _synced(self, write: int) -> None:
        self._peers.transport.synced(write)
        self._something_changed.set()

    def _can_send(self) -> bool:
        return self._peers.transport.can_send

    def _send(self, envelopes: list[Envelope]) -> bool:
        return self._peers.transport.send(envelopes)

    def _deliver(self, effects: Effects) -> None:
        for completion in effects.completions:
            done = cast("asyncio.Future[Completion]", completion.token)
            self._waiting.pop(done, None)
            if not done.done():
                done.set_result(completion)
        for ready in effects.reads:
            self._barriers.finish(ready)
        for change in effects.roles:
            self._peers.role_changed(change)
            for role_callback in list(self._role_callbacks):
                role_callback(change)
        for group_id, shut_out in effects.quarantined:
            if shut_out.for_good and not shut_out.at_fault:
                self._store.keep_for_a_person()
            _log.error(
                "group %d is shut out on this node %s: %s. Its data stays on the disk; its other"
                " replicas go on unless they met the same. %s",
                group_id,
                "for good" if shut_out.for_good else "until it starts again",
                shut_out.reason,
                shut_out.remedy,
            )
        for group_id, replica in effects.lost_logs:
            if (group_id, replica) not in self._lost_logs:
                _log.error(
                    "replica %d of group %d on node %d came back without entries that it had"
                    " acknowledged: its disk went back or lies about its syncs. It counts no more;"
                    " look after that disk. %s",
                    replica,
                    group_id,
                    node_of(replica),
                    REMEDY_FOR_GOOD,
                )
        self._lost_logs.update(effects.lost_logs)
        for group_id in effects.applied:
            for callback in list(self._applied_callbacks.get(group_id, ())):
                callback()

    # The end.

    def _refuse_if_stopped(self) -> None:
        if self._stopped or self.failed.done():
            raise HostStoppedError("this node's host has stopped")

    def _store_failed(self, error: StoreFailedError) -> None:
        _log.critical("the store failed, nothing leaves this node any more: %s", error)
        self._peers.transport.stop_sending()
        if not self.failed.done():
            self.failed.set_result(error)
        self._give_up("the store failed")
        self._something_changed.set()

    def _give_up(self, why: str) -> None:
        """Answers everybody who waits: the outcome is unknown."""
        waiting, self._waiting = self._waiting, {}
        for done, (group_id, entry) in waiting.items():
            if not done.done():
                done.set_result(Completion(done, group_id, entry, lost=True))
        self._barriers.give_up(BarrierLostError(why))

    async def _hand_over(self) -> None:
        """Asks other voters to take over what this node leads, and waits a bounded time."""
        targets = {each: self.driver.hand_over(each) for each in tuple(self.driver.groups)}
        wanted = {group_id: target for group_id, target in targets.items() if target}
        self._steps.wake()

        def led() -> int:
            """Counts what is still led here and wanted by a node that is still there."""
            return sum(
                group.role is Role.LEADER and self.node_is_up(node_of(target))
                for group_id, target in wanted.items()
                if (group := self.driver.group(group_id)) is not None
            )

        if not await self._wait_until(lambda: not led(), self.config.stop_transfer_ms_max):
            _log.warning("%d leaderships were not handed over in time", led())

    async def _flush(self) -> None:
        self.driver.write_held()
        self._steps.wake()
        flushed = await self._wait_until(
            lambda: not self.driver.held_is_due and self._steps.flushed and not self._waiting,
            self.config.stop_flush_ms_max,
        )
        if not flushed:
            _log.warning("stopped with %d proposals unanswered", len(self._waiting))

    async def _wait_until(self, holds: Callable[[], bool], ms_max: int) -> bool:
        """Waits for a condition that only the step loop's turns can bring about."""
        try:
            async with asyncio.timeout(ms_max / 1000):
                while not holds() and not self.failed.done():
                    self._something_changed.clear()
                    await self._something_changed.wait()
        except TimeoutError:
            return False
        return True
