"""What surrounds a lane: a registry of one topic, a leader that the test moves, answers by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import cast

from rakit.api.v1 import error_pb2
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.leaders import Leaders
from rakit.node.errors import RakitError
from rakit.node.forwarding.lanes import Lane, Parking, Request, Surroundings
from rakit.node.forwarding.link import ForwardLink
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.registry import NodeInfo, PartitionInfo, TopicInfo
from rakit.node.metadata.topic_config import TopicConfig
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.partition.state import Stored
from rakit.node.produce import Dispatch
from rakit.node.routing import Router
from rakit.peer.v1.node_service_pb2 import ForwardedBatch

GROUP = 7
ME, OTHER, THIRD = 1, 2, 3
TOPIC = TopicInfo(1, "t", 3, TopicConfig(), 0, (PartitionInfo(1, 0, GROUP, (), (), 1),))


@dataclass
class Sent:
    """A batch that reached a leader, and its answer to be given."""

    node_id: int
    content: bytes
    lane: int
    restart: bool
    answer: asyncio.Future[Appended]

    def succeed(self, offset: int = 0) -> None:
        self.answer.set_result(appended(offset))

    def fail(self, reason: error_pb2.ErrorReason.ValueType) -> None:
        self.answer.set_exception(RakitError(reason, "as the test says"))


#: What a batch is refused for.
TAKEN = RakitError(error_pb2.ERROR_REASON_OFFSET_MISMATCH, "the offset is taken")


def appended(offset: int = 0) -> Appended:
    return Appended(Stored(offset, offset + 1, 0, 1, 1), 2, fsynced=True, duplicate=False)


def batch(content: bytes = b"b") -> Batch:
    return Batch(content, compressed=False, record_count=1, crc32c=crc32c(content))


@dataclass
class World:
    """Everything that a lane touches."""

    sent: list[Sent] = field(default_factory=list[Sent])
    answers: list[Request] = field(default_factory=list[Request])
    ended_lanes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    refuse: error_pb2.ErrorReason.ValueType | None = None
    #: Whether each of what was appended here may wait for others.
    gather: list[bool] = field(default_factory=list[bool])
    #: What a leader takes now is going to fail.
    doom: bool = False
    term: int = 1

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()
        self.leaders = Leaders(ME, lambda _node: True)
        self.router = Router(ME, cast("MetadataClient", _Metadata()), self.leaders)
        self.dispatch = Dispatch(ME, self, self._link)
        self.parking = Parking()

    def lane(self) -> Lane:
        return Lane(
            "t",
            0,
            Surroundings(
                self.router,
                self.dispatch,
                self.parking,
                self._respond,
                self._spawn,
            ),
        )

    def _respond(self, _lane: Lane, request: Request) -> None:
        self.answers.append(request)
        self.changed.set()

    def lead(self, node_id: int) -> None:
        """From now on this node leads."""
        self.term += 1
        self.leaders.announced(node_id, [(GROUP, self.term)], [], complete=False)

    def leaderless(self) -> None:
        known = self.leaders.get(GROUP)
        assert known is not None
        self.leaders.announced(known.node_id, [], [GROUP], complete=False)

    def append(
        self,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        gather: bool,
    ) -> asyncio.Future[Appended]:
        """The partitions of this node."""
        del group_id, stamp, expected_offset
        self.gather.append(gather)
        return self.take(ME, bytes(batch.content), 0, restart=False)

    def take(
        self, node_id: int, content: bytes, lane: int, *, restart: bool
    ) -> asyncio.Future[Appended]:
        if self.refuse is not None:
            raise RakitError(self.refuse, "refused at once")
        answer: asyncio.Future[Appended] = DoomedAnswer(TAKEN) if self.doom else asyncio.Future()
        self.sent.append(Sent(node_id, content, lane, restart, answer))
        self.changed.set()
        return answer

    def _link(self, node_id: int) -> ForwardLink:
        return cast("ForwardLink", _Link(self, node_id))

    def _spawn(self, work: Coroutine[None, None, None]) -> object:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        return task

    def request(self, tag: int, wait_s: float = 30) -> Request:
        give_up = asyncio.get_running_loop().time() + wait_s
        return Request(tag, 100, give_up, batch=batch(b"%d" % tag))

    async def settle(self) -> None:
        """Lets everything happen that happens without the test."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def until_sent(self, count: int) -> None:
        await self._until(lambda: len(self.sent) >= count)

    async def until_answered(self, count: int) -> None:
        await self._until(lambda: len(self.answers) >= count)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    @property
    def outcomes(self) -> list[tuple[int, str]]:
        return [(each.tag, outcome_of(each)) for each in self.answers]


def outcome_of(request: Request) -> str:
    if isinstance(request.outcome, RakitError):
        return error_pb2.ErrorReason.Name(request.outcome.reason).removeprefix("ERROR_REASON_")
    return "restarted" if request.outcome is True else "ok"


class _Registry:
    def __init__(self) -> None:
        address = {"default": "other:1"}
        self.nodes = {OTHER: NodeInfo(OTHER, "other", "", "uuid", "", address, 1, 0)}

    def topic(self, name: str) -> TopicInfo | None:
        return TOPIC if name == "t" else None


class _Metadata:
    def __init__(self) -> None:
        self.registry = _Registry()

    async def barrier(self, _timeout_seconds: float) -> _Registry:
        return self.registry


class _Link:
    def __init__(self, world: World, node_id: int) -> None:
        self._world = world
        self._node_id = node_id

    def send(self, batch: ForwardedBatch) -> asyncio.Future[Appended]:
        return self._world.take(self._node_id, batch.content, batch.lane, restart=batch.restart)

    def end_lane(self, lane: int) -> None:
        self._world.ended_lanes.append((self._node_id, lane))
