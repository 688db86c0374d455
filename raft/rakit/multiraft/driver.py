"""The pure driver: every group of a node as one object without task, clock, socket or file (S19).

    inputs     receive, tick, propose, read_index, node_up, node_down    change state only
    output     advance() -> Effects: sends, ONE write batch, answers     for all groups at once
    feedback   written(n), synced(n)                                     numbers of effects

A shell feeds it and carries out the effects; the simulator is such a shell. Everything that the
groups of a node have to write at one moment goes into one batch and is made durable by one sync.

Rules:

- Costs follow the work: a step visits the groups that have something to do, a tick the groups that
  are awake. Quiet groups are in neither set.
- Batches are written in the order of their numbers; a batch that was refused is submitted again,
  the same, before any later one (S12). The driver need not know.
- A group that fails, by its disk, by its core or by its machine, is shut out alone: everyone who
  waits for it is told that the outcome is unknown, its peers are told to elect another, and the
  node goes on (S9). An assertion is a bug and stops the node.
- Nothing is sent before the number of this boot is durable (see `boot`).

The parts: `roster` makes and unmakes replicas, `stepping` turns Readys into effects, `elections`
plans campaigns, `quiesce` lets idle groups rest, `stall` hands leaderships away from a slow disk.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from rakit.multiraft import boot, farewell, quiesce
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Completion, Effects, Envelope, ReadReady, RoleChange
from rakit.multiraft.elections import Agenda, turn
from rakit.multiraft.errors import (
    ConfChangeRefusedError,
    MachineFailedError,
    NotLeadingError,
    OverloadedError,
    ProposalRefusedError,
    StoreCorruptError,
    UnknownGroupError,
)
from rakit.multiraft.group import Group
from rakit.multiraft.kv import KeyValue
from rakit.multiraft.machine import GroupMeta, MachineFactory, node_of
from rakit.multiraft.roster import BIRTH_INDEX, Roster
from rakit.multiraft.stall import StallWatch
from rakit.multiraft.stepping import give_up, land, lose_reads, step_group
from rakit.multiraft.waiters import ReadContexts
from rakit.raft import (
    ConfChange,
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfState,
    EntryID,
    MalformedConfChangeError,
    Message,
    MessageType,
    NotLeaderError,
    ProposalDroppedError,
    ReadLimitError,
    ReplicaFatalError,
    Role,
    StepRefusedError,
    TransferPendingError,
    TransferRefusedError,
)

__all__ = [
    "Completion",
    "Driver",
    "DriverConfig",
    "Effects",
    "Envelope",
    "Group",
    "ReadReady",
    "RoleChange",
]

#: What shuts one group out and leaves the others alone.
_GROUP_FATAL = (
    ReplicaFatalError,
    StoreCorruptError,
    MachineFailedError,
    MalformedConfChangeError,
    ConfChangeInvalidError,
)
_VOTE_REQUESTS = frozenset({MessageType.PRE_VOTE, MessageType.VOTE})
_PULSES = frozenset({MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP})


class Driver:
    """All groups of one node.

    Invariants:

    - `_awake` holds exactly the groups that are not quiet; `_dirty` those that may have a Ready.
    - `_landing` ascends by number: which groups wait for the sync of which batch.
    - `_pending` collects what inputs ask for beside Readys, until the next `advance`.
    """

    def __init__(
        self,
        config: DriverConfig,
        node_id: int,
        disk: KeyValue,
        factory: MachineFactory,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._roster = Roster(config, node_id, disk, factory, rng)
        self._agenda = Agenda(
            config.campaign_turn_ticks, config.election_ticks, config.campaigns_per_tick_max, rng
        )
        self._stall = StallWatch(config.election_ticks // 2)
        self._contexts = ReadContexts(rng.getrandbits(64))
        self._up: set[int] = {node_id}
        self._awake: dict[int, Group] = {}
        self._dirty: dict[int, Group] = {}
        self._landing: deque[tuple[int, list[int]]] = deque()
        #: (number, group) of bases that are in memory until their batch is written.
        self._held_bases: deque[tuple[int, Group]] = deque()
        self._pending = Effects(0)
        #: Leave behind everything else of their step: a heartbeat after one would undo it.
        self._farewells: list[Envelope] = []
        self._number = 0
        self._written = 0
        self._synced = 0
        self._now = 0

    # Groups.

    @property
    def groups(self) -> Mapping[int, Group]:
        """The working replicas of this node by group id."""
        return self._roster.groups

    @property
    def quarantined(self) -> dict[int, str]:
        """The damaged replicas of this node by group id, with the reason."""
        return {group_id: one.reason for group_id, one in self._roster.quarantined.items()}

    def group(self, group_id: int) -> Group | None:
        """Returns a working replica, or None."""
        return self._roster.groups.get(group_id)

    @property
    def awake_count(self) -> int:
        """How many replicas are ticked; the others are quiet."""
        return len(self._awake)

    @property
    def tail_cache_bytes(self) -> int:
        """Memory that the recent entries of every group take now."""
        return self._roster.tail_cache_bytes

    def load(self) -> None:
        """Opens the store's groups; the damaged ones are in the next effects (S5, S9)."""
        self._roster.load(self._pending.batch)
        self._pending.must_sync = True
        for group_id, reason in self.quarantined.items():
            self._pending.quarantined.append((group_id, reason))
        for group in self._roster.groups.values():
            self._enter(group, None)

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        """Makes a replica of this node, once; `conf` is None for a later replica.

        Raises `GroupRefusedError` for a dead replica id, or beside another living replica.
        """
        group = self._roster.create(meta, conf, self._pending.batch)
        if group is None:
            return
        self._pending.must_sync = True
        if conf is not None:
            self._hold_base(group, self._number + 1)
        self._enter(group, first_leader)

    def remove_group(self, group_id: int) -> None:
        """Buries the replica and wipes its data; unknown groups are ignored."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            self._leave(group)
        if group is not None or group_id in self._roster.quarantined:
            self._roster.remove(group_id, self._pending.batch)
            self._pending.must_sync = True

    def quarantine(self, group_id: int, reason: str) -> None:
        """Shuts a replica out, because a reader found it damaged; its data stays."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            self._shut_out(group, reason)

    def _enter(self, group: Group, first_leader: int | None) -> None:
        """Lets a replica take part, and campaign soon if it is newborn or alone (S16)."""
        group_id, own = group.meta.group_id, group.meta.replica_id
        self._awake[group_id] = self._dirty[group_id] = group
        voters = group.conf_state.voters
        if own not in voters:
            return
        if voters == (own,) and not group.conf_state.voters_outgoing:
            self._campaign(group)
        elif group.storage.last_index() == BIRTH_INDEX:
            rank = turn(group.conf_state, group_id, own, lambda _: True, first_leader)
            self._agenda.plan(group_id, self._now, rank)

    def _leave(self, group: Group) -> None:
        """Lets go of a replica: its waiters are answered, its peers told, its leader role ends."""
        group_id = group.meta.group_id
        self._farewells += farewell.envelopes(group)
        give_up(group, self._pending)
        self._pending.roles.append(RoleChange(group_id, Role.FOLLOWER, 0, group.term, ready=False))
        self._awake.pop(group_id, None)
        self._dirty.pop(group_id, None)
        self._agenda.cancel(group_id)

    def _shut_out(self, group: Group, reason: str) -> None:
        self._leave(group)
        self._roster.shut_out(group, reason)
        self._pending.quarantined.append((group.meta.group_id, reason))

    def _guarded(self, group: Group, act: Callable[[], object]) -> bool:
        """Runs a call into the group; a failure that is the group's own shuts it out."""
        try:
            act()
        except _GROUP_FATAL as error:
            self._shut_out(group, f"{type(error).__name__}: {error}")
            return False
        return True

    # Messages and ticks.

    def receive(self, envelope: Envelope) -> None:
        """Takes a message; what is not for a replica here is dropped (row 14)."""
        group = self._roster.groups.get(envelope.group_id)
        message = envelope.message
        if (
            group is None
            or envelope.to_replica != group.meta.replica_id
            or envelope.from_replica != message.from_
        ):
            return
        if farewell.is_farewell(message):
            self._orphaned(group, message)
            return
        if group.quiet:
            if not quiesce.disturbs(group, message):
                return
            self._wake(group)
        elif message.context and quiesce.may_rest(group, message, self._is_up):
            self._rest(group)
            return
        if message.type not in _PULSES:
            group.idle_ticks = 0
            if message.type in _VOTE_REQUESTS:
                self._agenda.give_way(envelope.group_id, self._now)
        try:
            group.raw.step(message)
        except StepRefusedError:
            # The core has changed nothing; the sender repeats what matters.
            return
        except _GROUP_FATAL as error:
            self._shut_out(group, f"{type(error).__name__}: {error}")
            return
        self._dirty[envelope.group_id] = group

    def tick(self) -> None:
        """Lets one tick pass for every group that is awake."""
        self._now += 1
        rest_after = self._config.quiesce_ticks
        for group in tuple(self._awake.values()):
            if not self._guarded(group, group.raw.tick):
                continue
            busy = group.raw.has_ready()
            if busy:
                self._dirty[group.meta.group_id] = group
            if len(group.reads):
                self._tick_reads(group)
            if group.role is Role.LEADER and rest_after:
                group.idle_ticks += 1
                if group.idle_ticks >= rest_after and not busy:
                    self._try_to_rest(group)
        for group_id in self._agenda.due(self._now):
            self._take_turn(group_id)
        if self._stall.overdue(self._now):
            for group in tuple(self._led_groups()):
                self._step_down(group)

    def _tick_reads(self, group: Group) -> None:
        lose_reads(group, group.reads.expire(self._now), self._pending)
        if group.reads.queued:
            self._dirty[group.meta.group_id] = group

    # Requests.

    def propose(self, group_id: int, data: bytes, token: object) -> EntryID:
        """Appends an entry and returns its id; one `Completion` with `token` follows.

        Raises `NotLeadingError`, `OverloadedError` or `UnknownGroupError`: then nothing happened.
        """
        group = self._working(group_id)
        return self._proposed(group, lambda: group.raw.propose(data), token)

    def propose_conf_change(self, group_id: int, change: ConfChange, token: object) -> EntryID:
        """Appends a configuration change; raises `ConfChangeRefusedError` beside the others."""
        group = self._working(group_id)
        return self._proposed(group, lambda: group.raw.propose_conf_change(change), token)

    def _proposed(self, group: Group, propose: Callable[[], EntryID], token: object) -> EntryID:
        try:
            entry = propose()
        except NotLeaderError as error:
            raise NotLeadingError(error.lead, group.term) from error
        except TransferPendingError as error:
            raise NotLeadingError(0, group.term) from error
        except (ConfChangePendingError, ConfChangeInvalidError) as error:
            raise ConfChangeRefusedError(str(error)) from error
        except ProposalDroppedError as error:
            raise OverloadedError(str(error)) from error
        group.proposals.add(entry, token)
        self._touch(group)
        return entry

    def read_index(self, group_id: int, token: object) -> None:
        """Asks for a linearizable read; one `ReadReady` with `token` follows."""
        group = self._working(group_id)
        if len(group.reads) >= self._config.reads_count_max:
            raise OverloadedError(f"{len(group.reads)} reads wait in group {group_id}")
        group.reads.add(token, self._now + self._config.read_timeout_ticks)
        self._touch(group)

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        """Starts to hand leadership over; raises a `ProposalRefusedError` if it cannot be."""
        group = self._working(group_id)
        try:
            group.raw.transfer_leader(to_replica)
        except NotLeaderError as error:
            raise NotLeadingError(error.lead, group.term) from error
        except TransferRefusedError as error:
            raise ProposalRefusedError(str(error)) from error
        self._touch(group)

    def campaign(self, group_id: int) -> None:
        """Lets the replica stand for election now."""
        group = self._working(group_id)
        self._wake(group)
        self._campaign(group)

    def step_down(self, group_id: int) -> None:
        """Ends the replica's leadership, and has the others elect another leader at once."""
        self._step_down(self._working(group_id))

    def _working(self, group_id: int) -> Group:
        group = self._roster.groups.get(group_id)
        if group is None:
            raise UnknownGroupError(group_id)
        return group

    def _touch(self, group: Group) -> None:
        """Notes that somebody wants something of the group."""
        self._wake(group)
        group.idle_ticks = 0
        self._dirty[group.meta.group_id] = group

    def _step_down(self, group: Group) -> None:
        if group.raw.basic_status().role is Role.LEADER:
            self._farewells += farewell.envelopes(group)
            group.raw.step_down()
            self._touch(group)

    # Liveness of nodes and links (S15, S16, S17).

    def node_up(self, node_id: int) -> None:
        """Notes that a node answers; its groups wake, and those without a leader look for one."""
        self._up.add(node_id)
        for group, replica in self._members_on(node_id):
            self._touch(group)
            if group.raw.basic_status().role is Role.LEADER:
                group.raw.report_reachable(replica)
            elif not group.leader_replica and not self._agenda.has(group.meta.group_id):
                # A leader that the returned node, or we, have not heard of yet comes first.
                self._plan_turn(group, self._is_up, turns_later=2)

    def node_down(self, node_id: int) -> None:
        """Notes that a node is gone; groups that it led elect another leader at once."""
        self._up.discard(node_id)
        for group, replica in self._members_on(node_id):
            self._touch(group)
            status = group.raw.basic_status()
            if status.role is Role.LEADER:
                group.raw.report_unreachable(replica)
            elif status.lead in (0, replica):
                group.raw.forget_leader()
                self._plan_turn(group, self._is_up)

    def unreachable(self, group_id: int, replica_id: int) -> None:
        """Notes that an append to a replica was refused by a full queue (S17)."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            group.raw.report_unreachable(replica_id)
            self._dirty[group_id] = group

    def link_lost(self, node_id: int) -> None:
        """Notes that what is on its way to a node may be lost, though the node may live."""
        for group, replica in self._members_on(node_id):
            group.raw.report_unreachable(replica)
            self._touch(group)

    def disk_stalled(self) -> None:
        """Hands the leaderships of this node away: a sync has been under way too long (S13)."""
        self._stall.begin(self._now)
        for group in tuple(self._led_groups()):
            target = self._stall.successor(group, self._is_up)
            if target:
                self.transfer_leader(group.meta.group_id, target)

    def _is_up(self, node_id: int) -> bool:
        return node_id in self._up

    def _members_on(self, node_id: int) -> Iterator[tuple[Group, int]]:
        for group in tuple(self._roster.groups.values()):
            for replica in quiesce.members(group.conf_state):
                if node_of(replica) == node_id and replica != group.meta.replica_id:
                    yield group, replica
                    break

    def _led_groups(self) -> Iterator[Group]:
        """Yields the groups led here in which another voter could lead."""
        for group in self._roster.groups.values():
            alone = group.conf_state.voters == (group.meta.replica_id,)
            if group.raw.basic_status().role is Role.LEADER and not alone:
                yield group

    # Elections.

    def _plan_turn(self, group: Group, is_fit: Callable[[int], bool], turns_later: int = 0) -> None:
        own = group.meta.replica_id
        if own in group.conf_state.voters:
            rank = turn(group.conf_state, group.meta.group_id, own, is_fit)
            self._agenda.plan(group.meta.group_id, self._now, rank + turns_later)

    def _take_turn(self, group_id: int) -> None:
        group = self._roster.groups[group_id]
        status = group.raw.basic_status()
        if status.lead:
            self._agenda.cancel(group_id)
            return
        living = [voter for voter in group.conf_state.voters if self._is_up(node_of(voter))]
        self._agenda.again(group_id, self._now, len(living))
        self._wake(group)
        self._campaign(group)

    def _campaign(self, group: Group) -> None:
        if self._guarded(group, group.raw.campaign):
            self._dirty[group.meta.group_id] = group

    def _orphaned(self, group: Group, word: Message) -> None:
        """Acts on a leader's farewell: it leads no more, and nobody need wait for a time-out."""
        status = group.raw.basic_status()
        if (status.lead, status.term) == (word.from_, word.term):
            self._touch(group)
            group.raw.forget_leader()
            gone = node_of(word.from_)
            self._plan_turn(group, lambda node: self._is_up(node) and node != gone)

    # Rest.

    def _try_to_rest(self, group: Group) -> None:
        mark = quiesce.rest_mark(group, self._is_up)
        if mark is None:
            # Ask again after the next round of heartbeats.
            group.idle_ticks -= self._config.heartbeat_ticks
            return
        group_id, own = group.meta.group_id, group.meta.replica_id
        for message in quiesce.rest_messages(group, mark):
            self._pending.sends.append(Envelope(group_id, own, message.to, message))
        group.dead_at_rest = frozenset(mark.dead_replicas)
        self._rest(group)

    def _rest(self, group: Group) -> None:
        group.quiet = True
        group.raw.tick_quiesced()
        self._awake.pop(group.meta.group_id, None)
        self._agenda.cancel(group.meta.group_id)

    def _wake(self, group: Group) -> None:
        if group.quiet:
            group.quiet = False
            group.idle_ticks = 0
            group.dead_at_rest = frozenset()
            self._awake[group.meta.group_id] = group

    # Output and feedback.

    def advance(self) -> Effects | None:
        """Returns what is to be done now, for all groups at once; None if there is nothing."""
        while self._dirty or self._pending or self._farewells:
            effects, self._pending = self._pending, Effects(0)
            effects.number = self._number + 1
            waiting = self._step_dirty(effects)
            effects.sends += self._farewells
            self._farewells = []
            if self._synced == 0:
                # The number of this boot is not durable yet. Raft repeats what matters.
                effects.sends = []
            if not effects:
                continue
            self._number = effects.number
            if waiting:
                self._landing.append((effects.number, waiting))
            return effects
        return None

    def _step_dirty(self, effects: Effects) -> list[int]:
        """Steps every group that has something to do, while the batch has room."""
        dirty, self._dirty = self._dirty, {}
        waiting: list[int] = []
        unfinished: dict[int, Group] = {}
        bytes_max = self._config.batch_bytes_max
        for group_id, group in dirty.items():
            if effects.batch.size_bytes >= bytes_max:
                self._dirty[group_id] = group
                continue
            size_before = effects.batch.size_bytes
            try:
                if group.reads.queued:
                    self._ask(group)
                more = step_group(group, effects, bytes_max)
            except _GROUP_FATAL as error:
                self._shut_out(group, f"{type(error).__name__}: {error}")
                continue
            if more:
                # Who found no room comes before who had some: nobody starves.
                wrote = effects.batch.size_bytes > size_before
                (unfinished if wrote else self._dirty)[group_id] = group
            if group.waits_for(effects.number):
                waiting.append(group_id)
            if group.leader_replica:
                self._agenda.cancel(group_id)
            if group.base_number == effects.number:
                self._hold_base(group, effects.number)
            if group.doubtful and not group.raw.basic_status().doubtful:
                group.doubtful = False
                boot.clear_doubt(group_id, effects.batch)
                effects.must_sync = True
        self._dirty |= unfinished
        return waiting

    def _ask(self, group: Group) -> None:
        """Asks the leader for everything that waits to be read, in one question."""
        leading = group.raw.basic_status().role is Role.LEADER
        context = self._contexts.next()
        try:
            group.raw.read_index(context)
        except (NotLeaderError, ReadLimitError):
            # Nobody to ask now: asked again with the next tick, until the reads' deadline.
            return
        retry_ticks = self._config.read_timeout_ticks // 4
        group.reads.asked(context, self._now + retry_ticks, leading=leading)

    def _hold_base(self, group: Group, number: int) -> None:
        group.base_number = number
        self._held_bases.append((number, group))

    def written(self, number: int) -> None:
        """Notes that the batch of effects `number` is on its way to the disk and readable."""
        assert number <= self._number, f"batch {number} was written before it was made"
        assert number >= self._written, "batches are written in order"
        self._written = number
        while self._held_bases and self._held_bases[0][0] <= number:
            at, group = self._held_bases.popleft()
            if group.base_number == at:
                group.storage.base_written()

    def synced(self, number: int) -> None:
        """Notes that every batch up to `number` is durable."""
        assert number <= self._written, f"batch {number} was synced before it was written"
        if number <= self._synced:
            return
        self._synced = number
        self._stall.end()
        while self._landing and self._landing[0][0] <= number:
            for group_id in self._landing.popleft()[1]:
                self._land(group_id, number)

    def _land(self, group_id: int, number: int) -> None:
        group = self._roster.groups.get(group_id)
        if group is None:
            return
        freed: list[Envelope] = []
        if self._guarded(group, lambda: freed.extend(land(group, number))):
            self._pending.sends += freed
            if group.wants_trim or group.raw.has_ready():
                self._dirty[group_id] = group
