"""Replicas in one process with a network that a test controls. No clocks, no threads, no luck.

`Replica` is a small host: it does what a `Ready` asks for, on a store in memory that keeps apart
what was written and what was synced, so that a crash can lose the difference. `Network` holds the
messages between replicas until a test delivers, drops or cuts them.

Every step checks what must hold at all times (`check`): at most one leader in a term, equal
entries at equal (term, index), equal commands at equal applied indexes, one vote in a term, marks
that never fall.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rakit.raft import (
    ConfChange,
    Config,
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    Message,
    RawNode,
    Ready,
    Role,
    Snapshot,
    StepRefusedError,
    payload_bytes,
)

Write = Callable[["Store"], None]


@dataclass
class Store:
    """What a replica has stored: the log, and the applied state in step with its index."""

    log: MemoryStorage
    applied: int = 0
    commands: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])


class Replica:
    """A RawNode and what its host would do."""

    def __init__(self, replica_id: int, store: Store, options: dict[str, int]) -> None:
        self.id = replica_id
        self.options = options
        #: Everything that was written: what the core reads.
        self.store = store
        #: What would survive a crash now.
        self.synced = copy.deepcopy(store)
        #: What `synced` grew from, and the writes since: to lose some of them again.
        self.origin = copy.deepcopy(store)
        self.history: list[Write] = []
        #: Writes since the last sync, by the number of their Ready.
        self.unsynced: deque[tuple[int, Write]] = deque()
        self.flights: deque[Ready] = deque()
        self.outcome: list[Ready] = []
        self.boot = 0
        self.alive = True
        self.node = self._start()

    def _start(self) -> RawNode:
        self.boot += 1
        options: dict[str, Any] = dict(self.options)
        if options.pop("number_boots", False):
            options["boot"] = self.boot
        rng = random.Random(self.id * 1000 + self.boot)
        config = Config(id=self.id, rng=rng, applied=self.store.applied, **options)
        return RawNode(config, self.store.log)

    def write(self, number: int, write: Write) -> None:
        write(self.store)
        self.unsynced.append((number, write))

    def sync(self, number: int) -> None:
        """Makes every write up to a Ready durable."""
        while self.unsynced and self.unsynced[0][0] <= number:
            self._sync_next()

    def _sync_next(self) -> None:
        _, write = self.unsynced.popleft()
        write(self.synced)
        self.history.append(write)

    def lose(self, count: int) -> None:
        """Damages the disk: the last writes are gone although they were synced (safety S8)."""
        del self.history[len(self.history) - min(count, len(self.history)) :]
        self.synced = copy.deepcopy(self.origin)
        for write in self.history:
            write(self.synced)

    def settle(self) -> None:
        """Makes the present state the one that nothing is lost from any more."""
        self.synced = copy.deepcopy(self.store)
        self.origin = copy.deepcopy(self.store)
        self.history.clear()

    def take(self) -> Ready:
        """Takes one Ready, writes it, applies what is committed; nothing is synced yet."""
        ready = self.node.ready()
        self.outcome.append(ready)
        writes: list[Write] = []
        if ready.snapshot is not None:
            writes.append(_installer(ready.snapshot))
        if ready.entries:
            writes.append(_appender(ready.entries))
        if ready.hard_state is not None:
            writes.append(_voter(ready.hard_state))
        if writes:
            self.write(ready.number, _batch(writes))
        self.flights.append(ready)
        self._apply(ready)
        return ready

    def _apply(self, ready: Ready) -> None:
        entries = ready.committed_entries
        for entry in entries:
            assert entry.index == self.store.applied + 1, "an entry was skipped or repeated"
            conf_state: ConfState | None = None
            if entry.type is EntryType.CONF_CHANGE:
                conf_state = self.node.apply_conf_change(ConfChange.decode(bytes(entry.data)))
            self.write(ready.number, _applier(entry, conf_state))
        if entries:
            self.node.on_applied(entries[-1].index, payload_bytes(entries))

    def persist(self, count: int = 1) -> list[Message]:
        """Completes the oldest Readys in flight; returns the messages that waited for it."""
        messages: list[Message] = []
        for _ in range(count):
            ready = self.flights.popleft()
            self.sync(ready.number)
            self.node.on_persisted(ready.number)
            messages += ready.messages_after_persist
        return messages

    def crash(self, *, keep: int = 0, **options: int) -> None:
        """Stops, loses what was not synced (but for `keep` more writes), and starts again."""
        for _ in range(min(keep, len(self.unsynced))):
            self._sync_next()
        self.unsynced.clear()
        self.flights.clear()
        self.store = copy.deepcopy(self.synced)
        self.options.update(options)
        self.node = self._start()

    def role(self) -> Role:
        return self.node.basic_status().role

    @property
    def term(self) -> int:
        return self.node.basic_status().term

    @property
    def commands(self) -> list[bytes]:
        return [data for _, data in self.store.commands]


def _batch(writes: list[Write]) -> Write:
    """Returns one atomic write: a crash keeps all of it or nothing."""

    def write(store: Store) -> None:
        for part in writes:
            part(store)

    return write


def _installer(base: Snapshot) -> Write:
    def write(store: Store) -> None:
        store.log.install(base)
        store.applied = base.index
        store.commands = [(index, data) for index, data in _decode(base.data) if data]

    return write


def _appender(entries: list[Entry]) -> Write:
    return lambda store: store.log.append(entries)


def _voter(state: HardState) -> Write:
    return lambda store: store.log.set_hard_state(state)


def _applier(entry: Entry, conf_state: ConfState | None) -> Write:
    def write(store: Store) -> None:
        store.applied = entry.index
        if conf_state is not None:
            store.log.conf_state = conf_state
        elif entry.data:
            store.commands.append((entry.index, bytes(entry.data)))

    return write


def _encode(commands: Iterable[tuple[int, bytes]]) -> bytes:
    return b"\n".join(b"%d %s" % (index, data) for index, data in commands)


def _decode(data: bytes) -> Iterable[tuple[int, bytes]]:
    for line in data.split(b"\n") if data else ():
        index, _, command = line.partition(b" ")
        yield int(index), command


class Network:
    """Replicas, the messages between them, and the checks."""

    def __init__(
        self,
        voters: Iterable[int] = (1, 2, 3),
        *,
        learners: Iterable[int] = (),
        born: Iterable[int] | None = None,
        **options: int,
    ) -> None:
        """Starts the members of a new group, whose log begins behind a base at index 1."""
        self.conf_state = ConfState(tuple(sorted(voters)), tuple(sorted(learners)))
        self.options: dict[str, int] = {"election_tick": 10, "heartbeat_tick": 2, **options}
        self.replicas: dict[int, Replica] = {}
        self.pending: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        self.filter: Callable[[Message], bool] = lambda _: True
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._applied: dict[int, tuple[int, bytes]] = {}
        self._marks: dict[int, tuple[int, int, int]] = {}
        for replica_id in born if born is not None else [*self.conf_state.voters, *learners]:
            self.add(replica_id, self.conf_state)

    def add(self, replica_id: int, conf_state: ConfState | None, **options: int) -> Replica:
        """Starts an initial member, or a later one that knows nothing (`conf_state` None)."""
        log = MemoryStorage()
        store = Store(log)
        if conf_state is not None:
            log.install(Snapshot(1, 1, conf_state))
            log.set_hard_state(HardState(1, 0, 1))
            store.applied = 1
        replica = Replica(replica_id, store, {**self.options, **options})
        self.replicas[replica_id] = replica
        return replica

    def __getitem__(self, replica_id: int) -> RawNode:
        return self.replicas[replica_id].node

    # The network.

    def cut(self, a: int, b: int) -> None:
        """Cuts both directions between two replicas."""
        self.cuts |= {(a, b), (b, a)}

    def cut_one_way(self, sender: int, to: int) -> None:
        self.cuts.add((sender, to))

    def isolate(self, replica_id: int) -> None:
        for other in self.replicas:
            if other != replica_id:
                self.cut(replica_id, other)

    def heal(self) -> None:
        self.cuts.clear()
        self.filter = lambda _: True

    def send(self, messages: Iterable[Message]) -> None:
        self.pending += [copy.copy(message) for message in messages]

    def deliver(self, message: Message) -> None:
        """Hands one message over, unless it is cut off or filtered."""
        replica = self.replicas.get(message.to)
        if (
            replica is None
            or not replica.alive
            or (message.from_, message.to) in self.cuts
            or not self.filter(message)
        ):
            return
        try:
            replica.node.step(copy.copy(message))
        except StepRefusedError:
            return
        self.check()

    def deliver_all(self) -> None:
        """Hands over what is in the network now, not what that brings about."""
        messages, self.pending = self.pending, []
        for message in messages:
            self.deliver(message)

    # The hosts.

    def process(self, replica_id: int, *, persist: bool = True) -> list[Ready]:
        """Lets one host do everything that its replica asks for."""
        replica = self.replicas[replica_id]
        readys: list[Ready] = []
        while replica.alive and replica.node.has_ready():
            ready = replica.take()
            readys.append(ready)
            self.send(ready.messages)
            self.check()
            if persist:
                self.send(replica.persist(len(replica.flights)))
                self.check()
        if persist and replica.alive and replica.flights:
            self.send(replica.persist(len(replica.flights)))
            readys += self.process(replica_id)
        return readys

    def run(self) -> None:
        """Delivers and processes until nothing is left to do."""
        for _ in range(10_000):
            for replica_id in sorted(self.replicas):
                self.process(replica_id)
            if not self.pending:
                return
            self.deliver_all()
        raise AssertionError("the network does not come to rest")

    def tick(self, count: int = 1, ids: Iterable[int] | None = None) -> None:
        """Lets ticks pass, everything settling after each."""
        for _ in range(count):
            for replica_id in sorted(self.replicas) if ids is None else ids:
                if self.replicas[replica_id].alive:
                    self[replica_id].tick()
            self.run()

    def elect(self, replica_id: int) -> RawNode:
        """Makes a replica leader by a campaign that the others do not resist."""
        for _ in range(2):
            # The first try may only teach the candidate a higher term.
            for other in self.replicas.values():
                other.node.forget_leader()
            assert self[replica_id].campaign(), f"{replica_id} does not stand"
            self.run()
            if self.replicas[replica_id].role() is Role.LEADER:
                return self[replica_id]
        raise AssertionError(f"{replica_id} was not elected")

    def offer_base(self, replica_id: int, index: int) -> Snapshot:
        """Makes a checkpoint as of an applied index and drops the entries before it."""
        replica = self.replicas[replica_id]
        store = replica.store
        commands = [(i, data) for i, data in store.commands if i <= index]
        base = Snapshot(index, store.log.term(index), store.log.conf_state, _encode(commands))
        store.log.offered = base
        store.log.compact(index)
        replica.settle()
        return base

    def leader(self) -> int:
        """Returns the living leader of the highest term, 0 if there is none."""
        leaders = [
            (replica.term, replica.id)
            for replica in self.replicas.values()
            if replica.alive and replica.role() is Role.LEADER
        ]
        return max(leaders)[1] if leaders else 0

    # What must hold.

    def check(self) -> None:
        for replica in self.replicas.values():
            if replica.alive:
                self._check_replica(replica)

    def _check_replica(self, replica: Replica) -> None:
        status = replica.node.basic_status()
        if status.role is Role.LEADER:
            leader = self._leaders.setdefault(status.term, status.id)
            assert leader == status.id, f"term {status.term} has two leaders"
        if status.vote:
            vote = self._votes.setdefault((status.id, status.term), status.vote)
            durable = replica.synced.log.hard_state
            if (durable.term, durable.vote) == (status.term, vote):
                assert vote == status.vote, f"{status.id} voted twice in term {status.term}"
            self._votes[(status.id, status.term)] = status.vote
        for index, data in replica.store.commands[-3:]:
            seen = self._applied.setdefault(index, (status.id, data))
            assert seen[1] == data, (
                f"{status.id} and {seen[0]} applied different entries at {index}"
            )
        assert status.applied <= status.commit <= status.last_index, "marks are out of order"
        assert status.applied <= status.durable_index, "an entry was applied before it was durable"
