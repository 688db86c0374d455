"""Which node leads which partition, as far as this client knows.

A cache of topics that is filled on demand and corrected by what goes wrong: an error carries the
leader as the node that refused knows it, a watch tells what changes, and a broken stream makes the
producer or reader ask anew. A stale entry costs a detour (every node forwards), never a wrong
answer, so nothing here expires.

Rules:

- Of two statements about a leader the one with the higher term wins; without a term, the newer one.
- Refreshing a topic is done once at a time, however many lanes ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from rakit.api.v1.cluster_service_pb2 import GetClusterRequest, WatchClusterResponse
from rakit.api.v1.topic_service_pb2 import GetTopicRequest
from rakit.client.connections import Connections, is_cancelled
from rakit.client.errors import LocalReason, NotFoundError, RakitError, make_error
from rakit.client.model import Cluster, Node, Partition, Topic
from rakit.client.watch import Watch

_DEFAULT_LISTENER: Final = "default"
#: Topics that are remembered; the one that was fetched first goes first.
TOPICS_COUNT_MAX: Final = 10_000


class Metadata:
    """Topics by name, and where their partitions are led."""

    def __init__(self, connections: Connections, bootstrap: tuple[str, ...]) -> None:
        self._connections = connections
        self._bootstrap = bootstrap
        self._topics: dict[str, Topic] = {}
        self._refreshing: dict[str, asyncio.Task[Topic]] = {}
        self._nodes_known = False
        self._watch = Watch(connections, self._told)

    async def topic(self, name: str) -> Topic:
        """Returns the topic, asking the cluster when it is not known. Raises NotFoundError."""
        found = self._topics.get(name)
        return await self.refresh(name) if found is None else found

    async def refresh(self, name: str) -> Topic:
        """Asks the cluster about a topic. Raises NotFoundError or UnavailableError."""
        task = self._refreshing.get(name)
        if task is None:
            task = asyncio.create_task(self._fetch(name))
            self._refreshing[name] = task
            task.add_done_callback(partial(self._refreshed, name))
        try:
            # A caller that gives up must not take the answer away from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            text = f"the client was closed before it knew the topic {name!r}"
            raise make_error(LocalReason.CLOSED, text, maybe_applied=False) from None

    async def refresh_quietly(self, name: str) -> None:
        """Asks about a topic where a failure is no matter: any node serves without."""
        with contextlib.suppress(RakitError):
            await self.refresh(name)

    async def close(self) -> None:
        """Stops asking."""
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watch.close()

    def follow(self, name: str) -> None:
        """Keeps what is known of a topic up to date, without anybody asking."""
        self._watch.follow(name)

    def _told(self, news: WatchClusterResponse) -> None:
        """Takes in what a watch says."""
        if news.nodes:
            nodes = tuple(Node.from_message(each) for each in news.nodes)
            self._connections.learn(client_addresses(nodes, self._bootstrap))
        for name in news.deleted_topics:
            self._topics.pop(name, None)
        for topic in news.topics:
            known = self._topics.get(topic.name)
            if known is not None and known.topic_id == topic.topic_id:
                for each in topic.partitions:
                    self._learn(topic.name, Partition.from_message(each))
        for change in news.partitions:
            self._learn(change.topic, Partition.from_message(change.partition))

    def _learn(self, topic: str, told: Partition) -> None:
        known = self._known(topic, told.partition)
        if known is not None and known.group_id == told.group_id and known != told:
            self._put(topic, _newest(told, known))

    def _refreshed(self, name: str, task: asyncio.Task[Topic]) -> None:
        del self._refreshing[name]
        if not task.cancelled():
            # Marks the error as seen: everybody who asked may have given up by now.
            task.exception()

    async def _fetch(self, name: str) -> Topic:
        if not self._nodes_known:
            await self.refresh_nodes()
        try:
            answer = await self._connections.call(
                lambda stubs: stubs.topic.GetTopic, GetTopicRequest(name=name)
            )
        except NotFoundError:
            self._topics.pop(name, None)
            raise
        fetched = Topic.from_message(answer.topic)
        known = self._topics.pop(name, None)
        topic = fetched if known is None else _merged(fetched, known)
        while len(self._topics) >= TOPICS_COUNT_MAX:
            del self._topics[next(iter(self._topics))]
        self._topics[name] = topic
        return topic

    async def refresh_nodes(self) -> Cluster:
        """Learns the addresses of all nodes, so that losing the bootstrap node is no matter."""
        answer = await self._connections.call(
            lambda stubs: stubs.cluster.GetCluster, GetClusterRequest()
        )
        cluster = Cluster.from_message(answer)
        self._connections.learn(client_addresses(cluster.nodes, self._bootstrap))
        self._nodes_known = True
        return cluster

    def leader_address(self, topic: str, partition: int) -> str:
        """Returns where a partition is led; empty when that is not known."""
        known = self._known(topic, partition)
        return known.leader_address if known is not None else ""

    def learn_leader(self, error: RakitError, topic: str, partition: int) -> bool:
        """Takes the leader that an error names; False when it names none or an older one."""
        known = self._known(topic, partition)
        address, term = error.metadata.get("leader_address", ""), error.number("leader_term")
        if known is None or not address or term is None or term < known.leader_term:
            return False
        node_id = error.number("leader_node_id") or 0
        told = replace(known, leader_node_id=node_id, leader_term=term, leader_address=address)
        self._put(topic, told)
        return True

    def forget_leader(self, topic: str, partition: int, address: str) -> None:
        """Notes that a partition is not led at this address any more."""
        known = self._known(topic, partition)
        if known is not None and known.leader_address == address:
            self._put(topic, replace(known, leader_address="", leader_node_id=0))

    def _known(self, topic: str, partition: int) -> Partition | None:
        """The partition; None also where the topic was made anew with fewer of them."""
        found = self._topics.get(topic)
        if found is None or partition >= len(found.partitions):
            return None
        return found.partitions[partition]

    def _put(self, topic: str, partition: Partition) -> None:
        found = self._topics[topic]
        at = partition.partition
        partitions = (*found.partitions[:at], partition, *found.partitions[at + 1 :])
        self._topics[topic] = replace(found, partitions=partitions)


def _merged(fetched: Topic, known: Topic) -> Topic:
    """Keeps what is known of leaders where the answer is older, as from a node that lags behind."""
    if fetched.topic_id != known.topic_id:
        return fetched
    pairs = zip(fetched.partitions, known.partitions, strict=False)
    newest = tuple(_newest(new, old) for new, old in pairs)
    return replace(fetched, partitions=newest + fetched.partitions[len(newest) :])


def _newest(new: Partition, old: Partition) -> Partition:
    return old if new.leader_term < old.leader_term else new


def client_addresses(nodes: Sequence[Node], bootstrap: tuple[str, ...]) -> list[str]:
    """Returns an address per living node, of the listener that the bootstrap list uses."""
    by_address = {address: listener for node in nodes for listener, address in node.addresses}
    listener = next(
        (by_address[address] for address in bootstrap if address in by_address), _DEFAULT_LISTENER
    )
    return [
        address
        for node in nodes
        if node.is_up
        for name, address in node.addresses
        if name == listener
    ]
