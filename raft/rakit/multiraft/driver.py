"""The pure driver: every group of a node as one object without task, clock, socket or file (S19).

    inputs     receive, tick, propose, read_index, node_up, node_down    change state only
    output     advance() -> Effects: sends, ONE write batch, answers     for all groups at once
    feedback   written(n), synced(n)                                     numbers of effects

A shell feeds it and carries out the effects; the simulator is such a shell. Everything that the
groups of a node have to write at one moment goes into one batch and is made durable by one sync;
what need not be durable waits for such a moment.

Rules:

- Costs follow the work: a step visits the groups that have something to do, a tick those in which
  it does something. Quiet groups are in neither set.
- A step is bounded by what it writes, sends and applies. Who had no turn in it comes first in the
  next one; everybody has had one when `laps` has risen twice.
- Batches are written in the order of their numbers; a batch that was refused is submitted again,
  the same, before any later one (S12). The driver need not know.
- A group that fails, by its disk, by its core or by its machine, is shut out alone: everyone who
  waits for it is told that the outcome is unknown, its peers are told to elect another, and the
  node goes on (S9). It stays shut out, over restarts, until it is removed. An assertion is a bug
  and stops the node.

The parts: `roster` makes and unmakes replicas, `floor` holds who is awake and who has something to
do, `stepping` turns Readys into effects, `held_writes` keeps what need not be durable until
something must be, `landing` remembers what waits for which batch, `succession` decides about
campaigns and resignations, `quiesce` lets idle groups rest, `lanes` keeps leaders from reading what
could not be sent, `base_gathering` and `base_serving` carry bases that are too large for one
message.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from rakit.multiraft import boot, farewell, quiesce
from rakit.multiraft.base_gathering import BaseGathering
from rakit.multiraft.base_serving import BaseServing
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Completion, Effects, Envelope, ReadReady, RoleChange
from rakit.multiraft.errors import (
    ConfChangeRefusedError,
    NotLeadingError,
    OverloadedError,
    ProposalRefusedError,
    UnknownGroupError,
)
from rakit.multiraft.floor import GROUP_FATAL, Floor
from rakit.multiraft.group import Group
from rakit.multiraft.held_writes import HeldWrites
from rakit.multiraft.kv import KeyValue
from rakit.multiraft.landing import Landing
from rakit.multiraft.lanes import Lanes
from rakit.multiraft.machine import GroupMeta, MachineFactory
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.roster import Roster
from rakit.multiraft.stepping import land, lose_reads, step_group
from rakit.multiraft.stored_entries import join_payload
from rakit.multiraft.succession import Succession
from rakit.multiraft.waiters import ReadContexts
from rakit.raft import (
    ConfChange,
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfState,
    EntryID,
    Message,
    MessageType,
    NotLeaderError,
    Payload,
    ProposalDroppedError,
    ReadLimitError,
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

#: A quarter of what a step may move is one group's share of it.
_SHARES = 4
_VOTE_REQUESTS = frozenset({MessageType.PRE_VOTE, MessageType.VOTE})


class Driver:
    """All groups of one node.

    Invariant: effects are numbered from 1 without a gap; `written` and `synced` never run ahead.
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
        self._roster = Roster(config, node_id, disk, factory, rng)
        self._floor = Floor(self._roster)
        self._succession = Succession(config, node_id, self._floor, rng)
        self._landing = Landing()
        self._lanes = Lanes()
        self._gathering = BaseGathering(config, self._floor)
        self._serving = BaseServing(config, self._floor, self._lanes)
        self._held = HeldWrites()
        self._contexts = ReadContexts(rng.getrandbits(64))
        self._number = 0

    # Groups.

    @property
    def groups(self) -> Mapping[int, Group]:
        """The working replicas of this node by group id."""
        return self._roster.groups

    @property
    def quarantined(self) -> Mapping[int, Quarantined]:
        """The damaged replicas of this node by group id."""
        return self._roster.quarantined

    @property
    def awake_count(self) -> int:
        """How many replicas are ticked; the others are quiet."""
        return len(self._floor.awake)

    @property
    def holds_writes(self) -> bool:
        """Whether something that need not be durable waits to be written."""
        return bool(self._held)

    @property
    def held_is_due(self) -> bool:
        """Whether that goes with the next step."""
        return self._held.is_due

    def write_held(self) -> None:
        """Has that written with the next step, instead of with the one after the next tick."""
        self._held.end_the_wait()

    @property
    def tail_cache_bytes(self) -> int:
        """Memory that the recent entries of every group take now."""
        return self._roster.tail_cache_bytes

    @property
    def bases_under_way_count(self) -> int:
        """Bases that are being gathered here, or wait for it."""
        return len(self._gathering)

    def group(self, group_id: int) -> Group | None:
        """Returns a working replica, or None."""
        return self._roster.groups.get(group_id)

    def load(self) -> None:
        """Opens the store's groups; the damaged ones are in the next effects (S5, S9)."""
        for _ in self.loading():
            pass

    def loading(self) -> Iterator[None]:
        """Does what `load` does in steps of milliseconds, before anything else is asked."""
        pending = self._floor.pending
        yield from self._roster.load(pending.batch)
        pending.must_sync = True
        pending.quarantined += self.quarantined.items()
        for group in tuple(self._roster.groups.values()):
            self._floor.enter(group)
            self._succession.enter(group, None)

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        """Makes a replica of this node, once; `conf` is None for a later replica.

        Raises `GroupRefusedError` for a dead replica id, for one that is shut out, or beside
        another living replica.
        """
        here = self._roster.groups.get(meta.group_id)
        if here is not None and here.meta.replica_id == meta.replica_id:
            return
        pending = self._floor.pending
        group = self._roster.create(meta, conf, pending.batch)
        pending.must_sync = True
        self._floor.enter(group)
        self._succession.enter(group, first_leader)

    def remove_group(self, group_id: int) -> None:
        """Buries the replica and wipes its data; unknown groups are ignored."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            self._floor.leave(group)
        if group is not None or group_id in self._roster.quarantined:
            self._roster.remove(group_id, self._floor.pending.batch)
            self._floor.pending.must_sync = True

    def trust_births_from(self, group_id: int) -> None:
        """Takes in that no group from this id on existed when this start began (S8; `boot`)."""
        self._roster.trust_births_from(group_id, self._floor.pending.batch)

    def quarantine(self, group_id: int, reason: str, *, for_good: bool = True) -> None:
        """Shuts a replica out, because a reader could not read it; its data stays."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            self._floor.shut_out(group, reason, for_good=for_good, at_fault=True)

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
            self._succession.orphaned(group, message)
            return
        if group.quiet:
            if not quiesce.disturbs(group, message):
                return
            self._floor.wake(group)
        elif message.context and quiesce.may_rest(group, message, self._succession.is_up):
            self._floor.rest(group)
            return
        else:
            self._floor.catch_up(group)
        if message.type in _VOTE_REQUESTS:
            self._succession.give_way(envelope.group_id)
        elif message.type is MessageType.READ_INDEX:
            group.wanted_tick = self._floor.now
        elif message.snapshot is not None and self._takes_base(group, message):
            return
        try:
            group.raw.step(message)
        except StepRefusedError:
            # The core has changed nothing; the sender repeats what matters.
            return
        except GROUP_FATAL as error:
            self._floor.fail(group, error)
            return
        self._floor.mark(group)

    def _takes_base(self, group: Group, message: Message) -> bool:
        """Takes what concerns a base in parts; False if the message is the core's."""
        base = message.snapshot
        assert base is not None, "only messages with a base are shown"
        if message.type is MessageType.SNAP:
            return self._gathering.announced(group, message)
        if message.type is MessageType.BASE_PART:
            self._gathering.brought(group, base, self._number + 1)
        elif message.type is MessageType.BASE_PULL:
            self._serving.asked(group, message.from_, base)
        else:
            return False
        return True

    def tick(self) -> None:
        """Lets one tick pass for every group that is awake."""
        floor = self._floor
        for group in floor.pass_tick():
            if len(group.reads):
                self._tick_reads(group)
            leads = group.raw.role is Role.LEADER
            if leads and self._try_to_rest(group):
                continue
            if group.raw.ticks_left() > 1:
                group.raw.pass_ticks(1)
                floor.plan(group)
            elif leads:
                if floor.guarded(group, group.raw.tick):
                    floor.mark(group)
                    floor.plan(group)
            else:
                # Nobody was heard for an election timeout. It stands when the agenda has room, and
                # until then no tick matters to it.
                self._succession.timed_out(group)
                if len(group.reads):
                    # They expire, though nobody may be elected for long.
                    floor.plan(group)
        self._succession.tick(floor.now)
        self._gathering.tick()
        self._serving.tick()
        self._held.end_the_wait()

    def _tick_reads(self, group: Group) -> None:
        lose_reads(group, group.reads.expire(self._floor.now), self._floor.pending)
        if group.reads.queued:
            self._floor.mark(group)

    def _try_to_rest(self, group: Group) -> bool:
        """Lets a group rest that has been idle; instead of a heartbeat, since the mark is one."""
        rests_from = self._rests_from(group)
        if rests_from is None or self._floor.now < rests_from:
            return False
        mark = quiesce.rest_mark(group, self._succession.is_up)
        if mark is None:
            return False
        group_id, own = group.meta.group_id, group.meta.replica_id
        for message in quiesce.rest_messages(group, mark):
            group.raw.sent(message)
            self._floor.pending.sends.append(Envelope(group_id, own, message.to, message))
        self._floor.rest(group, frozenset(mark.dead_replicas))
        return True

    def _rests_from(self, group: Group) -> int | None:
        """Returns the tick from which on a led group may rest, if nothing is under way."""
        config = self._config
        if not config.quiesce_ticks:
            return None
        return max(
            group.wanted_tick + config.quiesce_ticks, group.woken_tick + config.heartbeat_ticks
        )

    # Requests.

    def propose(self, group_id: int, pieces: Sequence[Payload], token: object) -> EntryID:
        """Appends an entry and returns its id; one `Completion` with `token` follows.

        Raises `NotLeadingError`, `OverloadedError` or `UnknownGroupError`: then nothing happened.
        """
        group = self._working(group_id)

        def propose() -> EntryID:
            group.raw.check_proposal(sum(map(len, pieces)))
            place = group.raw.next_id
            entry = group.raw.propose(*join_payload(group_id, place, pieces))
            assert entry == place, "an entry was proposed for one place and got another"
            return entry

        return self._proposed(group, propose, token)

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
        self._floor.touch(group)
        return entry

    def read_index(self, group_id: int, token: object) -> None:
        """Asks for a linearizable read; one `ReadReady` with `token` follows."""
        group = self._working(group_id)
        if len(group.reads) >= self._config.reads_count_max:
            raise OverloadedError(f"{len(group.reads)} reads wait in group {group_id}")
        group.reads.add(token, self._floor.now + self._config.read_timeout_ticks)
        self._floor.touch(group)

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        """Starts to hand leadership over; raises a `ProposalRefusedError` if it cannot be."""
        group = self._working(group_id)
        try:
            group.raw.transfer_leader(to_replica)
        except NotLeaderError as error:
            raise NotLeadingError(error.lead, group.term) from error
        except TransferRefusedError as error:
            raise ProposalRefusedError(str(error)) from error
        self._floor.touch(group)

    def hand_over(self, group_id: int) -> int:
        """Asks the voter that is fit for it to lead a group led here; returns it, 0 for nobody."""
        group = self._working(group_id)
        leads = group.raw.basic_status().role is Role.LEADER
        return self._succession.hand_over(group) if leads else 0

    def campaign(self, group_id: int) -> None:
        """Lets the replica stand for election now."""
        self._succession.campaign(self._working(group_id))

    def step_down(self, group_id: int) -> None:
        """Ends the replica's leadership, and has the others elect another leader at once."""
        self._succession.step_down(self._working(group_id))

    def _working(self, group_id: int) -> Group:
        group = self._roster.groups.get(group_id)
        if group is None:
            raise UnknownGroupError(group_id)
        self._floor.catch_up(group)
        return group

    # Hints (S13, S15 to S17).

    def node_up(self, node_id: int) -> None:
        """Notes that a node answers; until told so, every other node counts as down."""
        self._succession.node_up(node_id)

    def node_down(self, node_id: int) -> None:
        """Notes that a node is gone; also told, followed by `node_up`, when it has restarted."""
        self._succession.node_down(node_id)

    def leader_ended(self, group_id: int) -> None:
        """Notes that a group's leader leads it no more: who rests must look for another (S15)."""
        group = self._roster.groups.get(group_id)
        if group is not None and group.quiet:
            self._floor.stir(group)

    def lane_shut(self, node_id: int) -> None:
        """Notes that the way to a node takes no more appends: leaders hold theirs back (S17)."""
        self._lanes.shut(node_id)

    def lane_open(self, node_id: int) -> None:
        """Notes that the way to a node has room; until told otherwise every one has."""
        for group_id, replica_id in self._lanes.open(node_id):
            group = self._roster.groups.get(group_id)
            if group is not None:
                group.raw.release(replica_id)
                self._floor.mark(group)

    def unreachable(self, group_id: int, replica_id: int) -> None:
        """Notes that an append to a replica was refused, or had no way to go (S17)."""
        group = self._roster.groups.get(group_id)
        if group is not None:
            group.raw.report_unreachable(replica_id)
            self._floor.mark(group)

    def link_lost(self, node_id: int) -> None:
        """Notes that what is on its way to a node may be lost, though the node may live."""
        self._succession.link_lost(node_id)

    def disk_stalled(self) -> None:
        """Notes that a sync has been under way too long: leaderships go elsewhere (S13)."""
        self._succession.disk_stalled()

    # Output and feedback.

    @property
    def laps(self) -> int:
        """How often everyone who had something to do has had a turn."""
        return self._floor.laps

    def advance(self) -> Effects | None:
        """Returns what is to be done now, for all groups at once; None if there is nothing."""
        floor = self._floor
        while not (floor.idle and self._serving.idle) or self._held.is_due:
            effects, floor.pending = floor.pending, Effects(0)
            effects.number = self._number + 1
            waiting = self._step_dirty(effects)
            self._serving.serve(effects, self._config.step_bytes_max)
            effects.sends += floor.take_farewells()
            if effects or self._held.is_due:
                self._number = effects.number
                self._held.join(effects)
                self._landing.wait_for_sync(effects.number, waiting)
                return effects
        return None

    def _step_dirty(self, effects: Effects) -> list[int]:
        """Steps the groups of a lap, while the step has room.

        Returns the groups that wait for the batch to be synced.
        """
        floor, batch, shut = self._floor, effects.batch, self._lanes.waiting
        batch_max, moved_max = self._config.batch_bytes_max, self._config.step_bytes_max
        lap = floor.lap
        if not lap:
            lap.extend(floor.dirty.values())
            floor.dirty.clear()
        waiting: list[int] = []
        while lap:
            if batch.size_bytes >= batch_max or effects.moved_bytes >= moved_max:
                return waiting
            group = lap.popleft()
            size_before = batch.size_bytes
            floor.catch_up(group)
            try:
                if group.reads.queued:
                    self._ask(group)
                if shut:
                    self._lanes.hold(group)
                more = step_group(group, effects, batch_max, moved_max // _SHARES)
            except GROUP_FATAL as error:
                floor.fail(group, error)
                continue
            self._note_step(group, effects)
            if group.waits_for(effects.number):
                waiting.append(group.meta.group_id)
            if more:
                if group.remainder is not None and batch.size_bytes == size_before:
                    # It found no room, and is the first to find some in the next batch.
                    lap.appendleft(group)
                    return waiting
                floor.mark(group)
        floor.laps += 1
        return waiting

    def _note_step(self, group: Group, effects: Effects) -> None:
        if group.used:
            group.used, group.wanted_tick = False, self._floor.now
        if not group.quiet:
            self._floor.plan(group)
            if group.ready:
                self._look_forward_to_rest(group)
        if group.leader_replica:
            self._succession.settled(group.meta.group_id)
        if group.doubtful and not group.raw.basic_status().doubtful:
            group.doubtful = False
            boot.clear_doubt(group.meta.group_id, effects.batch)
            effects.must_sync = True

    def _look_forward_to_rest(self, group: Group) -> None:
        """Plans a look before the next heartbeat, which a group that can rest then need not send.

        Who has just been elected is awake no longer than that takes: heartbeats of the thousands of
        groups that a dead node has led would hold up the elections of the others.
        """
        rests_from, floor = self._rests_from(group), self._floor
        if rests_from is None or rests_from >= group.due_tick or not group.raw.is_level():
            return
        # News of the commit are on their way to the followers for a tick.
        due = max(rests_from, floor.now + 2)
        if due < group.due_tick:
            floor.postpone(group, due)

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
        group.reads.asked(context, self._floor.now + retry_ticks, leading=leading)

    def written(self, number: int) -> None:
        """Notes that the batch of effects `number` is on its way to the disk and readable.

        What is held of it is neither, and nobody counts on that.
        """
        assert number <= self._number, f"batch {number} was written before it was made"
        self._landing.written(number)
        self._gathering.written(number)

    def synced(self, number: int) -> None:
        """Notes that every batch up to `number` is durable."""
        self._succession.disk_synced()
        for group_id in self._landing.synced(number):
            group = self._roster.groups.get(group_id)
            if group is not None:
                self._land(group, number)

    def _land(self, group: Group, number: int) -> None:
        freed: list[Envelope] = []
        if self._floor.guarded(group, lambda: freed.extend(land(group, number))):
            self._floor.pending.sends += freed
            if group.wants_trim or group.raw.has_ready():
                self._floor.mark(group)
