"""WatchCluster: what a client routes by, whole and then as it changes (contract 18).

Every watcher keeps what is to be told by its name (a topic, a group), never the message: however
slow a client reads, there is one entry for each thing that changed, and what it is told is what
holds when it is told. Changes are gathered over `GATHER_S`.

Rules:

- A watcher subscribes before it looks, so nothing falls between the snapshot and the changes.
- A message names at most `PARTITIONS_COUNT_MAX` partitions.
- After `HEARTBEAT_S` without a message there is one without content, whatever changes meanwhile
  that this client did not ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Final, Protocol

from rakit.api.v1 import cluster_service_pb2 as api
from rakit.api.v1 import error_pb2
from rakit.multiraft.leaders import LeaderCallback, LeaderInfo
from rakit.node.errors import RakitError
from rakit.node.metadata.registry import Change, PartitionInfo, Registry, TopicInfo
from rakit.node.services.describe import Describe
from rakit.node.services.handlers import Call, Stream

GATHER_S: Final = 0.1
HEARTBEAT_S: Final = 5.0
TOPICS_COUNT_MAX: Final = 1_024
#: Of one message: about 150 bytes each.
PARTITIONS_COUNT_MAX: Final = 2_000


class WatchedLeaders(Protocol):
    """The table of leaders, as a watcher needs it."""

    def on_change(self, callback: LeaderCallback) -> Callable[[], None]:
        """Has every change of a group's leader told; returns what ends that."""
        ...


class WatchedHost(Protocol):
    """What a watcher needs of the host."""

    @property
    def leaders(self) -> WatchedLeaders:
        """The table of leaders."""
        ...

    def on_node(self, callback: Callable[[int, bool], None]) -> Callable[[], None]:
        """Has a callback told of nodes that came or went; returns what ends that."""
        ...


class Watching:
    """The RPC of one node."""

    def __init__(
        self,
        registry: Registry,
        host: WatchedHost,
        describe: Describe,
        nodes: Callable[[], list[api.Node]],
    ) -> None:
        self._registry = registry
        self._host = host
        self._describe = describe
        self._nodes = nodes

    async def watch_cluster(
        self, call: Call, request: api.WatchClusterRequest, stream: Stream
    ) -> None:
        """Streams to one client until it goes."""
        if len(request.topics) > TOPICS_COUNT_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"A watch names {len(request.topics):,} topics; name at most {TOPICS_COUNT_MAX:,},"
                " or none to watch them all.",
                {"limit": str(TOPICS_COUNT_MAX), "actual": str(len(request.topics))},
            )
        watcher = _Watcher(self._registry, frozenset(request.topics))
        version = 0
        with ExitStack() as ends:
            ends.callback(self._registry.subscribe(watcher.registry_changed))
            ends.callback(self._host.leaders.on_change(watcher.leader_changed))
            ends.callback(self._host.on_node(watcher.node_changed))
            parts = list(self._snapshot(watcher, call.listener))
            for left, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
                version += 1
                part.version, part.is_snapshot, part.has_more = version, True, left > 0
                await stream.write(part)
            loop = asyncio.get_running_loop()
            written_at = loop.time()
            while True:
                if await watcher.wait(written_at + HEARTBEAT_S - loop.time()):
                    await asyncio.sleep(GATHER_S)
                parts = list(self._changes(watcher, call.listener))
                # Of what changed the client may not have asked for anything.
                if not parts and loop.time() >= written_at + HEARTBEAT_S:
                    parts = [api.WatchClusterResponse()]
                for part in parts:
                    version += 1
                    part.version = version
                    await stream.write(part)
                    written_at = loop.time()

    def _snapshot(self, watcher: _Watcher, listener: str) -> Iterator[api.WatchClusterResponse]:
        yield api.WatchClusterResponse(nodes=self._nodes())
        yield from self._parts(watcher.all_topics(), listener)

    def _changes(self, watcher: _Watcher, listener: str) -> Iterator[api.WatchClusterResponse]:
        nodes, topics, places, gone = watcher.take()
        head = api.WatchClusterResponse(
            nodes=self._nodes() if nodes else (), deleted_topics=sorted(gone)
        )
        if nodes or gone:
            yield head
        yield from self._parts(topics, listener)
        for some in _split(places):
            part = api.WatchClusterResponse()
            for topic, place in some:
                partition = self._describe.partition(place, listener)
                part.partitions.add(topic=topic.name, partition=partition)
            yield part

    def _parts(
        self, topics: Sequence[TopicInfo], listener: str
    ) -> Iterator[api.WatchClusterResponse]:
        """Topics in messages of a bounded size; a large one is spread over several."""
        part, room = api.WatchClusterResponse(), PARTITIONS_COUNT_MAX
        for topic in topics:
            places = topic.partitions
            while places:
                if not room:
                    yield part
                    part, room = api.WatchClusterResponse(), PARTITIONS_COUNT_MAX
                some, places = places[:room], places[room:]
                room -= len(some)
                part.topics.append(self._describe.topic(topic, listener, some))
        if part.topics:
            yield part


def _split(
    places: Sequence[tuple[TopicInfo, PartitionInfo]],
) -> Iterator[list[tuple[TopicInfo, PartitionInfo]]]:
    left = iter(places)
    while some := list(islice(left, PARTITIONS_COUNT_MAX)):
        yield some


class _Watcher:
    """What one client is to be told."""

    def __init__(self, registry: Registry, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names
        #: Topics that the client was told of, to say which are gone.
        self._told: dict[int, str] = {}
        self._topic_ids: dict[int, None] = {}
        self._group_ids: dict[int, None] = {}
        self._nodes = False
        self._bell = asyncio.Event()

    # What calls back, in the middle of something else: it only takes a note.

    def registry_changed(self, change: Change) -> None:
        """Takes in a change of the registry."""
        if change.everything:
            self._nodes = True
            self._topic_ids.update(dict.fromkeys([*self._told, *self._all_ids()]))
        self._nodes = self._nodes or change.nodes
        self._topic_ids.update(dict.fromkeys(change.topic_ids))
        self._group_ids.update(dict.fromkeys(change.group_ids))
        self._bell.set()

    def leader_changed(self, group_id: int, _leader: LeaderInfo | None) -> None:
        """Takes in that a group has another leader, or none."""
        self._group_ids[group_id] = None
        self._bell.set()

    def node_changed(self, _node_id: int, _is_up: bool) -> None:
        """Takes in that a node came or went."""
        self._nodes = True
        self._bell.set()

    async def wait(self, timeout_s: float) -> bool:
        """Waits for something to tell; False after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    # What there is to tell.

    def all_topics(self) -> list[TopicInfo]:
        """Everything that is watched, by id; changes are told from here on."""
        topics = [topic for topic in self._registry.topics() if self._is_watched(topic)]
        self._told = {topic.topic_id: topic.name for topic in topics}
        return topics

    def _all_ids(self) -> list[int]:
        return [topic.topic_id for topic in self._registry.topics()]

    def _is_watched(self, topic: TopicInfo) -> bool:
        return not topic.internal and (not self._names or topic.name in self._names)

    def take(
        self,
    ) -> tuple[bool, list[TopicInfo], list[tuple[TopicInfo, PartitionInfo]], set[str]]:
        """Whether nodes changed, topics, partitions of others, names of topics that are gone."""
        self._bell.clear()
        nodes, self._nodes = self._nodes, False
        topic_ids, self._topic_ids = self._topic_ids, {}
        group_ids, self._group_ids = self._group_ids, {}
        topics: list[TopicInfo] = []
        gone: set[str] = set()
        for topic_id in topic_ids:
            topic = self._registry.topic_by_id(topic_id)
            if topic is None:
                name = self._told.pop(topic_id, None)
                gone.update(() if name is None else (name,))
            elif self._is_watched(topic):
                self._told[topic_id] = topic.name
                topics.append(topic)
        places: list[tuple[TopicInfo, PartitionInfo]] = []
        for group_id in group_ids:
            place = self._registry.partition(group_id)
            if place is None or place.topic_id in topic_ids:
                continue
            topic = self._registry.topic_by_id(place.topic_id)
            if topic is not None and self._is_watched(topic):
                places.append((topic, place))
        return nodes, topics, places, gone
