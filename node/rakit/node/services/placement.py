"""From a request of a produce stream to the lane of its partition (contract 10).

Rules:

- A request for a topic that this node does not know waits, with all later ones for that topic,
  until a majority has been asked (S22); other topics go on.
- Whatever is refused is refused in its lane, which it breaks: in order, and nothing passes it.
- A request that names no partition that exists fails by itself: there is no lane to be broken.
- A request may fail while the topic is not known, and only the topic could tell which partition the
  server would pick for it. Every lane of that topic that comes into being later begins broken.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import RestartPartition
from rakit.node.errors import RakitError
from rakit.node.forwarding.lanes import Lane, Request, Surroundings
from rakit.node.metadata.registry import TopicInfo
from rakit.node.produce import Dispatch, InFlight
from rakit.node.routing import Router, give_up_at
from rakit.node.services.admission import Targeting, admitted, stated_partition
from rakit.node.services.handlers import Call, draining_error
from rakit.node.services.twins import Produced
from rakit.peer.v1.opaque_pb2 import OpaqueProduceRequest

#: Partitions that one stream may name. Beyond it a further one is refused, each time alike.
LANES_COUNT_MAX: Final = 65_536

_ABSENT: Final = frozenset(
    {
        error_pb2.ERROR_REASON_UNKNOWN_TOPIC,
        error_pb2.ERROR_REASON_UNKNOWN_PARTITION,
        error_pb2.ERROR_REASON_INVALID_TOPIC_NAME,
    }
)

#: A request without a lane yet: its tag, itself, its size in bytes.
_Waiting: TypeAlias = tuple[int, Produced, int]


@dataclass(frozen=True, slots=True)
class ProduceParts:
    """What produce calls need of the node."""

    router: Router
    dispatch: Dispatch
    in_flight: InFlight
    targeting: Targeting
    header: ResponseHeader


class Answers(Protocol):
    """Where requests end that have no lane."""

    def answer_error(self, tag: int, size: int, error: RakitError) -> None:
        """Answers with an error."""
        ...

    def answer_restarted(self, tag: int, size: int, topic: str, partition: int) -> None:
        """Answers a restart message."""
        ...


class Placement:
    """The lanes of one stream, and what waits to be put into one."""

    def __init__(
        self,
        call: Call,
        closing: asyncio.Event,
        parts: ProduceParts,
        surroundings: Surroundings,
        answers: Answers,
    ) -> None:
        self._call = call
        self._closing = closing
        self._parts = parts
        self._router = parts.router
        self._surroundings = surroundings
        self._answers = answers
        self._lanes: dict[tuple[str, int], Lane] = {}
        # Requests for topics that are being looked up, by topic.
        self._looked_up: dict[str, list[_Waiting]] = {}
        # Topics of which a request failed that nobody can tell the lane of.
        self._unplaced: set[str] = set()

    def close(self) -> None:
        """The stream has ended."""
        for lane in self._lanes.values():
            lane.close()

    def restart(self, tag: int, size: int, message: RestartPartition) -> None:
        """Lets a partition go on after a failure."""
        place = message.topic, message.partition
        lane = self._lanes.get(place)
        if lane is None and message.topic in self._unplaced:
            lane = self._lane(*place)
        if lane is None:
            self._answers.answer_restarted(tag, size, *place)
        else:
            lane.restart(Request(tag, size, 0.0))

    def produce(self, tag: int, request: Produced, size: int) -> None:
        """Puts a request into its lane, or refuses it."""
        message = request.message
        waiting = self._looked_up.get(message.topic)
        if waiting is not None:
            waiting.append((tag, request, size))
            return
        topic = self._router.known_topic(message.topic)
        if topic is not None and message.partition < len(topic.partitions):
            self._to_lane(tag, request, size, topic)
        elif self._closing.is_set():
            self._refuse(tag, request, size, draining_error(), topic)
        else:
            self._looked_up[message.topic] = [(tag, request, size)]
            self._surroundings.spawn(self._look_up(message.topic))

    async def _look_up(self, name: str) -> None:
        """Asks a majority about a topic, then goes on with what waits for the answer."""
        asked = len(self._looked_up[name])
        topic: TopicInfo | None = None
        failure: RakitError | None = None
        give_up = give_up_at(self._call.deadline)
        try:
            topic = await self._router.confirmed_topic(name, give_up)
        except RakitError as error:
            failure = error
            if error.reason not in _ABSENT:
                # Nothing is known of the topic that was not known before. That may be something.
                topic, asked = self._router.known_topic(name), len(self._looked_up[name])
        waiting = self._looked_up.pop(name)
        for tag, request, size in waiting[:asked]:
            known = topic is not None and request.message.partition < len(topic.partitions)
            if failure is not None and not known:
                self._refuse(tag, request, size, failure, topic)
            else:
                assert topic is not None, "a topic is there or there is a reason"
                self._to_lane(tag, request, size, topic)
        # What came while the question was under way is not settled by its answer (S22).
        for tag, request, size in waiting[asked:]:
            self.produce(tag, request, size)

    def _to_lane(self, tag: int, produced: Produced, size: int, topic: TopicInfo) -> None:
        try:
            partition = self._parts.targeting.partition_of(produced.message, topic)
        except RakitError as error:
            self._refuse(tag, produced, size, error, topic)
            return
        lane = self._lane(topic.name, partition)
        if lane is None:
            self._answers.answer_error(tag, size, _too_many_lanes())
            return
        request = Request(tag, size, give_up_at(self._call.deadline))
        try:
            if self._closing.is_set():
                raise draining_error()
            self._parts.in_flight.check()
            content = admitted(produced, topic)
        except RakitError as error:
            lane.refuse(request, error)
            return
        request.batch, request.stamp = content.batch, content.stamp
        request.expected_offset = content.expected_offset
        if produced.message.leader_only:
            request.leader_only_listener = self._call.listener
        lane.submit(request)

    def _lane(self, topic: str, partition: int) -> Lane | None:
        """The lane of a partition; None where the stream has too many already."""
        lane = self._lanes.get((topic, partition))
        if lane is None and self._has_room():
            is_broken = topic in self._unplaced
            lane = Lane(topic, partition, self._surroundings, is_broken=is_broken)
            self._lanes[topic, partition] = lane
        return lane

    def _has_room(self) -> bool:
        return len(self._lanes) + len(self._unplaced) < LANES_COUNT_MAX

    def _refuse(
        self,
        tag: int,
        request: Produced,
        size: int,
        error: RakitError,
        topic: TopicInfo | None,
    ) -> None:
        """Refuses a request whose partition was not looked up, or cannot be."""
        message = request.message
        partition = stated_partition(message)
        lane = None if partition is None else self._lanes.get((message.topic, partition))
        if lane is None and error.reason not in _ABSENT:
            if partition is not None:
                lane = self._lane(message.topic, partition)
            elif topic is None and _picks_one(message) and self._has_room():
                self._unplaced.add(message.topic)
        if lane is None:
            self._answers.answer_error(tag, size, error)
        else:
            lane.refuse(Request(tag, size, 0.0), error)


def _picks_one(message: OpaqueProduceRequest) -> bool:
    """Whether such requests all go to one partition, rather than to all in turn."""
    return message.WhichOneof("target") == "routing_key" or message.HasField("producer")


def _too_many_lanes() -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_THROTTLED,
        f"The stream has named {LANES_COUNT_MAX} partitions, as many as it may; use another stream"
        " for more.",
        {"limit": str(LANES_COUNT_MAX)},
    )
