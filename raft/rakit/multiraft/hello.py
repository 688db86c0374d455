"""The first message of a stream: who is there, and whether to talk to it at all.

A stream is refused, with a sentence that a person can act on, when the other side belongs to
another cluster, is not who it was taken for, or runs on a store that is not to be trusted: one that
another store has taken the place of (S11), one that a second process runs on, or one that went back
in time.

Which store was replaced the node above knows, from the registry. A second process on one store is
the copy of a directory, started beside the original: both would vote in the name of one replica. It
is told from a restart by the first one, which still answers.

The last is safety S7. A store counts its writes; every hello and every ping carries the highest
count that is known to be synced. Nodes remember the highest count that they ever heard of each
store, on their own disks. A lower one from a later start means that the directory was restored
from a copy or lost its tail: acknowledged entries and votes are gone, and a majority that counts on
them is none. (Within one start the count only grows, but hellos of two lanes may overtake each
other, and so may what an earlier process left in a socket.)
The memory is written when a hello tells something new, and again whenever the count has grown by
`WRITES_BETWEEN_NOTES` since, so that an idle cluster writes nothing.

Left out: whether the peer may call at all (TLS, the node's business), and what becomes of a node
that is refused. It hears the sentence; whether it still belongs to the cluster it asks elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.peer.v1 import raft_service_pb2 as wire

Lane: TypeAlias = wire.LinkLane.ValueType
CONTROL: Final = wire.LINK_LANE_CONTROL
DATA: Final = wire.LINK_LANE_DATA

WRITES_BETWEEN_NOTES: Final = 1_000
#: Stores that are remembered: far more than any cluster has seen. A newer one is forgotten.
STORES_COUNT_MAX: Final = 16_384

_PREFIX: Final = keys.local(b"store-counter/")
_EPOCH_KEY: Final = keys.local(b"boot-epoch")
_NUMBER: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this process is, for as long as it runs."""

    cluster_id: str
    node_id: int
    store_uuid: str
    boot_epoch: int


@dataclass(frozen=True, slots=True)
class StoreStart:
    """A process on a store, as it presents itself."""

    node_id: int
    store_uuid: str
    boot_epoch: int
    #: Highest write that it knows to be durable.
    synced_counter: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """A store that has lost synced writes."""

    node_id: int
    store_uuid: str
    #: Highest count that was ever heard.
    remembered: int
    #: What it says now.
    claimed: int

    def __str__(self) -> str:
        return (
            f"the store {self.store_uuid} of node {self.node_id} went back in time: it had synced"
            f" {self.remembered} writes and now knows {self.claimed}; its data is not trusted"
        )


def next_boot_epoch(disk: KeyValue, clock_ms: int) -> tuple[int, WriteBatch]:
    """Returns a number that no earlier start of this store had, and the batch that notes it.

    The clock is taken in as well, so that a note that was lost with an unsynced tail does not make
    two starts look like one.
    """
    stored = disk.get(_EPOCH_KEY)
    last: int = _NUMBER.unpack(stored)[0] if stored is not None else 0
    epoch = max(last + 1, clock_ms)
    batch = WriteBatch()
    batch.put(_EPOCH_KEY, _NUMBER.pack(epoch))
    return epoch, batch


class StoreMemory:
    """The highest synced count that was ever heard of each store (S7)."""

    def __init__(self, disk: KeyValue) -> None:
        self._highest: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._due: set[str] = set()
        for key, value in disk.scan(_PREFIX, _PREFIX[:-1] + b"0"):
            count: int = _NUMBER.unpack(value)[0]
            self._highest[key[len(_PREFIX) :].decode()] = count
        self._noted.update(self._highest)

    def highest(self, store_uuid: str) -> int:
        """Returns what is remembered of a store; 0 for a stranger."""
        return self._highest.get(store_uuid, 0)

    def is_stale(self, store_uuid: str, boot_epoch: int) -> bool:
        """Tells whether a later start of this store has been heard already."""
        return boot_epoch < self._epochs.get(store_uuid, 0)

    def went_back(self, store_uuid: str, boot_epoch: int, count: int) -> bool:
        """Tells whether a start of a store, not an earlier one, lacks writes that were synced."""
        if self.is_stale(store_uuid, boot_epoch):
            return False
        return boot_epoch != self._epochs.get(store_uuid) and count < self.highest(store_uuid)

    def greeted(self, store_uuid: str, boot_epoch: int, count: int) -> None:
        """Takes in a hello that was judged."""
        assert not self.is_stale(store_uuid, boot_epoch), "stale hellos are not taken in"
        assert not self.went_back(store_uuid, boot_epoch, count), "nor are those of lost stores"
        self._epochs[store_uuid] = boot_epoch
        if self._grew(store_uuid, count):
            self._due.add(store_uuid)

    def heard(self, store_uuid: str, count: int) -> None:
        """Takes in how far a store is that has greeted before."""
        far = count - self._noted.get(store_uuid, 0) >= WRITES_BETWEEN_NOTES
        if self._grew(store_uuid, count) and far:
            self._due.add(store_uuid)

    def _grew(self, store_uuid: str, count: int) -> bool:
        known = self._highest.get(store_uuid)
        if known is None and len(self._highest) >= STORES_COUNT_MAX:
            return False
        if known is not None and count <= known:
            return False
        self._highest[store_uuid] = count
        return True

    def notes(self) -> WriteBatch:
        """Returns what is to be written down; to be told by `noted` that it was."""
        batch = WriteBatch()
        for store_uuid in sorted(self._due):
            count = _NUMBER.pack(self._highest[store_uuid])
            batch.put(_PREFIX + store_uuid.encode(), count)
        return batch

    def noted(self) -> None:
        """The notes are in the store; nothing was heard since `notes`."""
        for store_uuid in self._due:
            self._noted[store_uuid] = self._highest[store_uuid]
        self._due.clear()

    @property
    def has_notes(self) -> bool:
        """Whether there is something to write down."""
        return bool(self._due)


class Gate:
    """Makes this node's hello and judges the hellos of others."""

    def __init__(
        self,
        identity: NodeIdentity,
        synced_counter: Callable[[], int],
        memory: StoreMemory,
        on_rollback: Callable[[Rollback], None],
        answering: Callable[[int], int],
    ) -> None:
        self.identity = identity
        #: Whether a store lost its node id to another one (S11); the node above puts it in.
        self.is_replaced: Callable[[int, str], bool] = lambda _node_id, _store_uuid: False
        # The boot epoch of a node that answers at the moment; 0: it does not.
        self._answering = answering
        self._synced_counter = synced_counter
        self._memory = memory
        self._on_rollback = on_rollback
        #: Of nodes whose hello was accepted.
        self._stores: dict[int, str] = {}

    def hello(self, to_node_id: int, lane: Lane) -> wire.Hello:
        """Returns the first message of a stream to or from this peer."""
        me = self.identity
        return wire.Hello(
            cluster_id=me.cluster_id,
            from_node_id=me.node_id,
            to_node_id=to_node_id,
            store_uuid=me.store_uuid,
            boot_epoch=me.boot_epoch,
            synced_counter=self._synced_counter(),
            lane=lane,
        )

    def judge(self, hello: wire.Hello, expected_node_id: int | None = None) -> str | None:
        """Returns why this peer is refused, or None. `expected_node_id`: whom we called."""
        me = self.identity
        if hello.cluster_id != me.cluster_id:
            return f"node {me.node_id} belongs to cluster {me.cluster_id}, not {hello.cluster_id}"
        if hello.to_node_id != me.node_id:
            return f"this is node {me.node_id}, not node {hello.to_node_id}"
        if hello.from_node_id == me.node_id:
            return f"node {me.node_id} was called by another process with its own id"
        if expected_node_id is not None and hello.from_node_id != expected_node_id:
            return f"node {hello.from_node_id} answers at the address of node {expected_node_id}"
        if hello.lane not in (CONTROL, DATA):
            return f"lane {hello.lane} is unknown"
        if not hello.store_uuid or hello.boot_epoch <= 0:
            return "the hello names no store or no boot"
        return self._judge_store(hello)

    def heard(self, node_id: int, synced_counter: int) -> None:
        """Takes in how far the store of a node is by now."""
        store_uuid = self._stores.get(node_id)
        if store_uuid is not None:
            self._memory.heard(store_uuid, synced_counter)

    def rollback_of(self, start: StoreStart) -> Rollback | None:
        """Returns what a start of a store lacks that the store had; None: nothing is known."""
        if not self._memory.went_back(start.store_uuid, start.boot_epoch, start.synced_counter):
            return None
        remembered = self._memory.highest(start.store_uuid)
        return Rollback(start.node_id, start.store_uuid, remembered, start.synced_counter)

    def _judge_store(self, hello: wire.Hello) -> str | None:
        node_id, store_uuid, epoch = hello.from_node_id, hello.store_uuid, hello.boot_epoch
        if self.is_replaced(node_id, store_uuid):
            return f"store {store_uuid} was given up when node {node_id} came back with another one"
        if self._memory.is_stale(store_uuid, epoch):
            return f"a later start of store {store_uuid} has called already"
        if self._stores.get(node_id) == store_uuid and self._answering(node_id) not in {0, epoch}:
            return f"another process on store {store_uuid} of node {node_id}, or on a copy, answers"
        found = self.rollback_of(StoreStart(node_id, store_uuid, epoch, hello.synced_counter))
        if found is not None:
            self._on_rollback(found)
            return str(found)
        self._memory.greeted(store_uuid, epoch, hello.synced_counter)
        self._stores[node_id] = store_uuid
        return None
