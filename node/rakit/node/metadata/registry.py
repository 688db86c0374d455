"""What the cluster consists of: nodes, topics, partitions. The state of the metadata group.

One `Registry` lives as long as the process. The state machine changes it while it applies entries;
everybody else reads. Reads are consistent between two awaits, because entries are applied on the
same event loop; the values handed out are frozen and stay valid as pictures of their time.

Rules:

- Node, topic, group and producer ids are given out once. A group id is the incarnation of its
  partition: a topic that is deleted and created again has new ones.
- `PartitionInfo.replica_ids` is what should be; what is, the group's own configuration says. The
  partition's leader brings the second to the first (`membership`).
- Each replica belongs to the store that its node had when it was assigned. When a node's store is
  replaced, the same entry gives each of its partitions a fresh replica id on the new store, so a
  replica id in the registry never means a dead store (S11). A replica that is damaged for good gets
  a successor on the same store likewise (S8).
- Every change raises `version` by one and tells the subscribers, who only take a note: they are
  called in the middle of applying.
- An internal topic is placed, led and repaired like any other, but has no name that a client can
  use, is in no list and in no count: its partitions hold consumer groups and no records.

Left out: who leads, who is up. That is observed, not replicated.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from rakit.multiraft.machine import node_of, replica_id
from rakit.node.metadata.tables import AnsweredRequests, DeadGroups, ProducerTable
from rakit.node.metadata.topic_config import TopicConfig
from rakit.peer.v1.metadata_command_pb2 import NodeDescription

METADATA_GROUP_ID: Final = 1
#: Of a whole cluster: every node keeps the registry in memory, at about 400 bytes a partition.
PARTITIONS_COUNT_MAX: Final = 100_000
NODES_COUNT_MAX: Final = 1_000
#: How many former stores of a node are remembered, for people who look for a lost disk.
FORMER_STORES_COUNT_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A member of the cluster."""

    node_id: int
    name: str
    rack: str
    store_uuid: str
    peer_address: str
    #: Of the client listeners, by listener name.
    addresses: Mapping[str, str]
    #: Its replica of the metadata group; a new store gets a new one.
    metadata_replica_id: int
    #: When its present store was admitted, by the clock of the leader of that moment.
    admit_time_ms: int
    former_store_uuids: tuple[str, ...] = ()

    @staticmethod
    def described(node: NodeDescription, node_id: int, replica: int, time_ms: int) -> NodeInfo:
        """A node as it describes itself."""
        info = NodeInfo(node_id, node.name, "", node.store_uuid, "", {}, replica, time_ms)
        return info.moved(node)

    def moved(self, node: NodeDescription) -> NodeInfo:
        """The same node and store at the addresses that the node tells now."""
        assert (node.name, node.store_uuid) == (self.name, self.store_uuid), "another node's news"
        addresses = {each.listener: each.address for each in node.addresses}
        return replace(
            self,
            rack=node.rack,
            peer_address=node.peer_address,
            addresses=MappingProxyType(dict(sorted(addresses.items()))),
        )

    def with_store(self, node: NodeDescription, replica: int, time_ms: int) -> NodeInfo:
        """The same node after its store was replaced by the described one."""
        former = (*self.former_store_uuids, self.store_uuid)[-FORMER_STORES_COUNT_MAX:]
        fresh = NodeInfo.described(node, self.node_id, replica, time_ms)
        return replace(fresh, former_store_uuids=former)


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition and where its replicas should be."""

    topic_id: int
    partition: int
    group_id: int
    #: The first one is the preferred leader.
    replica_ids: tuple[int, ...]
    #: The replicas of the group's first configuration, who begin without being sent anything.
    born_replica_ids: tuple[int, ...]
    next_replica_sequence: int

    def on_node(self, node_id: int) -> int | None:
        """The replica that the node should hold."""
        for each in self.replica_ids:
            if node_of(each) == node_id:
                return each
        return None

    def with_new_replica(self, node_id: int) -> PartitionInfo:
        """The same partition with a fresh replica on the node, in the place of the one there."""
        fresh = replica_id(node_id, self.next_replica_sequence)
        replicas = tuple(fresh if node_of(one) == node_id else one for one in self.replica_ids)
        sequence = self.next_replica_sequence + 1
        return replace(self, replica_ids=replicas, next_replica_sequence=sequence)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic and its partitions, by number."""

    topic_id: int
    name: str
    replication_factor: int
    config: TopicConfig
    create_time_ms: int
    partitions: tuple[PartitionInfo, ...]
    #: Holds consumer groups and no records; clients do not see it.
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What one entry changed."""

    version: int
    #: Nodes came, or changed their address or store.
    nodes: bool = False
    #: Topics that were created or have new settings.
    topic_ids: tuple[int, ...] = ()
    #: Groups whose replicas should be others than before, new groups among them.
    group_ids: tuple[int, ...] = ()
    #: Groups that are gone for good.
    dead_group_ids: tuple[int, ...] = ()
    #: Anything may have changed: a checkpoint was installed.
    everything: bool = False


@dataclass(slots=True)
class Counters:
    """The next number of each kind."""

    node_id: int = 1
    topic_id: int = 1
    group_id: int = METADATA_GROUP_ID + 1
    producer_id: int = 1
    metadata_replica_sequence: int = 1


@dataclass(slots=True, eq=False)
class Registry:
    """The read side for everybody; the `put_` and `drop_` methods belong to the state machine.

    - The indexes (`_…`) are derived from `nodes` and `topics` and hold the same facts.
    """

    cluster_id: str = ""
    #: What every node reads; what a higher level reads is written by none.
    feature_level: int = 0
    version: int = 0
    counters: Counters = field(default_factory=Counters)
    nodes: dict[int, NodeInfo] = field(default_factory=dict[int, NodeInfo])
    producers: ProducerTable = field(default_factory=ProducerTable)
    answered: AnsweredRequests = field(default_factory=AnsweredRequests)
    dead_groups: DeadGroups = field(default_factory=DeadGroups)
    _node_ids: dict[str, int] = field(default_factory=dict[str, int])
    _topics: dict[int, TopicInfo] = field(default_factory=dict[int, TopicInfo])
    _topic_ids: dict[str, int] = field(default_factory=dict[str, int])
    _topic_names: list[str] = field(default_factory=list[str])
    _internal_ids: dict[str, int] = field(default_factory=dict[str, int])
    _groups: dict[int, PartitionInfo] = field(default_factory=dict[int, PartitionInfo])
    _replica_counts: dict[int, int] = field(default_factory=dict[int, int])
    _preferred_counts: dict[int, int] = field(default_factory=dict[int, int])
    _subscribers: list[Callable[[Change], None]] = field(
        default_factory=list[Callable[[Change], None]]
    )

    # What everybody may ask.

    def node_by_name(self, name: str) -> NodeInfo | None:
        """The node of this name."""
        node_id = self._node_ids.get(name)
        return None if node_id is None else self.nodes[node_id]

    def is_replaced(self, node_id: int, store_uuid: str) -> bool:
        """Whether this is a store that another one has taken the place of (S11)."""
        node = self.nodes.get(node_id)
        return node is not None and store_uuid in node.former_store_uuids

    def topic(self, name: str) -> TopicInfo | None:
        """The topic of this name."""
        topic_id = self._topic_ids.get(name)
        return None if topic_id is None else self._topics[topic_id]

    def internal_topic(self, name: str) -> TopicInfo | None:
        """The internal topic of this name."""
        topic_id = self._internal_ids.get(name)
        return None if topic_id is None else self._topics[topic_id]

    def topic_by_id(self, topic_id: int) -> TopicInfo | None:
        """The topic with this id."""
        return self._topics.get(topic_id)

    def topics(self) -> Iterable[TopicInfo]:
        """All topics, by id, internal ones among them."""
        return self._topics.values()

    def topic_names(self) -> Sequence[str]:
        """The names of all topics that clients see, in order."""
        return self._topic_names

    def topics_after(self, name: str, count: int) -> list[TopicInfo]:
        """At most `count` topics whose names follow `name`, in that order; "" is the start."""
        start = bisect_right(self._topic_names, name)
        return [
            self._topics[self._topic_ids[each]] for each in self._topic_names[start : start + count]
        ]

    @property
    def topic_count(self) -> int:
        """How many topics there are that clients see."""
        return len(self._topic_names)

    @property
    def partition_count(self) -> int:
        """How many partitions there are, of all topics that clients see."""
        hidden = sum(len(self._topics[one].partitions) for one in self._internal_ids.values())
        return len(self._groups) - hidden

    def partitions(self) -> Iterable[PartitionInfo]:
        """All partitions of all topics, internal ones among them."""
        return self._groups.values()

    def partition(self, group_id: int) -> PartitionInfo | None:
        """The partition whose group this is."""
        return self._groups.get(group_id)

    def is_internal(self, place: PartitionInfo) -> bool:
        """Whether the partition holds consumer groups and no records."""
        return self._topics[place.topic_id].internal

    def is_dead_group(self, group_id: int) -> bool:
        """Whether the group existed and was deleted."""
        return group_id in self.dead_groups

    def replica_count(self, node_id: int) -> int:
        """How many partitions have a replica on this node."""
        return self._replica_counts.get(node_id, 0)

    def preferred_count(self, node_id: int) -> int:
        """How many partitions have their preferred leader on this node."""
        return self._preferred_counts.get(node_id, 0)

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Calls back on every change, until the returned function is called."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # What the state machine does.

    def put_node(self, node: NodeInfo) -> None:
        """Adds a node, or replaces what is known of it."""
        known = self.nodes.get(node.node_id)
        assert known is None or known.name == node.name, "a node keeps its name"
        self.nodes[node.node_id] = node
        self._node_ids[node.name] = node.node_id

    def put_topic(self, topic: TopicInfo) -> None:
        """Adds a topic, or replaces what is known of it."""
        known = self._topics.get(topic.topic_id)
        if known is None and topic.internal:
            assert topic.name not in self._internal_ids, "a name belongs to one topic"
            self._internal_ids[topic.name] = topic.topic_id
        elif known is None:
            assert topic.name not in self._topic_ids, "a name belongs to one topic"
            insort(self._topic_names, topic.name)
            self._topic_ids[topic.name] = topic.topic_id
        if known is None or known.partitions is not topic.partitions:
            # Of thousands one may be another; the others are the same objects.
            before = {id(one): one for one in (known.partitions if known else ())}
            fresh = [one for one in topic.partitions if before.pop(id(one), None) is None]
            self._count(before.values(), -1)
            self._count(fresh, 1)
            self._groups.update({one.group_id: one for one in fresh})
        self._topics[topic.topic_id] = topic

    def drop_topic(self, topic: TopicInfo) -> None:
        """Forgets a topic; its groups are dead from now on."""
        del self._topics[topic.topic_id]
        del self._topic_ids[topic.name]
        del self._topic_names[bisect_right(self._topic_names, topic.name) - 1]
        self._count(topic.partitions, -1)
        for one in topic.partitions:
            del self._groups[one.group_id]
            self.dead_groups.add(one.group_id)

    def _count(self, partitions: Iterable[PartitionInfo], step: int) -> None:
        for one in partitions:
            preferred = node_of(one.replica_ids[0])
            counts = self._preferred_counts
            counts[preferred] = counts.get(preferred, 0) + step
            for each in one.replica_ids:
                node_id = node_of(each)
                self._replica_counts[node_id] = self._replica_counts.get(node_id, 0) + step

    def changed(self, change: Change) -> None:
        """Raises the version and tells the subscribers."""
        self.version += 1
        told = replace(change, version=self.version)
        for callback in tuple(self._subscribers):
            callback(told)

    def reset(self) -> None:
        """Empties everything but the version and the subscribers."""
        blank = Registry()
        for name in self.__slots__:
            if name not in {"version", "_subscribers"}:
                setattr(self, name, getattr(blank, name))
