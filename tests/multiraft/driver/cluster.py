"""Drivers of several nodes wired by lists: the smallest shell that carries out effects."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rakit.multiraft import keys
from rakit.multiraft.driver import (
    Completion,
    Driver,
    DriverConfig,
    Effects,
    Envelope,
    Group,
    ReadReady,
    RoleChange,
)
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupKind, GroupMeta, MachineFactory, node_of, replica_id
from rakit.multiraft.quarantine import Quarantined
from rakit.raft import ConfState, Entry, Role
from tests.multiraft.driver.memory_disk import MemoryDisk

GROUP = 7


class ListMachine:
    """Remembers what was applied; a command starting with b"trim" moves the log's start.

    b"checkpoint" asks for a checkpoint as of itself, b"trim" lets the log go up to the latest one;
    b"keep checkpoint" takes one that is kept, b"keep trim" goes up to the oldest that is; b"boom"
    cannot be applied.
    """

    def __init__(self, meta: GroupMeta) -> None:
        self.meta = meta
        self.items: list[bytes] = []
        self.restored_at = 0
        self._due = False
        self._checkpoint_index = 0
        self._trim_index = 0
        self._kept: list[int] = []

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        writes.put(keys.position(self.meta.group_id, entry.index), b"")
        data = bytes(entry.data)
        assert data != b"boom", "the machine cannot apply this"
        self._due = False
        self.items.append(data)
        if data.endswith(b"checkpoint"):
            self._due = True
            self._checkpoint_index = entry.index
            if data.startswith(b"keep"):
                self._kept.append(entry.index)
        if data.endswith(b"trim"):
            kept = data.startswith(b"keep")
            self._trim_index = self._kept.pop(0) if kept else self._checkpoint_index
        return len(self.items)

    def snapshot(self) -> bytes:
        head = [self._checkpoint_index, self._trim_index, *self._kept]
        return b"\n".join([b" ".join(b"%d" % each for each in head), *self.items])

    def restore(self, data: bytes, index: int) -> None:
        self.restored_at = index
        self.items = []
        if data:
            head, *self.items = data.split(b"\n")
            self._checkpoint_index, self._trim_index, *self._kept = map(int, head.split())

    def checkpoint_due(self) -> bool:
        return self._due

    def trim_index(self) -> int:
        return self._trim_index

    def trim_targets(self) -> list[int]:
        return [self._checkpoint_index, *self._kept]


@dataclass(eq=False)
class Node:
    """One node: its disk survives its driver."""

    node_id: int
    disk: MemoryDisk
    driver: Driver
    #: Syncs wait while this is set: a slow or hung disk.
    hung: bool = False
    down: bool = False
    unsynced: int = 0
    effects: list[Effects] = field(default_factory=list[Effects])
    completions: list[Completion] = field(default_factory=list[Completion])
    reads: list[ReadReady] = field(default_factory=list[ReadReady])
    roles: list[RoleChange] = field(default_factory=list[RoleChange])
    quarantined: list[tuple[int, Quarantined]] = field(
        default_factory=list[tuple[int, Quarantined]]
    )

    @property
    def group(self) -> Group:
        return self.driver.groups[GROUP]

    def machine(self, group_id: int = GROUP) -> ListMachine:
        machine = self.driver.groups[group_id].machine
        assert isinstance(machine, ListMachine)
        return machine


class Cluster:
    """Nodes, the messages between them, and the pump that carries out effects."""

    def __init__(self, count: int = 3, seed: int = 1, config: DriverConfig | None = None) -> None:
        self.config = config or DriverConfig()
        #: What nodes that start from now on make their machines with: the release that they run.
        self.factory: MachineFactory = ListMachine
        self.rng = random.Random(seed)
        self.starts = 0
        self.network: list[Envelope] = []
        self.sent: list[Envelope] = []
        #: Keeps an envelope only if this says so.
        self.filter: Callable[[Envelope], bool] = lambda _: True
        self.nodes: dict[int, Node] = {}
        for node_id in range(1, count + 1):
            self.add_node(node_id)
        self.report_all_up()

    def add_node(self, node_id: int) -> Node:
        disk = MemoryDisk()
        node = Node(node_id, disk, self._driver(node_id, disk))
        self.nodes[node_id] = node
        self.pump()
        return node

    def _driver(self, node_id: int, disk: MemoryDisk, *, doubtful: bool = False) -> Driver:
        self.starts += 1
        config = replace(self.config, boot=self.starts, doubtful=doubtful)
        rng = random.Random(self.rng.random())
        driver = Driver(config, node_id, disk, self.factory, rng)
        driver.load()
        return driver

    def report_all_up(self) -> None:
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node and not node.down and not other.down:
                    node.driver.node_up(other.node_id)

    # Groups.

    def create(
        self, group_id: int = GROUP, node_ids: tuple[int, ...] | None = None, kind: int = 2
    ) -> ConfState:
        ids = node_ids or tuple(self.nodes)
        conf = ConfState(voters=tuple(replica_id(node_id, 1) for node_id in ids))
        for node_id in ids:
            meta = GroupMeta(group_id, replica_id(node_id, 1), GroupKind(kind))
            self.nodes[node_id].driver.create_group(meta, conf)
        return conf

    def create_and_elect(self, group_id: int = GROUP) -> Node:
        self.create(group_id)
        self.run_until(lambda: self.leader(group_id) is not None)
        leader = self.leader(group_id)
        assert leader is not None
        self.settle()
        return leader

    def leads(self, group_id: int = GROUP) -> bool:
        return self.leader(group_id) is not None

    def leader(self, group_id: int = GROUP) -> Node | None:
        """Returns the node whose ready leader has the highest term."""
        found = [
            (group.term, node)
            for node in self.nodes.values()
            if not node.down
            and (group := node.driver.group(group_id)) is not None
            and group.role is Role.LEADER
            and group.ready
        ]
        return max(found, key=lambda one: one[0])[1] if found else None

    def followers(self, group_id: int = GROUP) -> list[Node]:
        leader = self.leader(group_id)
        return [node for node in self.nodes.values() if node is not leader and not node.down]

    # Running.

    def pump(self, rounds: int = 400) -> None:
        """Carries out effects and delivers messages until nothing moves."""
        for _ in range(rounds):
            moved = False
            for node in self.nodes.values():
                moved |= not node.down and self.step_node(node)
            moved |= self.deliver()
            if not moved:
                return
        raise AssertionError("the cluster does not come to rest")

    def step_node(self, node: Node) -> bool:
        moved = False
        while (effects := node.driver.advance()) is not None:
            moved = True
            node.effects.append(effects)
            self.sent += effects.sends
            self.network += effects.sends
            if effects.batch:
                node.disk.write(effects.batch)
            node.driver.written(effects.number)
            node.completions += effects.completions
            node.reads += effects.reads
            node.roles += effects.roles
            node.quarantined += effects.quarantined
            if effects.must_sync:
                node.unsynced = effects.number
        if node.unsynced and not node.hung:
            node.disk.sync()
            # Everything written is durable, also what did not ask for it.
            node.unsynced = 0
            node.driver.synced(node.effects[-1].number)
            moved = True
        return moved

    def deliver(self) -> bool:
        envelopes, self.network = self.network, []
        moved = False
        for envelope in envelopes:
            node = self.nodes.get(node_of(envelope.to_replica))
            if node is not None and not node.down and self.filter(envelope):
                node.driver.receive(envelope)
                moved = True
        return moved

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for node in self.nodes.values():
                if not node.down:
                    node.driver.tick()
            self.pump()

    def run_until(self, condition: Callable[[], bool], ticks: int = 400) -> int:
        """Ticks until the condition holds; returns how many ticks it took."""
        self.pump()
        for count in range(ticks):
            if condition():
                return count
            self.tick()
        raise AssertionError("the condition never held")

    def await_other_leader(self, old: Node) -> Node:
        """Ticks until another node leads."""
        self.run_until(lambda: self.leader() not in {None, old})
        leader = self.leader()
        assert leader is not None
        return leader

    def await_applied(self, node: Node, leader: Node) -> None:
        """Ticks until a node has applied all that another has."""
        self.run_until(lambda: node.group.applied == leader.group.applied)

    def settle(self) -> None:
        """Lets a round of heartbeats carry the commit index to everybody."""
        self.tick(2 * self.config.heartbeat_ticks)

    def propose(self, node: Node, data: bytes, token: object = None, group: int = GROUP) -> None:
        node.driver.propose(group, (data,), token)

    # Failures.

    def crash(self, node: Node, surviving_batches: int = 0) -> None:
        """Loses the driver and what its disk had not synced."""
        node.down = True
        node.disk.crash(surviving_batches)
        node.unsynced = 0

    def restart(self, node: Node, *, doubtful: bool = False) -> None:
        node.down = False
        node.effects.clear()
        node.quarantined.clear()
        node.driver = self._driver(node.node_id, node.disk, doubtful=doubtful)
        self.report_down(node)
        self.report_all_up()
        self.pump()

    def report_down(self, node: Node) -> None:
        for other in self.nodes.values():
            if other is not node and not other.down:
                other.driver.node_down(node.node_id)

    def isolate(self, *nodes: Node) -> None:
        """Cuts nodes off from the others, in silence."""
        ids = {node.node_id for node in nodes}
        self.filter = lambda envelope: (
            (node_of(envelope.from_replica) in ids) == (node_of(envelope.to_replica) in ids)
        )

    def heal(self) -> None:
        self.filter = lambda _: True

    def check_replicas_agree(self, group_id: int = GROUP) -> list[bytes]:
        """Asserts that every working replica has applied the same; returns it."""
        states = [
            node.machine(group_id).items
            for node in self.nodes.values()
            if not node.down and group_id in node.driver.groups
        ]
        assert all(state == states[0] for state in states), states
        return states[0]
