"""The first message of a stream: who is there, and whether to talk to it at all.

A stream is refused, with a sentence that a person can act on, when the other side belongs to
another cluster, is not who it was taken for, or runs on a store that is not to be trusted: one that
another store has taken the place of (S11), one that a second process runs on, or one that went back
in time.

Which store was replaced the node above knows, from the registry. A second process on one store is
the copy of a directory, started beside the original: both would vote in the name of one replica. It
is told from a restart by the first one, which still answers.

The last is safety S7. A store counts its writes; every hello and every ping carries the highest
count that is known to be synced, and every hello what the store had when this start opened it.
Nodes remember the highest count that they ever heard of each store, on their own disks. A start
that opens with less means that the directory was restored from a copy or lost its tail:
acknowledged entries and votes are gone, and a majority that counts on them is none. What the start
has written since says nothing, so the refusal is for good, noted and synced: the next start would
open with more than what was missing. Only one thing lifts it: a hello of the start before, which
lacks nothing and still runs, so that the refused one was a second process on an old copy (S11).
(A store that found the damage to its tail itself, and doubts, opens with a number that it never
had; see `store.opening`.)

Within one start the count only grows, but hellos of two lanes may overtake each other, and this
node may itself have started anew meanwhile, so the memory names the start that it was heard of.

The memory travels with batches that are written anyway, a row for each peer that was heard since
the last one, at most one for each ping. By itself it is written when a hello tells something new,
and when a count has grown by `WRITES_BETWEEN_NOTES`, so that an idle cluster writes nothing.

Left out: whether the peer may call at all (TLS, the node's business), and what becomes of a node
that is refused. It hears the sentence; whether it still belongs to the cluster it asks elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.records import RememberedStore, decode_remembered, encode_remembered
from rakit.peer.v1 import raft_service_pb2 as wire

Lane: TypeAlias = wire.LinkLane.ValueType
CONTROL: Final = wire.LINK_LANE_CONTROL
DATA: Final = wire.LINK_LANE_DATA

#: What this version reads, of entries above all; hellos tell it. What a lower level does not read
#: is written only when every node is known to have a higher one. 2: entries of several batches.
FEATURE_LEVEL: Final = 2
WRITES_BETWEEN_NOTES: Final = 1_000
#: Stores that are remembered: far more than any cluster has seen. A newer one is forgotten.
STORES_COUNT_MAX: Final = 16_384

_UUID_CHARS_MAX: Final = 64

_PREFIX: Final = keys.local(b"peer-store/")
_EPOCH_KEY: Final = keys.local(b"boot-epoch")
_NUMBER: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this process is, for as long as it runs."""

    cluster_id: str
    node_id: int
    store_uuid: str
    boot_epoch: int
    #: What the store had when this start opened it.
    opened_counter: int


@dataclass(frozen=True, slots=True)
class StoreStart:
    """A process on a store, as it presents itself."""

    node_id: int
    store_uuid: str
    boot_epoch: int
    #: What the store had when this start opened it.
    opened_counter: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """A store that has lost synced writes."""

    node_id: int
    store_uuid: str
    #: Highest count that was ever heard.
    remembered: int
    #: What it came back with.
    opened: int

    def __str__(self) -> str:
        return (
            f"the store {self.store_uuid} of node {self.node_id} went back in time: it had synced"
            f" {self.remembered} writes and came back with {self.opened}; its data is not trusted"
            " any more: stop that node, move its data directory away and start it with an empty one"
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
    """The highest synced count that was ever heard of each store, and which went back (S7)."""

    def __init__(self, disk: KeyValue) -> None:
        self._known: dict[str, RememberedStore] = {}
        #: The newest start of each store that this process has heard of.
        self._epochs: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        #: What the next batch is to take along, and whether that cannot wait for one.
        self._news: set[str] = set()
        self.is_urgent = False
        for key, value in disk.scan(_PREFIX, _PREFIX[:-1] + b"0"):
            store_uuid = key[len(_PREFIX) :].decode()
            self._known[store_uuid] = known = decode_remembered(key, value)
            self._noted[store_uuid] = known.synced_counter

    def highest(self, store_uuid: str) -> int:
        """Returns what is remembered of a store; 0 for a stranger."""
        known = self._known.get(store_uuid)
        return 0 if known is None else known.synced_counter

    def rollback(self, store_uuid: str) -> Rollback | None:
        """Returns what became of a store that went back."""
        known = self._known.get(store_uuid)
        if known is None or not known.went_back:
            return None
        return Rollback(known.node_id, store_uuid, known.synced_counter, known.returned_counter)

    def rollbacks(self) -> list[Rollback]:
        """Returns every store that went back, now or before this start."""
        found = [self.rollback(store_uuid) for store_uuid in sorted(self._known)]
        return [each for each in found if each is not None]

    def is_stale(self, store_uuid: str, boot_epoch: int) -> bool:
        """Tells whether a later start of this store has been heard already."""
        return boot_epoch < self._epochs.get(store_uuid, 0)

    def went_back(self, start: StoreStart) -> bool:
        """Tells whether a start of a store lacks what the store had synced, or an earlier one."""
        known = self._known.get(start.store_uuid)
        if known is None or known == _said(known, start):
            return False
        return known.went_back or start.opened_counter < known.synced_counter

    def condemn(self, start: StoreStart) -> None:
        """Notes for good that a store went back."""
        known = self._known[start.store_uuid]
        if not known.went_back:
            self._known[start.store_uuid] = replace(
                known, went_back=True, returned_counter=start.opened_counter
            )
            self._note(start.store_uuid, urgent=True)

    def feature_level(self, store_uuid: str) -> int:
        """Returns what the version reads that greeted last on a store; 0: none has told it."""
        known = self._known.get(store_uuid)
        return 0 if known is None else known.feature_level

    def greeted(self, start: StoreStart, synced_counter: int, feature_level: int = 1) -> None:
        """Takes in a hello that was judged.

        Where the last good start of a condemned store shows itself, that one still runs on all it
        had: who was condemned was another process, on an old copy of it.
        """
        store_uuid = start.store_uuid
        assert not self.is_stale(store_uuid, start.boot_epoch), "stale hellos are not taken in"
        assert not self.went_back(start), "nor are those of lost stores"
        self._epochs[store_uuid] = start.boot_epoch
        known = self._known.get(store_uuid) or RememberedStore(start.node_id)
        said = replace(
            _said(known, start),
            went_back=False,
            returned_counter=0,
            feature_level=feature_level,
        )
        self._take(store_uuid, said, synced_counter, urgent=True)

    def heard(self, store_uuid: str, count: int) -> None:
        """Takes in how far a store is that has greeted before."""
        known = self._known.get(store_uuid)
        if known is not None and not known.went_back:
            far = count - self._noted.get(store_uuid, 0) >= WRITES_BETWEEN_NOTES
            self._take(store_uuid, known, count, urgent=far)

    def is_newest_start(self, store_uuid: str, boot_epoch: int) -> bool:
        """Tells whether a start is the one of this store that greeted last."""
        return boot_epoch == self._epochs.get(store_uuid)

    def _take(self, store_uuid: str, said: RememberedStore, count: int, *, urgent: bool) -> None:
        if store_uuid not in self._known and len(self._known) >= STORES_COUNT_MAX:
            return
        said = replace(said, synced_counter=max(said.synced_counter, count))
        if said != self._known.get(store_uuid):
            self._known[store_uuid] = said
            self._note(store_uuid, urgent=urgent)

    def _note(self, store_uuid: str, *, urgent: bool) -> None:
        self._news.add(store_uuid)
        self.is_urgent = self.is_urgent or urgent

    @property
    def has_news(self) -> bool:
        """Whether there is something to write down."""
        return bool(self._news)

    def take_notes(self) -> WriteBatch:
        """Returns what is to be written down; the caller writes it, however often that takes."""
        batch = WriteBatch()
        for store_uuid in sorted(self._news):
            key = _PREFIX + store_uuid.encode()
            batch.put(key, encode_remembered(key, self._known[store_uuid]))
            self._noted[store_uuid] = self._known[store_uuid].synced_counter
        self._news.clear()
        self.is_urgent = False
        return batch


def _said(known: RememberedStore, start: StoreStart) -> RememberedStore:
    return replace(known, boot_epoch=start.boot_epoch, opened_counter=start.opened_counter)


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
            opened_counter=me.opened_counter,
            feature_level=FEATURE_LEVEL,
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
        if len(hello.store_uuid) > _UUID_CHARS_MAX or _counts_below_nothing(hello):
            return "the hello names an impossible store or count"
        return self._judge_store(hello)

    def heard(self, node_id: int, boot_epoch: int, synced_counter: int) -> None:
        """Takes in how far the store of a node is by now; an earlier process of it does not count.

        It may have run on another store.
        """
        store_uuid = self._stores.get(node_id)
        if store_uuid is not None and self._memory.is_newest_start(store_uuid, boot_epoch):
            self._memory.heard(store_uuid, synced_counter)

    def rollback_of(self, start: StoreStart) -> Rollback | None:
        """Returns what a start of a store lacks that the store had; None: nothing is known.

        A store that went back is refused for good from now on. A start that was followed by another
        one says nothing, and neither does one beside another process that answers: that may be an
        old copy of the directory, which must cost the original nothing.
        """
        memory = self._memory
        if not memory.went_back(start):
            return None
        if not (memory.is_stale(start.store_uuid, start.boot_epoch) or self._is_second(start)):
            memory.condemn(start)
        return memory.rollback(start.store_uuid)

    def _is_second(self, start: StoreStart) -> bool:
        """Tells whether another process on this store, or on a copy of it, answers."""
        is_known = self._stores.get(start.node_id) == start.store_uuid
        return is_known and self._answering(start.node_id) not in {0, start.boot_epoch}

    def _judge_store(self, hello: wire.Hello) -> str | None:
        node_id, store_uuid, epoch = hello.from_node_id, hello.store_uuid, hello.boot_epoch
        start = StoreStart(node_id, store_uuid, epoch, hello.opened_counter)
        if self.is_replaced(node_id, store_uuid):
            return f"store {store_uuid} was given up when node {node_id} came back with another one"
        if self._memory.is_stale(store_uuid, epoch):
            return f"a later start of store {store_uuid} has called already"
        if self._is_second(start):
            return f"another process on store {store_uuid} of node {node_id}, or on a copy, answers"
        if (found := self.rollback_of(start)) is not None:
            self._on_rollback(found)
            return str(found)
        self._memory.greeted(start, hello.synced_counter, max(1, hello.feature_level))
        self._stores[node_id] = store_uuid
        return None


def _counts_below_nothing(hello: wire.Hello) -> bool:
    return hello.synced_counter < 0 or hello.opened_counter < 0
