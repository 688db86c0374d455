"""Faults at the worst moment.

What a strike at random meets once in thousands of runs, an ambush waits for: it watches what nodes
send and write, and strikes when a bug would show. It knows nothing that a network and a disk could
not know; it only has good timing.

- The moment that a joint phase begins, its leader is left alone with the voters to come.
- A node crashes just after it has voted or asked for votes, and is back at once.
- A disk loses its tail just after a log was truncated on it: what had been replaced is there again
  while the leader counts on what replaced it.
- A disk forgets a vote while the leader that was voted out is still at work: only that leader and
  the forgetful voter reach each other, so that old leader has a majority again, if it counts it.
- A node crashes while a base that is divided is on its way, on either side, or the link breaks. Or
  the receiver is cut off until the log has been trimmed behind its back, and parts of the old base
  arrive beside those of the new one.
- A follower loses its tail just before everything heals, so that the leader of that time has to
  deal with it; or a leader hands over just then, and its word does not arrive.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft import keys
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.machine import node_of
from rakit.raft import ConfState, MessageType
from tests.sim.members import joint_group, side_to_come
from tests.sim.plan import Topic

if TYPE_CHECKING:
    from tests.sim.world import World

JOINT_CUTS = 0.8  # of the joint phases
VOTE_CRASHES = 0.2  # of the votes
TRUNCATION_CUTS = 0.7  # of the truncations
BASE_CRASHES = 0.1  # of the parts of bases
CUT_OFF_MS = (500, 1500)
SHORT_MS = (10, 40)


@dataclass(frozen=True, slots=True)
class _Theft:
    """A vote that is to be forgotten as soon as it is given."""

    group_id: int
    leader: int
    candidate: int


class Ambush:
    """Waits for its moments in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.rng.random())
        self.topic = world.plan.topic
        self.joint_phases: set[ConfState] = set()
        self.theft: _Theft | None = None
        #: By group and replica: the parts of the base, as of this index, that it was sent last.
        self.parts: dict[tuple[int, int], tuple[int, list[Envelope]]] = {}

    # ------------------------------------------------------------------ what nodes do

    def sent(self, node_id: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.message.type is MessageType.BASE_PART:
                self._base_moves(node_id, envelope)
        if self.topic is Topic.MEMBERS:
            self._joint_phase(node_id)
        elif self.topic in {Topic.VOTES, Topic.CUTS}:
            for envelope in envelopes:
                message = envelope.message
                asks = message.type is MessageType.VOTE
                grants = message.type is MessageType.VOTE_RESP and not message.reject
                if asks or grants:
                    self._voted(node_id, envelope, granted=grants)

    def _base_moves(self, source: int, envelope: Envelope) -> None:
        rng, target, part = self.rng, node_of(envelope.to_replica), envelope.message.snapshot
        assert part is not None, "a part says of which base it is"
        key = (envelope.group_id, envelope.to_replica)
        index, older = self.parts.get(key, (0, []))
        if index < part.index:
            for late in older:
                self.world.arrives_again(source, late, rng.randint(0, 5))
            older = []
        self.parts[key] = (part.index, [*older, envelope])
        if rng.random() >= BASE_CRASHES:
            return
        match rng.choice(["source", "target", "link", "trim", "trim"]):
            case "source":
                self.world.armed[source] = rng.randint(1, 3)
            case "target":
                self.world.armed[target] = rng.randint(1, 3)
            case "link":
                self.world.network.break_link(source, target)
            case _:
                self.world.part({target})
                self.world.events.later(rng.randint(*CUT_OFF_MS), self._let_in)

    def _let_in(self) -> None:
        if self.world.chaos:
            self.world.network.heal()

    def wrote(self, node_id: int, effects: Effects) -> None:
        for kind, key, _ in effects.batch.ops:
            if kind != Op.DELETE_RANGE or key[0] != keys.ENTRY:
                continue
            # A trim and a base begin where the log does; what begins later is the end of a log.
            truncates = key > keys.entry(keys.group_of(key), 0)
            if truncates and self.rng.random() < TRUNCATION_CUTS:
                undo = partial(self._undo, node_id, effects.batch)
                self._later(self.rng.randint(5, 100), undo)

    def last_strike(self) -> None:
        """Strikes once more, just before everything heals; whoever leads then has to bear it."""
        world, leaders = self.world, self.world.leaders()
        if not leaders:
            return
        leader, _ = self.rng.choice(leaders)
        others = [one for one in world.nodes if one != leader]
        if self.topic is Topic.CUTS:
            world.crash(self.rng.choice(others), SHORT_MS, cut_to=0)
        elif self.topic is Topic.EVERYTHING and (found := self.heir()) is not None:
            leader, group_id, target = found
            node = world.nodes[leader]
            assert node.driver is not None, "a node that is down leads nothing"
            world.network.cut(leader, node_of(target))
            node.driver.transfer_leader(group_id, target)
            node.step()

    def heir(self) -> tuple[int, int, int] | None:
        """A leader, its group and a voter that lacks nothing: it would be told at once to stand."""
        for leader, group_id in self.world.leaders():
            driver = self.world.nodes[leader].driver
            assert driver is not None, "a node that is down leads nothing"
            status = driver.groups[group_id].status()
            for peer in status.peers:
                level = peer.match == status.basic.last_index and not peer.doubtful
                if level and not peer.is_learner and node_of(peer.id) != leader:
                    return leader, group_id, peer.id
        return None

    # ------------------------------------------------------------------ moments

    def _joint_phase(self, node_id: int) -> None:
        driver = self.world.nodes[node_id].driver
        group = joint_group(driver) if driver is not None else None
        if group is None or group.conf_state in self.joint_phases:
            return
        self.joint_phases.add(group.conf_state)
        if self.rng.random() < JOINT_CUTS:
            with_leavers = self.rng.random() < 0.3
            self.world.part(side_to_come(group, with_leavers=with_leavers))
            self._later(1, partial(self.world.traffic.burst, node_id, group.meta.group_id, 2))

    def _voted(self, node_id: int, envelope: Envelope, *, granted: bool) -> None:
        theft = self.theft
        if self.topic is Topic.VOTES:
            if self.rng.random() < VOTE_CRASHES:
                crash = partial(self.world.crash, node_id, SHORT_MS)
                self._later(self.rng.randint(0, 8), crash)
        elif (
            theft is not None
            and granted
            and envelope.group_id == theft.group_id
            and node_of(envelope.to_replica) == theft.candidate
            and node_id != theft.leader
        ):
            self.theft = None
            forget = partial(self._forget_vote, node_id, theft)
            self._later(self.rng.randint(4, 12), forget)

    def steal_vote(self) -> None:
        """Hands a leadership over behind the leader's back, and waits for a vote to be given."""
        world = self.world
        leaders = world.leaders()
        if self.topic is not Topic.CUTS or not leaders:
            return
        leader, group_id = self.rng.choice(leaders)
        driver = world.nodes[leader].driver
        assert driver is not None, "a node that is down leads nothing"
        target = self.rng.choice(
            [one for one in driver.groups[group_id].conf_state.voters if node_of(one) != leader]
        )
        world.network.heal()
        try:
            driver.transfer_leader(group_id, target)
        except ProposalRefusedError:
            return  # a voter in doubt is no target
        world.network.cut(node_of(target), leader)
        self.theft = _Theft(group_id, leader, node_of(target))
        world.soon(leader)

    def _forget_vote(self, voter: int, theft: _Theft) -> None:
        world = self.world
        world.note("forgets its vote", voter)
        world.network.heal()
        world.network.split({theft.candidate}, set(world.nodes) - {theft.candidate})
        world.crash(voter, SHORT_MS, cut_to=0)

    def _undo(self, node_id: int, batch: WriteBatch) -> None:
        """Takes a batch back, and all that was written after it, unless a witness has seen it."""
        unwitnessed = self.world.nodes[node_id].disk.unwitnessed
        place = next((i for i, one in enumerate(unwitnessed) if one is batch), None)
        if place is not None:
            self.world.crash(node_id, SHORT_MS, cut_to=place)

    def _later(self, delay_ms: int, act: Callable[[], None]) -> None:
        def strike() -> None:
            if self.world.chaos:
                act()

        self.world.events.later(delay_ms, strike)
