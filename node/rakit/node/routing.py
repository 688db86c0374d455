"""Where a request goes: from a topic's name to the node that leads the partition.

Rules:

- "There is no such topic" is said only after a linearizable read of the registry (S22). The same
  holds for "no such partition".
- While a group has no leader a request waits for one, up to its deadline or `LEADER_WAIT_S`; an
  election is over long before that as a rule, and the client need not know that there was one.
- What a request learns is used once. A leader that says that it is none is asked again only after
  something changed, or after a pause that keeps a stale view from becoming a busy loop.
- Hints name the address of the listener that the caller came in by (contract 19).

Left out: sending anything. `produce` and `services` do that with what they learn here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.multiraft.leaders import LeaderInfo, Leaders
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.registry import PartitionInfo, TopicInfo
from rakit.node.metadata.topics import check_topic_name, unknown_topic

#: How long a request waits for a leader when its own deadline is later than that.
LEADER_WAIT_S: Final = 5.0
#: Kept back from the caller's deadline, so that our answer gets there before its timer does.
ANSWER_RESERVE_S: Final = 0.1
#: How long a command of the metadata group may take.
COMMAND_S_MAX: Final = 30.0
#: Between two attempts at a leader that said it is none, when nothing else is heard.
RETRY_PAUSE_S: Final = 0.02

_REROUTED: Final = frozenset(
    {
        error_pb2.ERROR_REASON_NOT_LEADER,
        error_pb2.ERROR_REASON_NO_LEADER,
        error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
    }
)


def is_reroutable(error: RakitError) -> bool:
    """Nothing was applied and another node, or the same one later, may take the request."""
    return error.reason in _REROUTED and not error.may_be_applied


def no_leader(topic: str, partition: int) -> RakitError:
    """What a caller is told when no leader turned up in time."""
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        f"Partition {partition} of topic {topic!r} has no leader at the moment; nothing was"
        " stored.",
        {"topic": topic, "partition": str(partition), "retry_delay_ms": "100"},
    )


def not_misled(error: RakitError, topic: str, partition: int) -> RakitError:
    """The error for a caller that takes any node: NOT_LEADER would say that it asked the wrong one.

    That is for those who asked for no forwarding; all others are told to try again.
    """
    if error.reason != error_pb2.ERROR_REASON_NOT_LEADER:
        return error
    told = RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        f"Partition {partition} of topic {topic!r} has a new leader, which could not be asked in"
        " time.",
        {**no_leader(topic, partition).metadata, **error.metadata},
    )
    return told.as_unknown() if error.may_be_applied else told


class Router:
    """Looks up topics, partitions and leaders on behalf of one node."""

    def __init__(self, node_id: int, metadata: MetadataClient, leaders: Leaders) -> None:
        self.node_id = node_id
        self.metadata = metadata
        self._leaders = leaders

    def known_topic(self, name: str) -> TopicInfo | None:
        """The topic as this node's registry has it, without asking anybody."""
        return self.metadata.registry.topic(name)

    async def topic(self, name: str, give_up: float) -> TopicInfo:
        """The topic. Raises UNKNOWN_TOPIC only when a majority agrees (S22), else NO_QUORUM."""
        known = self.known_topic(name)
        if known is not None:
            return known
        return await self.confirmed_topic(name, give_up)

    async def confirmed_topic(self, name: str, give_up: float) -> TopicInfo:
        """The topic as of now, linearizable. Raises UNKNOWN_TOPIC, NO_QUORUM."""
        check_topic_name(name)
        registry = await self.metadata.barrier(_seconds_until(give_up))
        found = registry.topic(name)
        if found is None:
            raise unknown_topic(name)
        return found

    async def partition(
        self, name: str, number: int, give_up: float
    ) -> tuple[TopicInfo, PartitionInfo]:
        """The topic and its partition. Raises UNKNOWN_TOPIC, UNKNOWN_PARTITION, NO_QUORUM."""
        topic = await self.topic_with(name, (number,), give_up)
        return topic, topic.partitions[number]

    async def topic_with(self, name: str, numbers: Collection[int], give_up: float) -> TopicInfo:
        """The topic, which has all of these partitions. Asks a majority once, whatever it takes.

        Raises UNKNOWN_TOPIC, UNKNOWN_PARTITION, NO_QUORUM.
        """
        topic = await self.topic(name, give_up)
        if _unknown(topic, numbers) is None:
            return topic
        topic = await self.confirmed_topic(name, give_up)
        if (number := _unknown(topic, numbers)) is not None:
            raise unknown_partition(topic, number)
        return topic

    def known_leader(self, group_id: int) -> LeaderInfo | None:
        """The leader as this node knows it; None while that node is down."""
        return self._leaders.get(group_id)

    async def leader(self, topic: str, place: PartitionInfo, give_up: float) -> LeaderInfo:
        """The leader, waited for until `give_up` on the loop's clock. Raises NO_LEADER."""
        known = self._leaders.get(place.group_id)
        if known is not None:
            return known
        left = give_up - asyncio.get_running_loop().time()
        if left <= 0:
            raise no_leader(topic, place.partition)
        try:
            return await self._leaders.wait(place.group_id, left)
        except TimeoutError:
            raise no_leader(topic, place.partition) from None

    async def look_again(self, group_id: int, stale: LeaderInfo, give_up: float) -> bool:
        """After `stale` refused: waits for other news, briefly. False when the time is up."""
        loop = asyncio.get_running_loop()
        if self._leaders.get(group_id) == stale:
            await asyncio.sleep(min(RETRY_PAUSE_S, max(0.0, give_up - loop.time())))
        return loop.time() < give_up

    def hint(self, leader: LeaderInfo, listener: str) -> dict[str, str]:
        """The leader as metadata of an error."""
        hint = {"leader_node_id": str(leader.node_id), "leader_term": str(leader.term)}
        if address := self.address_of(leader.node_id, listener):
            hint["leader_address"] = address
        return hint

    def address_of(self, node_id: int, listener: str) -> str:
        """A node's address on a listener; its only one where it has no listener of that name."""
        node = self.metadata.registry.nodes.get(node_id)
        if node is None:
            return ""
        if listener in node.addresses or len(node.addresses) != 1:
            return node.addresses.get(listener, "")
        return next(iter(node.addresses.values()))

    def elsewhere(self, listener: str, is_up: Callable[[int], bool]) -> str:
        """The address of some other node that is up, picked at random; "" if there is none."""
        others = [one for one in self.metadata.registry.nodes if one != self.node_id and is_up(one)]
        addresses = [found for one in others if (found := self.address_of(one, listener))]
        return random.choice(addresses) if addresses else ""

    def placed(self, error: RakitError, topic: str, partition: int, listener: str) -> RakitError:
        """The error, with what it is about and how to reach the leader that it names."""
        error.metadata.setdefault("topic", topic)
        error.metadata.setdefault("partition", str(partition))
        leader = error.metadata.get("leader_node_id", "")
        if leader.isdecimal() and (address := self.address_of(int(leader), listener)):
            error.metadata.setdefault("leader_address", address)
        return error

    def not_leader(
        self, topic: str, partition: int, leader: LeaderInfo, listener: str
    ) -> RakitError:
        """For a caller that asked for the leader only."""
        return RakitError(
            error_pb2.ERROR_REASON_NOT_LEADER,
            f"Node {self.node_id} does not lead partition {partition} of topic {topic!r}; node"
            f" {leader.node_id} does.",
            {"topic": topic, "partition": str(partition), **self.hint(leader, listener)},
        )


def _unknown(topic: TopicInfo, numbers: Collection[int]) -> int | None:
    """The first of these partitions that the topic does not have."""
    count = len(topic.partitions)
    return next((number for number in numbers if not 0 <= number < count), None)


def _seconds_until(give_up: float) -> float:
    """What is left, and never nothing: a majority is asked at least once."""
    return max(ANSWER_RESERVE_S / 2, give_up - asyncio.get_running_loop().time())


def give_up_at(deadline: float) -> float:
    """Until when a request with this deadline waits for a leader."""
    now = asyncio.get_running_loop().time()
    return min(now + LEADER_WAIT_S, deadline - ANSWER_RESERVE_S)


def answer_by(deadline: float, reserve_s: float = ANSWER_RESERVE_S) -> float:
    """Until when a call with this deadline is worked on: at least half of what is left of it."""
    now = asyncio.get_running_loop().time()
    return max(deadline - reserve_s, (now + deadline) / 2)


def patience_s(deadline: float) -> float:
    """How long a command of the metadata group may take for a call with this deadline."""
    left = deadline - ANSWER_RESERVE_S - asyncio.get_running_loop().time()
    return min(max(left, ANSWER_RESERVE_S / 2), COMMAND_S_MAX)


def unknown_partition(topic: TopicInfo, number: int) -> RakitError:
    """What a caller is told about a number that is not there."""
    count = len(topic.partitions)
    return RakitError(
        error_pb2.ERROR_REASON_UNKNOWN_PARTITION,
        f"Topic {topic.name!r} has no partition {number}: it has {count}, numbered from 0.",
        {"topic": topic.name, "partition": str(number), "partition_count": str(count)},
    )
