"""A partition's surroundings in memory: a disk, a log, a host whose commits the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import lz4.frame

from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import MultiraftError, NotLeadingError, StoreCorruptError
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.node.partition.batches import Batch
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.pending import Draft, Outlook
from rakit.node.partition.producers import Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.raft import CompactedError, ConfState, Entry, EntryID, EntryType, Payload, Role

GROUP = 7
MEMBERS = tuple(replica_id(node, 1) for node in (1, 2, 3))
SETTINGS = TopicSettings()


def batch(count: int = 1, *, content: bytes | None = None) -> Batch:
    """A batch that the machine takes; its content need not be real columns."""
    body = b"b" * (count * 10) if content is None else content
    return Batch(body, compressed=False, record_count=count, crc32c=hash(body) & 0xFFFFFFFF)


def lz4_frame(plain: bytes) -> bytes:
    """Compresses with a library that has no types."""
    return cast("bytes", cast("Any", lz4.frame).compress(plain))


class MemoryDisk:
    """A `KeyValue` over a dict."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, writes: WriteBatch) -> None:
        for op, key, value in writes.ops:
            if op == Op.PUT:
                self.rows[key] = bytes(value)
            elif op == Op.DELETE:
                self.rows.pop(key, None)
            else:
                for held in [held for held in self.rows if key <= held < bytes(value)]:
                    del self.rows[held]

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((key, row) for key, row in self.rows.items() if lo <= key < hi))

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        return max(self.scan(lo, hi), default=None)


class MemoryLog:
    """A group's log: entries from `base + 1` on."""

    def __init__(self) -> None:
        self.base = 1
        self.held: list[Entry] = []
        #: Every entry that was ever appended, also those that were trimmed since.
        self.history: list[Entry] = []
        self.damage: StoreCorruptError | None = None
        #: Nobody may ask for more than this, when it is set.
        self.readable_to: int | None = None

    def first_index(self) -> int:
        return self.base + 1

    def last_index(self) -> int:
        return self.base + len(self.held)

    def append(self, term: int, data: bytes) -> Entry:
        entry = Entry(term, self.last_index() + 1, EntryType.NORMAL, data)
        self.held.append(entry)
        self.history.append(entry)
        return entry

    def entries(self, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        assert lo < hi, "an empty range was asked for"
        assert hi <= self.last_index() + 1, "a range beyond the log was asked for"
        assert self.readable_to is None or hi <= self.readable_to + 1, "not applied"
        if lo <= self.base:
            raise CompactedError(f"{lo}")
        if self.damage is not None:
            raise self.damage
        found: list[Entry] = []
        size = 0
        for entry in self.held[lo - self.base - 1 : hi - self.base - 1]:
            size += len(entry.data)
            if found and size > max_bytes:
                break
            found.append(entry)
        return found

    def trim(self, index: int) -> None:
        if index > self.base:
            self.held = self.held[index - self.base :]
            self.base = index


def new_machine() -> PartitionMachine:
    return PartitionMachine(GroupMeta(GROUP, MEMBERS[0], GroupKind.PARTITION))


@dataclass
class SyncLeader:
    """A leader whose every proposal is committed at once: for tests without an event loop."""

    disk: MemoryDisk = field(default_factory=MemoryDisk)
    log: MemoryLog = field(default_factory=MemoryLog)
    machine: PartitionMachine = field(default_factory=new_machine)
    term: int = 1
    now_ms: int = 1_000
    checkpoints: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def __post_init__(self) -> None:
        self.outlook = Outlook(self.machine.state)

    def apply(self, entry: Entry) -> None:
        writes = WriteBatch()
        if entry.data:
            self.machine.apply(entry, writes)
        if self.machine.checkpoint_due():
            self.checkpoints[entry.index] = self.machine.snapshot()
        self.disk.write(writes)
        self.log.trim(self.machine.trim_index())

    def run(self, draft: Draft) -> Entry:
        entry = self.log.append(self.term, b"".join(draft.pieces))
        self.outlook.proposed(draft, entry.term, entry.index)
        self.apply(entry)
        self.outlook.settled(entry.index)
        return entry

    def append(
        self, data: Batch, stamp: Stamp | None = None, settings: TopicSettings = SETTINGS
    ) -> Entry:
        draft = self.outlook.append(data, stamp, None, self.now_ms, settings)
        assert isinstance(draft, Draft)
        return self.run(draft)

    def new_term(self) -> None:
        """The leader changes: its first entry is empty, and nothing is pending (S14)."""
        self.term += 1
        self.apply(self.log.append(self.term, b""))
        self.outlook = Outlook(self.machine.state)


def nobody(_group_id: int) -> None:
    """Nobody looks after the partition."""


@dataclass
class FakeProposal:
    entry: EntryID
    done: asyncio.Future[Completion]


class FakeReplica:
    def __init__(self, machine: PartitionMachine, log: MemoryLog) -> None:
        self.machine = machine
        self.storage = log
        self.leader_replica = MEMBERS[0]
        self.term = 1
        self.role = Role.LEADER
        self.ready = True
        self.conf_state = ConfState(voters=MEMBERS)
        #: Counts the proposals that the test has not settled.
        self.count_pending: Callable[[], int] = lambda: 0

    @property
    def applied(self) -> int:
        return self.machine.applied_index

    @property
    def pending_count(self) -> int:
        return self.count_pending()


class BarrierLostError(MultiraftError):
    pass


class FakeHost:
    """A host that holds one leading replica and commits when it is told to."""

    def __init__(self, group_id: int = GROUP) -> None:
        self.group_id = group_id
        self.disk = MemoryDisk()
        self.log = MemoryLog()
        self.replica: FakeReplica | None = FakeReplica(new_machine(), self.log)
        self.waiting: list[tuple[Entry, FakeProposal]] = []
        self.callbacks: list[Callable[[], None]] = []
        self.barriers = 0
        self.barrier_fails = False
        #: Nobody answers a barrier.
        self.hangs = False
        #: Runs in the middle of a barrier: what a leader catches up on.
        self.during_barrier: Callable[[], None] = lambda: None
        self.quarantined: list[tuple[str, bool]] = []
        self.refuse: MultiraftError | None = None

    @property
    def leader(self) -> FakeReplica:
        assert self.replica is not None
        return self.replica

    def group(self, group_id: int) -> FakeReplica | None:
        assert group_id == self.group_id
        return self.replica

    def propose(self, group_id: int, *pieces: Payload) -> FakeProposal:
        assert group_id == self.group_id
        if self.refuse is not None:
            raise self.refuse
        if not self.leader.ready:
            raise NotLeadingError(self.leader.leader_replica, self.leader.term)
        entry = self.log.append(self.leader.term, b"".join(pieces))
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        proposal = FakeProposal((entry.term, entry.index), future)
        self.waiting.append((entry, proposal))
        self.leader.count_pending = lambda: len(self.waiting)
        return proposal

    def commit(self, count: int | None = None) -> None:
        """Commits the oldest proposals, all by default."""
        taken = self.waiting[:count]
        self.waiting = self.waiting[len(taken) :]
        for entry, proposal in taken:
            writes = WriteBatch()
            result = self.leader.machine.apply(entry, writes)
            self.disk.write(writes)
            self.log.trim(self.leader.machine.trim_index())
            done = Completion(None, self.group_id, proposal.entry, result, lost=False, replicas=2)
            proposal.done.set_result(done)
        for callback in tuple(self.callbacks):
            callback()

    def lose(self) -> None:
        """Leadership is lost; nobody knows what becomes of the proposals, and here they vanish."""
        for entry, proposal in self.waiting:
            self.log.held.remove(entry)
            proposal.done.set_result(Completion(None, self.group_id, proposal.entry, lost=True))
        self.waiting = []
        self.leader.ready = False
        self.leader.role = Role.FOLLOWER
        self.leader.leader_replica = MEMBERS[1]
        self.leader.term += 1

    def lead_again(self) -> None:
        self.leader.term += 1
        self.leader.role = Role.LEADER
        self.leader.leader_replica = MEMBERS[0]
        self.leader.ready = True

    async def read_barrier(self, group_id: int) -> int:
        assert group_id == self.group_id
        self.barriers += 1
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
        if self.barrier_fails:
            raise BarrierLostError("no quorum")
        self.during_barrier()
        return self.leader.applied

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        assert group_id == self.group_id
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def quarantine(self, group_id: int, reason: str, *, for_good: bool) -> None:
        assert group_id == self.group_id
        self.quarantined.append((reason, for_good))
        self.replica = None
