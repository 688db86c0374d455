"""Seeded worlds: replicas under a network and disks that misbehave, checked after each step.

Each step is one small event: a tick, a Ready taken, a completion, a delivery (out of order, perhaps
twice, perhaps never), a proposal, a crash that loses any part of what was not synced, a change of
members, a transfer, a read, a new base. At the end everything heals, and the group must come to
rest with equal logs. The seed decides everything.

Beyond `Network.check` the world knows:

- what was committed anywhere, with the term of the entry: it never changes, and every new leader
  holds it (Leader Completeness);
- what is durable where: a leader commits only what a quorum of disks holds;
- which votes are durable: never two in a term, also across restarts;
- what was committed when a read was asked for: no read is answered below it.
"""

from __future__ import annotations

import random

from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    DropKind,
    Entry,
    Ready,
    RequestRefusedError,
    Role,
)
from rakit.raft.quorum import VoteResult
from tests.raft.network import Network, Replica

_EVENTS = {
    "tick": 25,
    "take": 30,
    "persist": 25,
    "deliver": 60,
    "propose": 12,
    "crash": 2,
    "cut": 3,
    "isolate": 1,
    "heal": 2,
    "change": 3,
    "transfer": 1,
    "campaign": 2,
    "read": 3,
    "base": 1,
    "unreachable": 1,
    "forget": 2,
    "damage": 6,
}


class World:
    """One run; `run` raises an AssertionError that names what broke."""

    def __init__(self, seed: int, *, damage: bool = False, **options: int) -> None:
        self.rng = random.Random(seed)
        voters = self.rng.choice([(1,), (1, 2, 3), (1, 2, 3), (1, 2, 3, 4, 5)])
        limits = {"max_inflight_messages": 4, "max_size_per_msg_bytes": 60}
        self.network = Network(voters, learners=(), born=None, **{**limits, **options})
        #: Disks may lose what was synced, one replica's at a time, and the replica knows (S8).
        self.damage = damage
        self.damaged: set[int] = set()
        #: Many things happen between two checks now, a change of voters among them.
        self.healing = False
        self.next_id = max(voters) + 1
        self.gone: set[int] = set()
        self.proposed = 0
        self.reads = 0
        self.committed: dict[int, Entry] = {}
        self.seen_commit: dict[int, int] = {}
        self.durable_votes: dict[tuple[int, int], int] = {}
        self.read_floor: dict[bytes, int] = {}
        self.read_open: set[bytes] = set()
        self.led: set[tuple[int, int]] = set()

    def run(self, steps: int) -> None:
        names = list(_EVENTS)
        weights = list(_EVENTS.values())
        for name in self.rng.choices(names, weights, k=steps):
            getattr(self, f"_{name}")()
            self._check()
        self._heal_all()

    # Events.

    def _pick(self) -> Replica:
        return self.rng.choice(list(self.network.replicas.values()))

    def _tick(self) -> None:
        self._pick().node.tick()

    def _take(self) -> None:
        busy = [r for r in self.network.replicas.values() if r.node.has_ready()]
        if busy:
            replica = self.rng.choice(busy)
            ready = replica.take()
            if ready == Ready(ready.number):
                assert not replica.node.has_ready(), "a Ready without work is offered again"
            self.network.send(ready.messages)
            self._note(ready)

    def _note(self, ready: Ready) -> None:
        for read in ready.read_states:
            assert read.context in self.read_open, "a read was answered twice"
            self.read_open.discard(read.context)
            assert read.index >= self.read_floor[read.context], "a read misses what was committed"
        for dropped in ready.dropped:
            if dropped.kind is DropKind.READ:
                self.read_open.discard(dropped.context)

    def _persist(self) -> None:
        busy = [r for r in self.network.replicas.values() if r.flights]
        if busy:
            replica = self.rng.choice(busy)
            self.network.send(replica.persist(self.rng.randint(1, len(replica.flights))))

    def _deliver(self) -> None:
        pending = self.network.pending
        if not pending:
            return
        # Mostly in order, sometimes not.
        position = 0 if self.rng.random() < 0.7 else self.rng.randrange(len(pending))
        message = pending[position]
        luck = self.rng.random()
        if luck > 0.04:
            del pending[position]
        if luck > 0.08 or luck < 0.04:
            self.network.deliver(message)

    def _propose(self) -> None:
        leader = self.network.leader()
        if not leader:
            return
        self.proposed += 1
        count = self.rng.choice([1, 1, 3])
        try:
            self.network[leader].propose_batch(
                [b"%d.%d" % (self.proposed, i) for i in range(count)]
            )
        except RequestRefusedError:
            return

    def _crash(self) -> None:
        replica = self._pick()
        doubtful = replica.node.basic_status().doubtful
        replica.crash(keep=self.rng.randint(0, len(replica.unsynced)), doubtful=doubtful)
        self.seen_commit.pop(replica.id, None)

    def _damage(self) -> None:
        """Only one at a time: an entry that two disks of three have lost is lost."""
        replicas = self.network.replicas.values()
        if not self.damage or any(r.node.basic_status().doubtful for r in replicas):
            return
        replica = self._pick()
        if len(replica.node.status().conf_state.voters) < 3:
            return
        replica.lose(self.rng.randint(1, 8))
        replica.crash(doubtful=True)
        self.damaged.add(replica.id)
        self.seen_commit.pop(replica.id, None)
        if self.rng.random() < 0.5:
            # Whoever else holds what was lost may be out of reach just now.
            self.network.isolate(self.network.leader() or self._pick().id)

    def _cut(self) -> None:
        a, b = self._pick().id, self._pick().id
        if a != b:
            self.network.cut_one_way(a, b)

    def _isolate(self) -> None:
        self.network.isolate(self._pick().id)

    def _campaign(self) -> None:
        replica = self._pick()
        replica.node.forget_leader()
        replica.node.campaign()

    def _heal(self) -> None:
        self.network.heal()

    def _change(self) -> None:
        leader = self.network.leader()
        if not leader:
            return
        steps = [self._step(leader) for _ in range(self.rng.choice([1, 1, 2, 4]))]
        transition = self.rng.choice(list(ConfChangeTransition))
        change = ConfChange(tuple(steps), transition)
        if self.rng.random() < 0.3:
            change = ConfChange()
        try:
            self.network[leader].propose_conf_change(change)
        except RequestRefusedError:
            return
        for step in change.changes:
            if step.type is ConfChangeType.REMOVE:
                self.gone.add(step.replica_id)
            if step.replica_id not in self.network.replicas:
                self.network.add(step.replica_id, None)
                self.next_id += 1

    def _step(self, leader: int) -> ConfChangeSingle:
        """Chooses as a controller would: ids are never reused, who is new learns first."""
        status = self.network[leader].status()
        members = [peer.id for peer in status.peers]
        level = [
            peer.id
            for peer in status.peers
            if peer.match >= status.basic.commit and peer.id not in self.gone
        ]
        kind = self.rng.choice(list(ConfChangeType))
        if kind is ConfChangeType.ADD_LEARNER and len(members) < 7 and self.rng.random() < 0.6:
            return ConfChangeSingle(kind, self.next_id)
        if kind is ConfChangeType.ADD_VOTER and level:
            return ConfChangeSingle(kind, self.rng.choice(level))
        return ConfChangeSingle(ConfChangeType.REMOVE, self.rng.choice(members))

    def _transfer(self) -> None:
        leader = self.network.leader()
        if leader:
            try:
                self.network[leader].transfer_leader(self._pick().id)
            except RequestRefusedError:
                return

    def _read(self) -> None:
        self.reads += 1
        context = b"r%d" % self.reads
        try:
            self._pick().node.read_index(context)
        except RequestRefusedError:
            return
        self.read_open.add(context)
        self.read_floor[context] = max(self.committed, default=0)

    def _base(self) -> None:
        replica = self._pick()
        status = replica.node.basic_status()
        if not replica.unsynced and status.applied > replica.store.log.first_index():
            self.network.offer_base(replica.id, status.applied)

    def _unreachable(self) -> None:
        self._pick().node.report_unreachable(self._pick().id)

    def _forget(self) -> None:
        self._pick().node.forget_leader()

    # Checks.

    def _check(self) -> None:
        self.network.check()
        for replica in self.network.replicas.values():
            self._check_durable_vote(replica)
            self._check_commit(replica)
            if replica.role() is Role.LEADER and (replica.id, replica.term) not in self.led:
                self.led.add((replica.id, replica.term))
                self._check_completeness(replica)

    def _check_durable_vote(self, replica: Replica) -> None:
        state = replica.synced.log.hard_state
        if state.vote and replica.id not in self.damaged:
            vote = self.durable_votes.setdefault((replica.id, state.term), state.vote)
            assert vote == state.vote, f"{replica.id} has two durable votes in {state.term}"

    def _check_commit(self, replica: Replica) -> None:
        log = replica.node._raft.log
        low = max(self.seen_commit.get(replica.id, 0) + 1, log.first_index)
        for index in range(low, log.committed + 1):
            entry = log.slice(index, index + 1, 1)[0]
            known = self.committed.setdefault(index, entry)
            assert known == entry, f"{replica.id} committed another entry at {index}"
            if replica.role() is Role.LEADER and entry.term == replica.term:
                self._check_durable_on_quorum(replica, entry)
        self.seen_commit[replica.id] = log.committed

    def _check_durable_on_quorum(self, leader: Replica, entry: Entry) -> None:
        if self.healing or self.damaged:
            return

        def holds(replica_id: int) -> int:
            log = self.network.replicas[replica_id].synced.log
            below = entry.index < log.first_index()
            return below or (
                entry.index <= log.last_index() and log.term(entry.index) == entry.term
            )

        voters = leader.node._raft.tracker.voters
        votes = {voter: bool(holds(voter)) for voter in voters.ids}
        assert voters.vote_result(votes) is VoteResult.WON, (
            f"{leader.id} committed {entry.index}, which is durable on {votes}"
        )

    def _check_completeness(self, replica: Replica) -> None:
        log = replica.node._raft.log
        for index, entry in self.committed.items():
            if index >= log.first_index and entry.term < replica.term:
                assert log.matches(index, entry.term), (
                    f"leader {replica.id} of term {replica.term} lacks committed {index}"
                )

    # The end.

    def _heal_all(self) -> None:
        self.healing = True
        self.network.heal()
        self.network.run()
        proposed = False
        for _ in range(400):
            self.network.tick()
            self._check()
            for replica in self.network.replicas.values():
                for ready in replica.outcome:
                    self._note_late(ready)
                replica.outcome.clear()
            leader = self.network.leader()
            if not leader or not self.network[leader].leader_ready():
                continue
            try:
                if not proposed:
                    self.network[leader].propose(b"last")
                    proposed = True
                elif self.network[leader].status().conf_state.voters_outgoing:
                    self.network[leader].propose_conf_change(ConfChange())
            except RequestRefusedError:
                continue
            if self._at_rest(leader):
                return
        raise AssertionError(f"no rest after healing: {self._describe()}")

    def _note_late(self, ready: Ready) -> None:
        for read in ready.read_states:
            self.read_open.discard(read.context)

    def _at_rest(self, leader: int) -> bool:
        status = self.network[leader].status()
        if not self.network[leader].can_quiesce().quiet:
            return False
        leading = self.network.replicas[leader].store.commands
        return all(
            self.network.replicas[peer.id].store.commands == leading
            for peer in status.peers
            if peer.recent_active
        )

    def _describe(self) -> str:
        return "; ".join(str(r.node.basic_status()) for r in self.network.replicas.values())
