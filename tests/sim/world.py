"""The simulated world: one seed, one run, no clock but its own.

A heap of events drives real drivers, real state machines and the real leader's view of a
partition. Chaos comes first: crashes at every persist boundary, pauses, cuts, bad weather, slow
disks, wrong clocks. Then everything heals, and the world must come to rest within a bound: one
leader a group, every replica at the same index, every promise kept.

Determinism: all choices come from generators seeded by the seed; nothing iterates over a set or
depends on hashes of strings (`hash` of bytes is used only to compare within one run).
"""

from __future__ import annotations

import dataclasses
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from rakit.multiraft import quarantine
from rakit.multiraft.boot import is_doubtful
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind, GroupMeta, StateMachine, node_of
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.partition.commands import parse
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.settings import TopicSettings
from rakit.raft import ConfState, EntryType, Role
from tests.sim.broker import Answer, Broker, Held
from tests.sim.clients import Oracle, Producer
from tests.sim.disk import Image
from tests.sim.invariants import Checker, ViolationError
from tests.sim.members import Members, side_to_come
from tests.sim.nemesis import strike
from tests.sim.network import Network
from tests.sim.node import CrashError, SimNode, Wiring
from tests.sim.plan import Plan
from tests.sim.reading import ReadOracle
from tests.sim.registrars import Registrars

TICK_MS = 50
LIVENESS_MS = 250
SILENCE_MS = 1000
WITNESS_MS = 1000
JOINT_CUTS = 0.8  # of the joint phases
READS_FOR_MS, READ_EVERY_MS = 1500, 50
REPLACEMENTS = 0.5  # of the replicas that are shut out
CONFIG = DriverConfig(
    election_ticks=10,
    heartbeat_ticks=2,
    quiesce_ticks=12,
    message_bytes_max=400,
    inflight_messages_max=4,
    inflight_bytes_max=2000,
    batch_bytes_max=2000,
    tail_cache_bytes_max=1500,
    send_bytes_max=800,
    apply_bytes_max=600,
    apply_count_max=4,
    step_bytes_max=100_000,  # what a dozen applied entries count for
)
SETTINGS = TopicSettings(segment_bytes=600, segment_ms=4_000, retention_bytes=1800)


def new_machine(meta: GroupMeta) -> StateMachine:
    return MetadataMachine() if meta.kind is GroupKind.METADATA else PartitionMachine(meta)


def _in_doubt(node: SimNode) -> bool:
    if node.was_cut:
        return True
    # A node that is down may have marks of doubt on its disk: they are read, as its start would.
    return any(is_doubtful(node.disk, group_id) for group_id in range(METADATA_GROUP_ID, 8))


@dataclass(order=True, slots=True)
class Event:
    at_ms: int
    order: int
    node_id: int = field(compare=False)
    boot: int = field(compare=False)  # -1: whatever life the node is in
    run: Callable[[], None] = field(compare=False)


class World:
    """Everything of one run."""

    def __init__(self, seed: int, trace_lines: int = 0) -> None:
        self.rng = random.Random(seed)
        self.plan = Plan.drawn(self.rng)
        self.now_ms = 0
        self.order = 0
        self.events: list[Event] = []
        self.trace: deque[str] | None = deque(maxlen=trace_lines) if trace_lines else None
        self.network = Network(random.Random(self.rng.random()))
        self.chaos = True
        self.armed: dict[int, int] = {}
        self.oracle = Oracle()
        self.brokers: dict[int, Broker] = {}
        wiring = Wiring(self._send, self._start_sync, self._hand_out, self._may_crash, self._wrote)
        config = dataclasses.replace(CONFIG, election_ticks=self.plan.election_ticks)
        ids = range(1, self.plan.nodes + self.plan.spares + 1)
        self.nodes = {one: SimNode(one, wiring, config, new_machine) for one in ids}
        self.sync_ms: dict[int, tuple[int, int]] = dict.fromkeys(ids, (1, 4))
        self.clock_offset_ms = dict.fromkeys(ids, 0)
        self.tick_ms = {one: round(TICK_MS * self.rng.uniform(0.85, 1.2)) for one in ids}
        self.views: dict[tuple[int, int], tuple[bool, int, int]] = {}  # up, boot, last heard
        self.checker = Checker(lambda node_id: self.nodes[node_id].disk)
        self.group_ids = range(2, 2 + self.plan.groups)
        registry = [METADATA_GROUP_ID] if self.plan.registry else []
        self.members = Members(list(ids)[: self.plan.nodes], [*registry, *self.group_ids])
        self.joint_phases: set[ConfState] = set()
        # Group to the node whose replica is damaged: one of each group, so that the others go on.
        self.damaged: dict[int, int] = {}
        self.replaced: set[int] = set()
        # (node, group) of quarantines that are not durable, with the effects that are to make them.
        self.shutting_out: dict[tuple[int, int], int] = {}
        self.registrars = Registrars()
        self.reads = ReadOracle()
        if self.plan.cuts:
            for node in self.nodes.values():
                node.disk.witnessed = Image()
        self.producers = [
            Producer(producer_id, group_id, random.Random(self.rng.random()), self.oracle)
            for group_id in self.group_ids
            for producer_id in (0, 1, 2)
        ]
        self.steps = 0

    # ------------------------------------------------------------------ events

    def note(self, *words: object) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now_ms:>6} {' '.join(map(str, words))}")

    def later(
        self, delay_ms: int, run: Callable[[], None], node_id: int = 0, boot: int = -1
    ) -> None:
        self.order += 1
        heapq.heappush(self.events, Event(self.now_ms + delay_ms, self.order, node_id, boot, run))

    def run_until(self, end_ms: int, done: Callable[[], bool] | None = None) -> None:
        """Runs events up to a time, or until `done`."""
        while self.events and self.events[0].at_ms <= end_ms:
            event = heapq.heappop(self.events)
            self.now_ms = event.at_ms
            if event.node_id and not self._ready_for(event):
                continue
            try:
                event.run()
            except CrashError:
                self.crash(event.node_id)
                continue
            self.steps += 1
            if event.node_id and self.nodes[event.node_id].driver is not None:
                driver = self.nodes[event.node_id].driver
                assert driver is not None, "just looked"
                self.checker.stepped(event.node_id, driver)
            if done is not None and self.steps % 8 == 0 and done():
                return
        self.now_ms = max(self.now_ms, end_ms)

    def _ready_for(self, event: Event) -> bool:
        node = self.nodes[event.node_id]
        if not node.up or (event.boot >= 0 and event.boot != node.boot):
            return False
        if node.paused_until_ms > self.now_ms:
            event.at_ms = node.paused_until_ms
            heapq.heappush(self.events, event)
            return False
        return True

    # ------------------------------------------------------------------ a node's life

    def start(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if node.up:
            return
        self.note("start", node_id)
        node.start(random.Random(self.rng.random()))
        driver = node.driver
        assert driver is not None, "just started"
        self.brokers[node_id] = Broker(driver, SETTINGS, lambda: self.clock_ms(node_id))
        self.members.create_missing(node)
        boot = node.boot
        self.later(self.rng.randint(0, TICK_MS), lambda: self._tick(node_id), node_id, boot)
        self.later(1, lambda: self._liveness(node_id), node_id, boot)
        self.later(0, node.step, node_id, boot)

    def crash(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if not node.up:
            return
        self.note("crash", node_id)
        node.crash(self.rng)
        node.paused_until_ms = 0
        self.armed.pop(node_id, None)
        self.brokers.pop(node_id)
        self.reads.forget(node_id)
        self._crashed_while_shutting_out(node)
        if self.plan.cuts and self.chaos and self.rng.random() < 0.5 and self._may_cut(node_id):
            self.note("cut", node_id)
            self.checker.cut(node_id, node.disk.cut(self.rng))
            node.was_cut = True
        self.checker.crashed(node_id)
        self.checker.restarted(node_id)
        self.later(self.rng.randint(30, 2500), lambda: self.start(node_id))

    def _may_cut(self, node_id: int) -> bool:
        """A minority may be in doubt: what it lost, the others still hold (S8)."""
        doubted = {one for one, node in self.nodes.items() if _in_doubt(node)} | {node_id}
        return 2 * len(doubted) < len(self.nodes)

    def pause(self, node_id: int, duration_ms: int) -> None:
        self.nodes[node_id].paused_until_ms = self.now_ms + duration_ms

    def stall(self, node_id: int) -> None:
        """The disk has kept a sync waiting for too long (S13)."""
        driver = self.nodes[node_id].driver
        if driver is not None:
            driver.disk_stalled()
            self.later(0, self.nodes[node_id].step, node_id, self.nodes[node_id].boot)

    def fill_lane(self, node_id: int, other_id: int, duration_ms: int) -> None:
        """A node's way to another one takes no more appends for a while (S17)."""
        node = self.nodes[node_id]
        if node.driver is None:
            return
        node.driver.lane_shut(other_id)

        def empty() -> None:
            assert node.driver is not None, "events of a node that is down are dropped"
            node.driver.lane_open(other_id)
            node.step()

        self.later(duration_ms, empty, node_id, node.boot)

    def transfer(self, rng: random.Random) -> None:
        for node_id, node in sorted(self.nodes.items()):
            for group_id, group in sorted(node.driver.groups.items()) if node.driver else ():
                if group.role is Role.LEADER and node.driver is not None:
                    to = rng.choice(group.conf_state.voters)
                    if node_of(to) != node_id:
                        with suppress(ProposalRefusedError):  # a voter in doubt is no target
                            node.driver.transfer_leader(group_id, to)
                        self.later(0, node.step, node_id, node.boot)

    def change_members(self, rng: random.Random) -> None:
        """The registry wants other members; nodes that are up make their replicas."""
        if not self.plan.spares:
            return
        self.members.change(rng, sorted(self.nodes))
        for node_id, node in sorted(self.nodes.items()):
            if node.driver is not None:
                self.members.create_missing(node)
                self.later(0, node.step, node_id, node.boot)

    def damage(self, node_id: int, rng: random.Random) -> None:
        """A reader finds a replica damaged (S9); its node may restart soon after."""
        node, group_id = self.nodes[node_id], rng.choice(list(self.group_ids))
        if node.driver is None or node.driver.group(group_id) is None:
            return
        if group_id not in self.damaged:
            self.damaged[group_id] = node_id
            node.driver.quarantine(group_id, "a reader found damage")
            self.later(0, node.step, node_id, node.boot)
            self.later(rng.randint(1, 2000), partial(self.crash, node_id), node_id, node.boot)

    def _crashed_while_shutting_out(self, node: SimNode) -> None:
        for key in [key for key in self.shutting_out if key[0] == node.node_id]:
            del self.shutting_out[key]
            noted = quarantine.noted(node.disk, key[1])
            if noted is None:
                del self.damaged[key[1]]  # as if nobody had looked yet
            else:
                self.checker.shut_out.add((key[1], noted.replica_id))

    def _shut_out(self, node: SimNode, covered: int) -> None:
        """Quarantines that are durable by now hold for good, or until the replica is replaced."""
        assert node.driver is not None, "a node that is down has no syncer"
        for key, number in list(self.shutting_out.items()):
            shut_out = node.driver.quarantined.get(key[1])
            if key[0] != node.node_id or number > covered:
                continue
            del self.shutting_out[key]
            if shut_out is None:
                continue  # its successor was made as soon as this start had found it
            self.checker.shut_out.add((key[1], shut_out.replica_id))
            if self.rng.random() < REPLACEMENTS and key[1] not in self.replaced:
                self.replaced.add(key[1])
                self.checker.replaced(*key)
                self.members.replace(node, key[1])

    def _cut_joint_phase(self, node_id: int) -> None:
        """Leaves a leader alone with the voters to come, the moment that a joint phase begins."""
        driver = self.nodes[node_id].driver
        found = side_to_come(driver) if driver is not None else None
        if found is None or found[0] in self.joint_phases:
            return
        conf, side = found
        self.joint_phases.add(conf)
        if self.rng.random() < JOINT_CUTS:
            self.note("cut off", *sorted(side))
            self.network.split(side, set(self.nodes) - side)

    def ask_to_read(self, node_id: int) -> None:
        """Keeps asking one node for reads, whatever it is cut off from."""
        boot = self.nodes[node_id].boot

        def ask() -> None:
            node = self.nodes[node_id]
            assert node.driver is not None, "events of a node that is down are dropped"
            self.reads.ask(node_id, boot, node.driver, self.rng)
            node.step()

        for delay_ms in range(0, READS_FOR_MS, READ_EVERY_MS):
            self.later(delay_ms, ask, node_id, boot)

    def leaders(self) -> list[int]:
        """Nodes that lead some group at the moment, as they see it."""
        return [
            node_id
            for node_id, node in sorted(self.nodes.items())
            if node.driver
            and any(group.role is Role.LEADER for group in node.driver.groups.values())
        ]

    def clock_ms(self, node_id: int) -> int:
        return 1_700_000_000_000 + self.now_ms + self.clock_offset_ms[node_id]

    def _tick(self, node_id: int) -> None:
        node = self.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.tick()
        broker = self.brokers[node_id]
        if self.rng.random() < 0.05:
            for group_id in self.group_ids:
                broker.maintain(group_id)
        if (self.plan.spares or self.plan.damage) and self.rng.random() < 0.25:
            up = {one for one in self.nodes if self.views.get((node_id, one), (False,))[0]}
            self.members.tend(node.driver, up | {node_id})
        if self.chaos and self.rng.random() < 0.1:
            self.reads.ask(node_id, node.boot, node.driver, self.rng)
        if self.chaos and self.plan.registry and self.rng.random() < 0.2:
            self.registrars.register(node.driver, self.clock_ms(node_id), self.rng)
        self.later(self.tick_ms[node_id], lambda: self._tick(node_id), node_id, node.boot)
        node.step()

    def _liveness(self, node_id: int) -> None:
        """What pings would tell: a refused connection at once, silence after a second."""
        node = self.nodes[node_id]
        driver = node.driver
        assert driver is not None, "events of a node that is down are dropped"
        for other_id, other in sorted(self.nodes.items()):
            if other_id == node_id:
                continue
            up, boot, heard_ms = self.views.get((node_id, other_id), (False, 0, 0))
            reachable = self.network.connected(node_id, other_id)
            answers = reachable and other.up and other.paused_until_ms <= self.now_ms
            if answers:
                if up and other.boot != boot:
                    driver.node_down(other_id)
                if not up or other.boot != boot:
                    driver.node_up(other_id)
                self.views[node_id, other_id] = (True, other.boot, self.now_ms)
            elif up and ((reachable and not other.up) or self.now_ms - heard_ms > SILENCE_MS):
                driver.node_down(other_id)
                self.views[node_id, other_id] = (False, boot, heard_ms)
        if self.plan.cuts and self.now_ms % WITNESS_MS < LIVENESS_MS:
            node.disk.witness()
        self.later(LIVENESS_MS, lambda: self._liveness(node_id), node_id, node.boot)
        node.step()

    # ------------------------------------------------------------------ wiring

    def _send(self, node_id: int, envelopes: list[Envelope]) -> None:
        if self.plan.spares and self.chaos:
            self._cut_joint_phase(node_id)
        self.checker.sent(envelopes)
        for envelope in envelopes:
            target = node_of(envelope.to_replica)
            if self.trace is not None:
                self.note(f"{node_id}->{target}", envelope.group_id, envelope.message)
            for delay_ms in self.network.arrivals_ms(node_id, target):
                self.later(delay_ms, partial(self._deliver, target, envelope), target)

    def _deliver(self, node_id: int, envelope: Envelope) -> None:
        node = self.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.receive(envelope)
        node.step()

    def _wrote(self, node_id: int, effects: Effects) -> None:
        self.checker.wrote(node_id, effects.batch)

    def _start_sync(self, node_id: int) -> None:
        node = self.nodes[node_id]
        covered = node.written  # a flush covers the writes that returned before it began
        delay_ms = self.rng.randint(*self.sync_ms[node_id])

        def finished() -> None:
            node.syncing = False
            if node.written > covered:
                node.syncing = True
                self._start_sync(node_id)
            if self.shutting_out:
                self._shut_out(node, covered)
            node.sync_done(covered)

        self.later(delay_ms, finished, node_id, node.boot)

    def _hand_out(self, node_id: int, effects: Effects) -> None:
        broker = self.brokers[node_id]
        for group_id, reason in effects.quarantined:
            if self.damaged.get(group_id) != node_id:
                raise ViolationError(f"node {node_id} shut out {group_id} without damage: {reason}")
            self.shutting_out[node_id, group_id] = effects.number
        driver = self.nodes[node_id].driver
        assert driver is not None, "a node that is down hands nothing out"
        for completion in effects.completions:
            if not completion.lost:
                self.reads.acknowledge(completion.group_id, completion.entry[1])
            if completion.group_id == METADATA_GROUP_ID:
                self.registrars.completed(completion)
            else:
                broker.completed(completion)
        for answer in effects.reads:
            if isinstance(answer.token, Held):
                broker.confirmed(answer.token, answer)
            else:
                self.reads.answered(driver, answer)
        for change in effects.roles:
            self.note("role", node_id, change)
            broker.role_changed(change)

    def _may_crash(self, node_id: int, where: str) -> None:
        left = self.armed.get(node_id)
        if left is None or not self.chaos:
            return
        if left > 1:
            self.armed[node_id] = left - 1
            return
        self.note("power fails", node_id, where)
        raise CrashError(where)

    # ------------------------------------------------------------------ clients

    def _client_turn(self, producer: Producer) -> None:
        nodes = [one for one, node in sorted(self.nodes.items()) if node.up]
        if nodes and self.chaos:
            producer.turn(self.now_ms, nodes, self._request)
        if self.chaos or producer.waiting_since_ms >= 0:
            self.later(producer.rng.randint(10, 90), lambda: self._client_turn(producer))

    def _request(self, node_id: int, producer: Producer, attempt: int) -> None:
        """One request to one node; the way there and the way back may each fail."""
        sent, stamp = producer.current, producer.stamp()
        assert sent is not None, "a request carries a batch"
        lossy = self.network.weather.loss

        def reply(answer: Answer) -> None:
            if self.rng.random() >= lossy:
                self.later(1, lambda: producer.answered(attempt, answer))

        def arrive() -> None:
            node = self.nodes[node_id]
            self.brokers[node_id].append(producer.group_id, sent.batch, stamp, reply)
            node.step()

        if self.rng.random() >= lossy:
            self.later(1, arrive, node_id)

    # ------------------------------------------------------------------ a run

    def run(self) -> None:
        """Chaos, healing, judgement; raises ViolationError."""
        for node_id in sorted(self.nodes):
            self.start(node_id)
        for producer in self.producers:
            self.later(300, partial(self._client_turn, producer))
        self.later(600, self._strike)
        self.run_until(self.plan.chaos_ms)
        self._heal()
        end_ms = self.now_ms + self.plan.heal_ms
        self.run_until(end_ms, self._at_rest)
        if not self._at_rest():
            raise ViolationError(
                f"no rest {self.plan.heal_ms} ms after healing: {self._describe()}"
            )
        self._judge()

    def _strike(self) -> None:
        if self.chaos:
            strike(self, self.rng)
            self.later(self.rng.randint(1, 2 * self.plan.strike_every_ms), self._strike)

    def _heal(self) -> None:
        self.note("heal")
        self.chaos = False
        self.armed.clear()
        self.network.heal()
        for node_id, node in sorted(self.nodes.items()):
            node.paused_until_ms = 0
            self.sync_ms[node_id] = (1, 4)
            if not node.up:
                self.later(1, partial(self.start, node_id))

    def _at_rest(self) -> bool:
        if any(not node.up for node in self.nodes.values()) or self.reads.waiting:
            return False
        if any(broker.waiting for broker in self.brokers.values()):
            return False
        for group_id in self.members.groups:
            groups = self._members(group_id)
            if sum(group.ready for group in groups) != 1:
                return False
            ends = {(group.applied, group.storage.last_index(), group.term) for group in groups}
            if len(ends) != 1 or any(group.doubtful for group in groups):
                return False
            if not all(self.members.is_settled(group_id, group) for group in groups):
                return False
        return True

    def _members(self, group_id: int) -> list[Group]:
        """The replicas that belong to the group, on nodes that are up."""
        damaged = None if group_id in self.replaced else self.damaged.get(group_id)
        nodes = [one for one in self.members.members_of(group_id) if one != damaged]
        drivers = [self.nodes[node_id].driver for node_id in nodes]
        return [driver.groups[group_id] for driver in drivers if driver is not None]

    def _describe(self) -> list[str]:
        return [
            f"node {node_id} group {group_id}: {group.role.name} term {group.term}"
            f" leader {group.leader_replica:x} commit {group.commit} applied {group.applied}"
            f" last {group.storage.last_index()} quiet {group.quiet}"
            for node_id, node in sorted(self.nodes.items())
            for group_id, group in sorted(node.driver.groups.items() if node.driver else ())
        ]

    def _judge(self) -> None:
        """Replicas are identical (P9), and what clients were told is true (P1 to P3)."""
        if self.plan.registry:
            machines = [group.machine for group in self._members(METADATA_GROUP_ID)]
            for machine in machines:
                assert isinstance(machine, MetadataMachine), "group 1 is the registry"
                self.registrars.judge(machine)
            if len({machine.snapshot() for machine in machines}) != 1:
                raise ViolationError("the registries differ at one index")
        for group_id in self.group_ids:
            states: set[bytes] = set()
            for group in self._members(group_id):
                machine = group.machine
                assert isinstance(machine, PartitionMachine), "the simulated groups are partitions"
                states.add(machine.snapshot())
                log = [
                    (
                        command.append.base_offset,
                        command.append.record_count,
                        command.append.content,
                    )
                    for entry in group.storage.entries(
                        group.storage.first_index(), group.applied + 1, 1 << 30
                    )
                    if entry.data and entry.type is EntryType.NORMAL
                    for command in [parse(entry.data)]
                    if command.WhichOneof("command") == "append"
                ]
                first = log[0][0] if log else machine.state.next_offset
                self.oracle.judge_log(group_id, first, log)
            if len(states) != 1:
                raise ViolationError(f"group {group_id}: replicas at one index differ in state")
