"""The simulated world: one seed, one run, no clock but its own.

A queue of events drives real drivers, real state machines and the real leader's view of a
partition. Chaos comes first: crashes at every persist boundary, pauses, cuts, bad weather, slow
disks, wrong clocks, ambushes at the worst moment, and machines that fail (`hazards`). Then
everything heals, and the world must come to rest within a bound, by itself: one leader a group,
every replica at the same index, every promise kept. Once more something happens to it while it is
quiet (`lull`); at last every group must serve its clients.

Determinism: all choices come from generators seeded by the seed; nothing iterates over a set or
depends on hashes of strings (`hash` of bytes is used only to compare within one run).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial

from rakit.multiraft.boot import is_doubtful
from rakit.multiraft.driver import Driver
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.errors import StoreUnreadableError
from rakit.multiraft.machine import GroupKind, GroupMeta, StateMachine, node_of
from rakit.multiraft.store.errors import StoreFailedError
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.settings import TopicSettings
from rakit.raft import MessageType, Role
from tests.sim import judgement, lull
from tests.sim.ambush import Ambush
from tests.sim.broker import Broker, Clock, Held
from tests.sim.damage import Damage
from tests.sim.disk import Image
from tests.sim.events import Events
from tests.sim.graves import Graves
from tests.sim.hazards import Hazards
from tests.sim.invariants import Checker
from tests.sim.members import Members, Votes
from tests.sim.nemesis import strike
from tests.sim.network import Network
from tests.sim.node import CrashError, SimNode, Wiring
from tests.sim.plan import Plan, Topic
from tests.sim.report import role_words
from tests.sim.tracing import Tracing
from tests.sim.traffic import Traffic
from tests.sim.watch import Watch

TICK_MS = 50
LIVENESS_MS = 250
WITNESS_MS = 1000
CALM_MS = 600
REGISTRY_CHECKPOINT_ENTRIES = 2
SETTINGS = TopicSettings(segment_bytes=600, segment_ms=4_000, retention_bytes=1800)
OUTDATED_STARTS = 0.5
TAIL_CACHE_BYTES = 1500
#: Runs whose nodes read what is durable from the disk, and ahead of what they need. The usual
#: cache keeps whatever a truncation can reach, so nothing of that is ever read ahead.
WITHOUT_TAIL = 0.3
#: Runs in which every leader is read from with every tick until a healed world has come to rest:
#: what was lost before has to be repeated beside that.
EAGER_READERS = 0.35
#: Runs in which the members of groups change.
_MOVES = {Topic.MEMBERS, Topic.DAMAGE, Topic.REGISTRY}
_APPENDS = frozenset({MessageType.APP, MessageType.SNAP, MessageType.BASE_PART})


def new_machine(meta: GroupMeta) -> StateMachine:
    if meta.kind is GroupKind.METADATA:
        return MetadataMachine(REGISTRY_CHECKPOINT_ENTRIES)
    return PartitionMachine(meta)


def _tail_cache_bytes(seed: int) -> int:
    # A generator of its own: what a run draws does not depend on its cache.
    return 1 if random.Random(f"the caches of {seed}").random() < WITHOUT_TAIL else TAIL_CACHE_BYTES


def _has_eager_readers(seed: int) -> bool:
    # Likewise: what goes before the healing is the same run.
    return random.Random(f"the readers of {seed}").random() < EAGER_READERS


class World:
    """Everything of one run."""

    def __init__(self, seed: int, trace_lines: int = 0, tracing: Tracing | None = None) -> None:
        # Reads no random number and changes nothing: a run is the same with and without it.
        self.tracing = tracing
        self.rng = random.Random(seed)
        self.plan = plan = Plan.drawn(self.rng)
        self.seed = seed
        # (when, which group, what)
        self.trace: deque[tuple[int, int, tuple[object, ...]]] | None = None
        if trace_lines:
            self.trace = deque(maxlen=trace_lines)
        self.events = Events()
        self.network = Network(random.Random(self.rng.random()))
        #: How often each kind of fault has struck.
        self.faults = self.network.faults
        self.chaos = self.striking = True
        # Nodes whose power fails at one of their next persist boundaries, and at which.
        self.armed: dict[int, int] = {}
        self.nodes = self._nodes()
        ids = list(self.nodes)
        self.sync_ms: dict[int, tuple[int, int]] = dict.fromkeys(ids, (1, 4))
        self.clock_offset_ms = dict.fromkeys(ids, 0)
        self.tick_ms = {one: round(TICK_MS * self.rng.uniform(0.85, 1.2)) for one in ids}
        self.group_ids = list(range(2, 2 + plan.groups))
        registry = [METADATA_GROUP_ID] if plan.topic is Topic.REGISTRY else []
        self.members = Members(ids[: plan.nodes], [*registry, *self.group_ids])
        self.members.bold = self.rng.random() < 0.5
        if plan.topic in {Topic.MEMBERS, Topic.REGISTRY}:
            self.members.votes = Votes.drawn(seed)
        self.traffic = Traffic(
            self.rng, self.events, self.network, self.nodes, self.group_ids, seed=seed
        )
        self.checker = Checker(
            lambda node_id: self.nodes[node_id].disk,
            lambda node_id: self.nodes[node_id].driver,
            self.traffic.oracle.ledger,
        )
        if self.trace is not None:
            self.traffic.note = self.note
        self.watch = Watch(self.nodes, self.network, self.events)
        self.ambush = Ambush(self)
        self.damage = Damage(self)
        # Whether leaders change configurations, and how often they look: some take their time.
        self.tending = plan.topic in _MOVES
        self.tending_rate = self.rng.choice([0.4, 0.06])
        self.graves = Graves(self.nodes)
        self.eager_readers = _has_eager_readers(seed)
        # Nodes that never come back.
        self.lost: set[int] = set()
        self.hazards = Hazards(self, seed)
        self.settings = self.hazards.settings(SETTINGS)
        # In how many of their ticks leaders look after their logs.
        self.upkeep = 0.5 if self.hazards.trims else 0.05
        self.steps = 0

    def _nodes(self) -> dict[int, SimNode]:
        wiring = Wiring(
            self._send,
            self._start_sync,
            self._hand_out,
            self._may_crash,
            self._wrote,
            self._synced,
            self._stepped,
            self._stalled,
        )
        plan = self.plan
        config = DriverConfig(
            election_ticks=plan.election_ticks,
            heartbeat_ticks=2,
            quiesce_ticks=12,
            message_bytes_max=plan.message_bytes,
            inflight_messages_max=4,
            inflight_bytes_max=2000,
            batch_bytes_max=plan.batch_bytes,
            tail_cache_bytes_max=_tail_cache_bytes(self.seed),
            tail_cache_needed_bytes_max=2 * _tail_cache_bytes(self.seed),
            read_ahead_bytes_max=1500,
            send_bytes_max=800,
            apply_bytes_max=600,
            apply_count_max=4,
            step_bytes_max=100_000,  # what a dozen applied entries count for
            uncommitted_bytes_max=800,
            tracer=self.tracing.tracer if self.tracing is not None else None,
            base_part_bytes_max=plan.base_part_bytes,
            base_inflight_bytes_max=plan.base_part_bytes,
        )
        ids = range(1, plan.nodes + plan.spares + 1)
        nodes = {one: SimNode(one, wiring, config, new_machine) for one in ids}
        if plan.topic is Topic.CUTS:
            for node in nodes.values():
                node.disk.witnessed = Image()
        return nodes

    # ------------------------------------------------------------------ events

    def note(self, *words: object, group: int = 0) -> None:
        """Keeps an event for a report; 0: it concerns every group."""
        if self.trace is not None:
            self.trace.append((self.events.now_ms, group, words))

    def run_until(self, end_ms: int, done: Callable[[], bool] | None = None) -> None:
        """Runs events up to a time, or until `done`."""
        events, nodes = self.events, self.nodes
        while (event := events.next(end_ms)) is not None:
            _, _, node_id, boot, run = event
            if node_id:
                node = nodes[node_id]
                if node.driver is None or (boot >= 0 and boot != node.boot):
                    continue
                if node.paused_until_ms > events.now_ms:
                    events.again(event, node.paused_until_ms)
                    continue
                if node.busy_until_ms > events.now_ms:
                    events.again(event, node.busy_until_ms)
                    continue
                if node.held is not None and run is not node.resume:
                    events.again(event, max(events.now_ms + 1, node.resume_ms))
                    continue
            try:
                run()
            except CrashError:
                self.crash(node_id)
                continue
            except StoreFailedError as error:
                self.hazards.failed(node_id, error)
                continue
            self.steps += 1
            if done is not None and self.steps % 8 == 0 and done():
                return

    # ------------------------------------------------------------------ a node's life

    def start(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if node.up or node_id in self.lost:
            return
        self.note("start", node_id)
        try:
            node.start(random.Random(self.rng.random()))
        except StoreUnreadableError as error:
            self.note("no start", node_id, error)
            self.faults["no start"] += 1
            self.events.later(50, partial(self.start, node_id))
            return
        driver = node.driver
        assert driver is not None, "just started"
        self.traffic.brokers[node_id] = self._broker(node_id, driver)
        self.hazards.started(node_id)
        self._settle_at_start(node)
        boot, later = node.boot, self.events.later
        later(self.rng.randint(0, TICK_MS), partial(self._tick, node_id), node_id, boot)
        later(1, partial(self._liveness, node_id), node_id, boot)
        later(0, node.step, node_id, boot)

    def _settle_at_start(self, node: SimNode) -> None:
        """A node's copy of the registry may begin where it was before groups were deleted."""
        outdated = self.members.deleted and self.rng.random() < OUTDATED_STARTS
        # Of a store that another one took the place of, an old registry knows no better (S11).
        if outdated and self.hazards.stores is None:
            self.note("outdated", node.node_id)
            self.members.settle_as_before(node)
            delay_ms = self.rng.randint(1, 300)
            self.events.later(
                delay_ms, partial(self._settle, node.node_id), node.node_id, node.boot
            )
        else:
            self._settle_now(node)

    def _settle_now(self, node: SimNode) -> None:
        for group_id in self.members.deleted:
            if self.graves.dig(node, group_id):
                self.checker.removed(node.node_id, group_id)
        if self.members.settle(node) and self.hazards.unreadable(node.node_id):
            self.hazards.mend(node.node_id)

    def crash(
        self, node_id: int, down_ms: tuple[int, int] = (30, 2500), cut_to: int | None = None
    ) -> None:
        """Ends a node's process; its disk may lose its tail, as far as a minority is in doubt.

        `cut_to`: how many of the batches behind the witness the disk is to keep.
        """
        node = self.nodes[node_id]
        if not node.up:
            return
        self.note("crash", node_id)
        pending = len(node.disk.pending)
        count = node.disk.count
        self.checker.crashed(node_id, node.crash(self.rng))
        self.hazards.crashed(node_id, pending - (node.disk.count - count))
        self.damage.crashed(node_id)
        self.graves.crashed(node_id)
        node.paused_until_ms = 0
        self.armed.pop(node_id, None)
        self.traffic.crashed(node_id)
        if self.plan.topic is Topic.CUTS and self.may_cut(node_id):
            behind = len(node.disk.unwitnessed)
            if cut_to is None and self.chaos and self.rng.random() < 0.3:
                cut_to = self.rng.randint(0, behind)
            if cut_to is not None:
                self.note("cut", node_id, "to", cut_to, "of", behind)
                self.checker.cut(node_id, node.disk.cut(cut_to))
                node.was_cut = True
        self.events.later(self.rng.randint(*down_ms), partial(self.start, node_id))

    def may_cut(self, node_id: int) -> bool:
        """A minority may be in doubt: what it lost, the others still hold (S8)."""
        doubted = {one for one, node in self.nodes.items() if self._in_doubt(node)} | {node_id}
        return 2 * len(doubted) < len(self.nodes)

    def _in_doubt(self, node: SimNode) -> bool:
        # A node that is down may have marks of doubt on its disk: they are read as its start would.
        return node.was_cut or any(
            is_doubtful(node.disk, group_id) for group_id in self.members.groups
        )

    def pause(self, node_id: int, duration_ms: int) -> None:
        self.nodes[node_id].paused_until_ms = self.events.now_ms + duration_ms

    def soon(self, node_id: int) -> None:
        """Has a node carry out what an input from outside its events has brought about."""
        node = self.nodes[node_id]
        self.events.later(0, node.step, node_id, node.boot)

    def part(self, side: set[int]) -> None:
        """Cuts a side off, and has the others notice at once, as if its addresses refused them."""
        self.note("cut off", *sorted(side))
        others = set(self.nodes) - side
        self.network.split(side, others)
        for node_id in sorted(others):
            self.events.later(1, partial(self._refuse, node_id, side), node_id)

    def _refuse(self, node_id: int, side: set[int]) -> None:
        for other_id in sorted(side):
            self.watch.refused(node_id, other_id)
        self.nodes[node_id].step()

    def settle_members(self) -> None:
        """The registry has changed: nodes that are up act on it, each when it hears of it."""
        for node_id, node in self.nodes.items():
            if node.driver is not None:
                delay_ms = self.rng.randint(0, 300)
                self.events.later(delay_ms, partial(self._settle, node_id), node_id, node.boot)

    def _settle(self, node_id: int) -> None:
        self._settle_now(self.nodes[node_id])
        self.nodes[node_id].step()

    def leaders(self) -> list[tuple[int, int]]:
        """(node, group) of who leads at the moment, as they see it."""
        return [
            (node_id, group_id)
            for node_id, node in self.nodes.items()
            for group_id, group in (node.driver.groups.items() if node.driver else ())
            if group.role is Role.LEADER
        ]

    def _broker(self, node_id: int, driver: Driver) -> Broker:
        hazards = self.hazards
        clock = Clock(
            partial(self.clock_ms, node_id),
            partial(hazards.trusts_clock, node_id),
            partial(hazards.deletes, node_id),
        )
        return Broker(driver, self.nodes[node_id].disk, self.settings, clock)

    def clock_ms(self, node_id: int) -> int:
        return 1_700_000_000_000 + self.events.now_ms + self.clock_offset_ms[node_id]

    def _tick(self, node_id: int) -> None:
        node = self.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.tick()
        self.hazards.ticked(node)
        traffic, rng = self.traffic, self.rng
        if rng.random() < self.upkeep:
            for group_id in self.group_ids:
                traffic.brokers[node_id].maintain(group_id)
        if self.tending and rng.random() < self.tending_rate:
            self.members.tend(node.driver, self.watch.up(node_id))
        if self.chaos and rng.random() < 0.1:
            traffic.reads.ask(node_id, node.boot, node.driver, rng)
        if not self.chaos and self.eager_readers:
            traffic.reads.ask_leaders(node_id, node.boot, node.driver)
        if self.chaos and self.plan.topic is Topic.REGISTRY and rng.random() < 0.2:
            traffic.registrars.register(node.driver, self.clock_ms(node_id), rng)
        self.events.later(self.tick_ms[node_id], partial(self._tick, node_id), node_id, node.boot)
        node.step()

    def _liveness(self, node_id: int) -> None:
        node = self.nodes[node_id]
        self.watch.look(node_id)
        self.hazards.looked(node_id)
        if self.plan.topic is Topic.CUTS and self.events.now_ms % WITNESS_MS < LIVENESS_MS:
            node.disk.witness()
        self.events.later(LIVENESS_MS, partial(self._liveness, node_id), node_id, node.boot)
        node.step()

    # ------------------------------------------------------------------ wiring

    def _send(self, node_id: int, envelopes: list[Envelope]) -> None:
        self.checker.votes.sent(node_id, envelopes)
        self.damage.sent(envelopes)
        for envelope in envelopes:
            if envelope.message.type is MessageType.TIMEOUT_NOW:
                self.checker.told_to_stand(node_id, envelope)
        if self.chaos:
            self.ambush.sent(node_id, envelopes)
        self.hazards.sent(node_id, envelopes)
        network, later = self.network, self.events.later
        for envelope in envelopes:
            target = node_of(envelope.to_replica)
            if self.trace is not None:
                self.note(f"{node_id}->{target}", envelope.message, group=envelope.group_id)
            if envelope.message.type in _APPENDS and network.refuses():
                later(0, partial(self._refused, node_id, envelope), node_id)
                continue
            breaks = network.breaks.get((node_id, target), 0)
            for delay_ms in network.arrivals_ms(node_id, target):
                later(delay_ms, partial(self._deliver, node_id, target, breaks, envelope), target)

    def arrives_again(self, source: int, envelope: Envelope, delay_ms: int) -> None:
        """Has a copy of a message arrive late."""
        target = node_of(envelope.to_replica)
        breaks = self.network.breaks.get((source, target), 0)
        late = partial(self._deliver, source, target, breaks, envelope)
        self.events.later(delay_ms, late, target)

    def _deliver(self, source: int, target: int, breaks: int, envelope: Envelope) -> None:
        node = self.nodes[target]
        assert node.driver is not None, "events of a node that is down are dropped"
        unbroken = self.network.breaks.get((source, target), 0) == breaks
        if unbroken and self.hazards.arrives(source, target):
            node.driver.receive(envelope)
        # What arrives together is taken in one turn, as by the host: Readys grow by that.
        if not self.events.follows(target, self._deliver):
            node.step()

    def _refused(self, node_id: int, envelope: Envelope) -> None:
        node = self.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.unreachable(envelope.group_id, envelope.to_replica)
        node.step()

    def _wrote(self, node_id: int, effects: Effects) -> None:
        self.checker.wrote(node_id, effects.number, effects.batch)
        self.graves.wrote(node_id, effects.number)
        if self.plan.topic is Topic.CUTS and self.chaos:
            self.ambush.wrote(node_id, effects)

    def _synced(self, node_id: int, number: int) -> None:
        self.checker.votes.synced(node_id, number)
        self.damage.synced(node_id, number)
        self.graves.synced(node_id, number)

    def _stepped(self, node_id: int) -> None:
        if self.tracing is not None:
            self.tracing.judge()
        driver = self.nodes[node_id].driver
        assert driver is not None, "a node that is down does not step"
        self.checker.stepped(node_id, driver)
        self.damage.stepped(node_id, driver)
        self.graves.stepped(node_id, driver)
        self.hazards.stepped(self.nodes[node_id])

    def _stalled(self, node_id: int) -> None:
        # Readers are served while the write waits: what was applied with it is seen from here on.
        driver = self.nodes[node_id].driver
        assert driver is not None, "a node that is down writes nothing"
        self.checker.stepped(node_id, driver)
        self.hazards.stalled(node_id)

    def _start_sync(self, node_id: int) -> None:
        node = self.nodes[node_id]
        covered = node.written  # a flush covers the writes that returned before it began
        delay_ms = self.rng.randint(*self.sync_ms[node_id])
        node.sync_began_ms = self.events.now_ms

        def finished() -> None:
            node.syncing = False
            if node.written > covered:
                node.syncing = True
                self._start_sync(node_id)
            node.sync_done(covered)

        self.events.later(delay_ms, finished, node_id, node.boot)

    def _hand_out(self, node_id: int, effects: Effects) -> None:
        self.damage.found(node_id, effects)
        traffic = self.traffic
        broker = traffic.brokers[node_id]
        driver = self.nodes[node_id].driver
        assert driver is not None, "a node that is down hands nothing out"
        for completion in effects.completions:
            if not completion.lost:
                traffic.reads.acknowledge(completion.group_id, completion.entry[1])
            if completion.group_id == METADATA_GROUP_ID:
                traffic.registrars.completed(completion)
            else:
                broker.completed(completion)
        for answer in effects.reads:
            if isinstance(answer.token, Held):
                broker.confirmed(answer.token, answer)
            else:
                traffic.reads.answered(driver, answer)
        for change in effects.roles:
            if self.trace is not None:
                self.note(*role_words(node_id, change), group=change.group_id)
            broker.role_changed(change)
            if self.plan.topic is Topic.MEMBERS and change.role is Role.LEADER:
                self.members.tend(driver, self.watch.up(node_id))
            if self.watch.ended(node_id, change):
                self._announce_end(node_id, change.group_id)

    def _announce_end(self, node_id: int, group_id: int) -> None:
        """Tells the other nodes that this one leads a group no more (S15)."""
        for other_id, other in self.nodes.items():
            if other_id != node_id and self.network.connected(node_id, other_id):
                delay_ms = self.rng.randint(1, 20)
                told = partial(self._leader_ended, other_id, group_id)
                self.events.later(delay_ms, told, other_id, other.boot)

    def _leader_ended(self, node_id: int, group_id: int) -> None:
        node = self.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.leader_ended(group_id)
        node.step()

    def _may_crash(self, node_id: int, where: str) -> None:
        left = self.armed.get(node_id)
        if left is None or not self.chaos:
            return
        if left > 1:
            self.armed[node_id] = left - 1
            return
        self.note("power fails", node_id, where)
        self.faults[f"crash {where}"] += 1
        raise CrashError(where)

    # ------------------------------------------------------------------ a run

    def run(self) -> None:
        """Chaos, healing, judgement; raises ViolationError."""
        for node_id in self.nodes:
            self.start(node_id)
        self.traffic.begin()
        self.events.later(600, self._strike)
        self.hazards.begin()
        self.run_until(self.plan.chaos_ms)
        self.striking = False
        if self.plan.topic is Topic.REGISTRY:
            self.members.change(self.rng, list(self.nodes), METADATA_GROUP_ID)
            self.settle_members()
        if self.plan.topic in {Topic.CUTS, Topic.EVERYTHING}:
            self._calm_down()
            self.ambush.last_strike()
        self._heal()
        # First everybody comes to rest without being asked for anything; some need a client for it.
        self._rest()
        self.eager_readers = False
        lull.strike(self)
        self._rest()
        self.traffic.ask_once_more(registry=self.plan.topic is Topic.REGISTRY)
        self._rest()
        judgement.judge(self)
        self.faults.update(self.traffic.counts())
        if self.tracing is not None:
            self.tracing.judge()

    def _rest(self) -> None:
        self.run_until(self.events.now_ms + self.plan.heal_ms, partial(judgement.at_rest, self))
        judgement.judge_rest(self)

    def _strike(self) -> None:
        if self.striking:
            strike(self, self.rng)
            self.events.later(self.rng.randint(1, 2 * self.plan.strike_every_ms), self._strike)

    def _calm_down(self) -> None:
        """Lets groups find a leader, at work, so that the last strike meets one."""
        self.network.heal()
        self.hazards.calm()
        self.armed.clear()
        self.run_until(self.events.now_ms + CALM_MS)
        self.run_until(self.events.now_ms + CALM_MS, lambda: self.ambush.heir() is not None)

    def _heal(self) -> None:
        self.note("heal")
        self.chaos = self.traffic.chaos = False
        self.armed.clear()
        self.network.heal()
        self.hazards.calm()
        for node_id, node in self.nodes.items():
            node.paused_until_ms = 0
            self.sync_ms[node_id] = (1, 4)
            if not node.up:
                self.events.later(1, partial(self.start, node_id))
