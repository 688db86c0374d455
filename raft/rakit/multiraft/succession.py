"""Who leads next: what the liveness of nodes, links and this node's own disk means for leadership.

Inputs are hints, never proof (safety S15): a node is up or down as seen from here, a link lost what
was on it, a sync takes too long. What follows from them is that somebody campaigns sooner, forgets
a leader, probes a peer or hands over. All of it goes through Raft's own rules, so a false hint
costs time and no safety.

Rules:

- A leader's node goes down: its followers forget it and campaign in turns, at once (S16). The pre-
  vote protects a leader that is not gone. Groups with a leader elsewhere are let rest (Q4).
- A node comes up: leaders ask its replicas where they are, those that are at work at once, quiet
  ones in turns of a few a tick: a node of thousands of groups would else be spoken to by all of
  them in one moment, and be too busy to answer pings. Groups without a leader plan a campaign, two
  turns later than otherwise, so that a leader which exists is heard first.
- A replica that hears of no leader for its time-out stands by the agenda too, so that however many
  groups have lost theirs, no more campaigns are under way than this node can see to the end.
- A member says farewell: as if its node were down, for this group only.
- A hung disk: every leadership is handed to the living voter with the longest log that neither
  doubts nor has lost it, and given up after the patience of `StallWatch` (S13). A group without
  another voter keeps its leader. A node that stops hands over by the same rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

from rakit.multiraft import quiesce
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.elections import Agenda, Urgency, electors, turn
from rakit.multiraft.floor import Floor
from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind, node_of
from rakit.multiraft.quiesce import members
from rakit.multiraft.roster import BIRTH_INDEX
from rakit.multiraft.stall import StallWatch, successor
from rakit.raft import Message, Role

#: Quiet groups that ask a replica on a returned node where it is, within one tick.
VISITS_PER_TICK_MAX = 8


class Succession:
    """The campaigns, transfers and resignations of a node."""

    def __init__(
        self, config: DriverConfig, node_id: int, floor: Floor, rng: random.Random
    ) -> None:
        self._floor = floor
        self._agenda = Agenda(
            config.campaign_turn_ticks, config.election_ticks, config.campaigns_count_max, rng
        )
        self._stall = StallWatch(config.election_ticks // 2)
        self._up: set[int] = {node_id}
        #: Quiet groups that are led here, and the nodes that came back and they have not asked.
        self._visits: dict[tuple[int, int], int] = {}

    def is_up(self, node_id: int) -> bool:
        """Tells whether a node answers, as far as seen from here."""
        return node_id in self._up

    def tick(self, now: int) -> None:
        """Starts the campaigns that are due; gives up leaderships that a hung disk holds."""
        for group_id in self._agenda.due(now):
            self._take_turn(group_id)
        self._visit_next()
        if self._stall.overdue(now):
            for group in tuple(self._led_groups()):
                self.step_down(group)

    # Campaigns.

    def enter(self, group: Group, first_leader: int | None) -> None:
        """Has a replica campaign soon if its group is newborn or it votes alone (S16)."""
        own = group.meta.replica_id
        conf = group.conf_state
        if own not in electors(conf):
            return
        if conf.voters == (own,) and not conf.voters_outgoing:
            self.campaign(group)
        elif group.storage.last_index() == BIRTH_INDEX:
            rank = turn(conf, group.meta.group_id, own, lambda _: True, first_leader)
            self._agenda.plan(group.meta.group_id, self._floor.now, rank)

    def campaign(self, group: Group) -> None:
        """Lets a replica stand for election now."""
        self._floor.wake(group)
        if self._floor.guarded(group, group.raw.campaign):
            self._floor.mark(group)

    def give_way(self, group_id: int) -> None:
        """Notes that another voter asks for a vote."""
        self._agenda.give_way(group_id, self._floor.now)

    def timed_out(self, group: Group) -> None:
        """Notes that a replica has heard of no leader for its time-out."""
        if not self._agenda.has(group.meta.group_id):
            group.raw.forget_leader()
            self._floor.mark(group)
            urgency = self._urgency(group)
            if urgency is Urgency.FIRST:
                self.campaign(group)
            else:
                usual = urgency is Urgency.USUAL
                self._agenda.ask(group.meta.group_id, Urgency.PATIENT if usual else urgency)

    def settled(self, group_id: int) -> None:
        """Notes that the group has a leader."""
        self._agenda.cancel(group_id)

    def _plan(self, group: Group, is_fit: Callable[[int], bool], turns_later: int = 0) -> None:
        own = group.meta.replica_id
        if own in electors(group.conf_state):
            rank = turn(group.conf_state, group.meta.group_id, own, is_fit) + turns_later
            urgency = self._urgency(group)
            self._agenda.plan(group.meta.group_id, self._floor.now, rank, urgency)

    def _urgency(self, group: Group) -> Urgency:
        """In which line a group stands. It decides when, never who (S15)."""
        if group.meta.kind is GroupKind.METADATA:
            return Urgency.FIRST
        if quiesce.has_living_quorum(group, self.is_up):
            return Urgency.USUAL
        return Urgency.HOPELESS

    def _take_turn(self, group_id: int) -> None:
        group = self._floor.group(group_id)
        # It may have been removed while it stood in line.
        voters = () if group is None else electors(group.conf_state)
        if group is None or group.raw.lead or group.meta.replica_id not in voters:
            self._agenda.cancel(group_id)
            return
        if not self._agenda.rank_anew(group_id, self._urgency(group)):
            return
        living = [voter for voter in voters if self.is_up(node_of(voter))]
        self._agenda.again(group_id, self._floor.now, len(living))
        self.campaign(group)

    # Nodes and links.

    def node_up(self, node_id: int) -> None:
        """Notes that a node answers: leaders wake for its replicas, who has none looks for one."""
        self._up.add(node_id)
        visits = VISITS_PER_TICK_MAX
        for group, replica in self._members_on(node_id):
            if group.raw.role is Role.LEADER:
                if group.quiet and not visits:
                    self._visits[node_id, group.meta.group_id] = replica
                    continue
                visits -= group.quiet
                self._visit(group, replica)
            elif group.raw.lead:
                continue
            elif self._agenda.has(group.meta.group_id):
                self._agenda.rank_anew(group.meta.group_id, self._urgency(group))
            else:
                self._floor.stir(group)
                self._plan(group, self.is_up, turns_later=2)

    def _visit(self, group: Group, replica: int) -> None:
        """Has a group that is led here ask a replica whose node came back where it is."""
        self._floor.stir(group)
        group.raw.report_reachable(replica)

    def _visit_next(self) -> None:
        for node_id, group_id in tuple(islice(self._visits, VISITS_PER_TICK_MAX)):
            replica = self._visits.pop((node_id, group_id))
            group = self._floor.group(group_id)
            if group is not None and group.raw.role is Role.LEADER and self.is_up(node_id):
                self._visit(group, replica)

    def node_down(self, node_id: int) -> None:
        """Notes that a node is gone: groups that it led elect another leader at once."""
        self._up.discard(node_id)
        for group, replica in self._members_on(node_id):
            if group.raw.role is Role.LEADER:
                if group.quiet and quiesce.has_living_quorum(group, self.is_up):
                    group.dead_at_rest |= {replica}
                    continue
                self._floor.stir(group)
                group.raw.report_unreachable(replica)
            elif group.raw.lead == replica or not (
                # Who is in line keeps its place, however often nodes come and go.
                group.raw.lead or self._agenda.has(group.meta.group_id)
            ):
                self._floor.stir(group)
                group.raw.forget_leader()
                self._plan(group, self.is_up)

    def link_lost(self, node_id: int) -> None:
        """Notes that what is on its way to a node may be lost, though the node may live."""
        for group, replica in self._members_on(node_id):
            if group.raw.role is Role.LEADER and not group.quiet:
                group.raw.report_unreachable(replica)
                self._floor.mark(group)

    def orphaned(self, group: Group, word: Message) -> None:
        """Acts on a leader's farewell; one from an earlier term is out of date."""
        status = group.raw.basic_status()
        if (status.lead, status.term) == (word.from_, word.term):
            self._floor.stir(group)
            group.raw.forget_leader()
            gone = node_of(word.from_)
            self._plan(group, lambda node: self.is_up(node) and node != gone)

    def _members_on(self, node_id: int) -> Iterator[tuple[Group, int]]:
        """Yields the groups that have members on another node, with each of these."""
        for group in tuple(self._floor.roster.groups.values()):
            conf = group.conf_state
            is_plain = not (conf.learners or conf.voters_outgoing)
            for replica in conf.voters if is_plain else members(conf):
                if node_of(replica) == node_id and replica != group.meta.replica_id:
                    yield group, replica

    # Giving leadership up.

    def step_down(self, group: Group) -> None:
        """Ends the replica's leadership, and has the others elect another leader at once."""
        if group.raw.role is Role.LEADER:
            self._floor.stir(group)
            self._floor.say_farewell(group)
            group.raw.step_down()

    def disk_stalled(self) -> None:
        """Hands the leaderships of this node away: a sync has been under way too long (S13)."""
        self._stall.begin(self._floor.now)
        for group in tuple(self._led_groups()):
            self.hand_over(group)

    def hand_over(self, group: Group) -> int:
        """Asks the best successor to lead a group that is led here; returns it, 0 for nobody."""
        target = successor(group, self.is_up)
        if target:
            self._floor.stir(group)
            group.raw.transfer_leader(target)
        return target

    def disk_synced(self) -> None:
        """Notes that a sync came back."""
        self._stall.end()

    def _led_groups(self) -> Iterator[Group]:
        """Yields the groups led here in which another voter could lead."""
        for group in self._floor.roster.groups.values():
            alone = group.conf_state.voters == (group.meta.replica_id,)
            if group.raw.role is Role.LEADER and not alone:
                yield group
