"""A membership in a group, over as many streams as it takes (`streams`).

What a stream says is taken in at once; a task of its own does, in order, what a rebalance asks of
the program. So a hook may take its time, and may seek and commit meanwhile, while the stream lives
on.

Rules:

- A new stream resumes the session with its token. What was received stays; partitions go on where
  they were, not at their commit.
- A session that the server has ended is over: the program is told what it lost (`on_lost`), and a
  new one begins.
- A partition is let go of only when the program is through with what it was handed, its hook has
  run and its commit was answered. One that the server meanwhile leaves here stays, and is assigned
  to the program anew.
- What was said on a stream holds for that stream: on the next one commits, seeks and `revoked` of a
  partition wait until the server has spoken of it.
- A partition that the server cannot read at the moment is left to the server, which tries again.
- Credit: every stream begins with the window less what is still here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rakit.api.v1 import record_pb2
from rakit.api.v1.group_service_pb2 import (
    Assigned,
    AssignedPartition,
    Delivery,
    GrantCredit,
    JoinGroup,
    LeaveRequest,
    PausePartitions,
    RevokeDone,
    Revoking,
    SubscribeRequest,
    SubscribeResponse,
)
from rakit.api.v1.group_service_pb2 import TopicPartition as WireTopicPartition
from rakit.api.v1.log_service_pb2 import Edge, Position
from rakit.client import codecs
from rakit.client.config import ClientConfig, GroupConfig
from rakit.client.connections import Connections
from rakit.client.consuming.commits import Commits
from rakit.client.consuming.inbox import Inbox
from rakit.client.consuming.places import Place, Received, Told, TopicPartition
from rakit.client.consuming.seeks import Seeks
from rakit.client.consuming.streams import Streams
from rakit.client.errors import RakitError, from_status, make_error
from rakit.client.freed_memory import keep_freed_memory

_LOGGER: Final = logging.getLogger(__name__)

Partitions = Sequence[TopicPartition]


class Program(Protocol):
    """What the session tells the consumer."""

    async def assigned(self, partitions: Partitions) -> None:
        """These partitions are owned now; their records follow when this returns."""
        ...

    async def revoking(self, places: Sequence[Place]) -> None:
        """These are to be let go of: returns when nothing of them is in hand or uncommitted."""
        ...

    async def lost(self, partitions: Partitions) -> None:
        """These went to others already; commits of them fail."""
        ...


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a member wants."""

    group: str
    topics: tuple[str, ...]
    patterns: tuple[str, ...]
    #: rakit.api.v1.Edge
    start: Edge.ValueType


class Session:
    """One member. `run` lives from join to leave."""

    def __init__(
        self,
        connections: Connections,
        configs: tuple[ClientConfig, GroupConfig],
        wanted: Subscription,
        program: Program,
    ) -> None:
        client_config, self._config = configs
        self._streams = Streams(connections, configs, self)
        self._wanted = wanted
        self._program = program
        self.places: dict[TopicPartition, Place] = {}
        self.commits = Commits()
        self.inbox = Inbox(self._config.buffer_bytes_max, self._streams.wake)
        keep_freed_memory(self._config.buffer_bytes_max)
        self.member_id = ""
        #: Resolves when the member has joined for the first time.
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._token = b""
        start = Edge.ValueType(wanted.start)
        self._seeks = Seeks(start, client_config.backoff_ms / 1000, self._streams.send)
        #: Why nothing can be asked for any more.
        self._ended: RakitError | None = None
        #: What a rebalance asks of the program, in order.
        self._chores: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        #: The membership is to end.
        self.is_leaving = False
        #: What the server has begun to say that is owned, and has not ended.
        self._owning: set[TopicPartition] = set()

    # The streams.

    async def run(self) -> None:
        """Keeps the membership until `leave`, or raises what ended it."""
        chores = asyncio.create_task(self._do_chores())
        streams = asyncio.create_task(self._streams.run())
        try:
            await asyncio.wait({chores, streams}, return_when=asyncio.FIRST_COMPLETED)
            for task in (streams, chores):
                if task.done():
                    await task
        finally:
            for task in (streams, chores):
                task.cancel()
            await asyncio.gather(streams, chores, return_exceptions=True)

    async def rest(self, failures: int) -> None:
        """The pause after so many failures in a row."""
        await self._streams.rest(failures)

    def begun(self) -> list[SubscribeRequest]:
        """Returns what a new stream begins with."""
        join = JoinGroup(
            group=self._wanted.group,
            topics=self._wanted.topics,
            topic_patterns=self._wanted.patterns,
            instance_id=self._config.instance_id,
            resume_token=self._token,
            rack=self._config.rack,
            start=self._wanted.start,
            max_processing_ms=self._config.max_processing_ms,
            session_grace_ms=self._config.session_grace_ms,
            credit_bytes=self.inbox.begin(),
            layout=record_pb2.LAYOUT_COLUMNS,
            accept_codecs=codecs.ACCEPTED,
            client_id=self._config.client_id,
        )
        self._owning.clear()
        leaving = [SubscribeRequest(leave=LeaveRequest())] if self.is_leaving else []
        return [SubscribeRequest(join=join), *leaving]

    def broken(self) -> None:
        """What was said on the stream holds no more."""
        self.commits.broken()
        for place in self.places.values():
            place.told = Told.NOTHING

    def gathered(self) -> SubscribeRequest | None:
        """Returns a commit or a grant that is to be sent now."""
        if self.member_id and (commit := self.commits.take(self.may_commit)) is not None:
            return SubscribeRequest(commit=commit)
        if grant := self.inbox.take_grant():
            return SubscribeRequest(grant=GrantCredit(bytes=grant))
        return None

    def may_commit(self, name: TopicPartition) -> bool:
        """What is not owned at all is for the server to refuse."""
        place = self.places.get(name)
        return place is None or place.told is not Told.NOTHING

    # What the stream says.

    def take(self, event: SubscribeResponse) -> None:
        """Takes in what the stream says."""
        match event.WhichOneof("event"):
            case "records":
                self._records(event.records)
            case "committed":
                self.commits.answered(event.committed)
                self._streams.wake()
            case "joined":
                self.member_id = event.joined.member_id
                self._token = event.joined.resume_token
                self._streams.wake()
                if not self.joined.done():
                    self.joined.set_result(None)
            case "assigned":
                self._assigned(event.assigned)
            case "revoking":
                self._revoking(event.revoking)
            case "sought":
                self._seeks.answered(event.sought)
            case _:
                # A heartbeat, or what a newer server says.
                return

    def _records(self, delivery: Delivery) -> None:
        self.inbox.charge(delivery.charged_bytes)
        data = delivery.data
        place = self.places.get(TopicPartition(data.topic, data.partition))
        if data.HasField("error"):
            # The server lets the partition rest, and goes on with it.
            error = from_status(data.error)
            _LOGGER.warning("partition %d of %r: %s", data.partition, data.topic, error)
            self.inbox.give_back(delivery.charged_bytes)
            return
        batches = place.take(data) if place is not None else []
        if place is None or not batches:
            self.inbox.give_back(delivery.charged_bytes)
            return
        for batch in batches[:-1]:
            self.inbox.put(Received(place, batch, 0))
        self.inbox.put(Received(place, batches[-1], delivery.charged_bytes))

    def _assigned(self, assigned: Assigned) -> None:
        self._owning |= {TopicPartition(each.topic, each.partition) for each in assigned.owned}
        gone: list[Place] = []
        if not assigned.more:
            owned, self._owning = self._owning, set()
            gone = [place for name, place in self.places.items() if name not in owned]
        fresh: list[Place] = []
        for each in assigned.added:
            known = self.places.get(TopicPartition(each.topic, each.partition))
            if known is not None and known.is_of(each):
                self._go_on(known, each)
                continue
            if known is not None:
                self._lose([known])
            place = Place(each)
            self.places[place.name] = place
            fresh.append(place)
        if gone:
            self._lose(gone)
        if fresh:
            self._chores.put_nowait(lambda: self._tell_assigned(fresh))
        # What waited for a word about its partition may go.
        self._streams.wake()

    def _go_on(self, place: Place, assigned: AssignedPartition) -> None:
        """The server has begun to read a partition that is here already."""
        is_new_stream = place.told is not Told.OWNED
        place.told = Told.OWNED
        place.topic_id = assigned.topic_id
        place.began = assigned.offset
        if place.is_leaving:
            # It stays, when the program has let go of it.
            return
        if is_new_stream and place.is_paused:
            self._streams.send(_pausing([place.name], paused=True))
        if place.seeking is not None:
            self._seeks.tell(place)
        elif assigned.reset and not is_new_stream:
            # What would have come next is not kept.
            place.skip(assigned.offset)
        elif assigned.offset != place.next_offset:
            # It begins at the commit, and we have more than that.
            self._seeks.go_back(place)

    async def _tell_assigned(self, fresh: Sequence[Place]) -> None:
        here = list(filter(self.holds, fresh))
        await self._program.assigned([place.name for place in here])
        for place in here:
            self.inbox.open(place)

    def _revoking(self, revoking: Revoking) -> None:
        names = [TopicPartition(each.topic, each.partition) for each in revoking.partitions]
        leaving: list[Place] = []
        gone: list[TopicPartition] = []
        for name in names:
            place = self.places.get(name)
            if place is None:
                gone.append(name)
                continue
            place.told = Told.REVOKING
            if not place.is_leaving:
                self._stop(place)
                leaving.append(place)
        if gone:
            self._streams.send(_revoked(gone))
        if leaving:
            self._chores.put_nowait(lambda: self._let_go(leaving))
        self._streams.wake()

    def _stop(self, place: Place) -> None:
        """Nothing more of a partition is handed over."""
        place.is_leaving = True
        self.inbox.purge(place)
        self._seeks.stop(place, _not_owned(place.name))

    async def _let_go(self, leaving: Sequence[Place]) -> None:
        await self._program.revoking(leaving)
        done: list[TopicPartition] = []
        staying: list[Place] = []
        for place in filter(self.holds, leaving):
            if place.told is Told.OWNED:
                staying.append(place)
                continue
            del self.places[place.name]
            if place.told is Told.REVOKING:
                done.append(place.name)
        if done:
            self._streams.send(_revoked(done))
        if staying:
            self._stay(staying)

    def _stay(self, places: Sequence[Place]) -> None:
        """The program has let go of these, and the server has left them here after all."""
        for place in places:
            place.is_leaving = place.is_open = place.is_paused = False
            place.rewind()
            self._seeks.go_back(place)
        self._chores.put_nowait(lambda: self._tell_assigned(places))

    def holds(self, place: Place) -> bool:
        """Whether this very ownership lasts; a later one of the same partition is another."""
        return self.places.get(place.name) is place

    def fenced(self, error: RakitError) -> None:
        """The session is over: the next stream begins a new one."""
        self._token = b""
        self.member_id = ""
        self.commits.drop(error)
        self._lose(list(self.places.values()))

    def _lose(self, places: Sequence[Place]) -> None:
        for place in places:
            self._stop(place)
            self.places.pop(place.name, None)
            self.commits.refuse([place.name], _not_owned(place.name))
        names = [place.name for place in places if place.is_open]
        if names:
            self._chores.put_nowait(lambda: self._program.lost(names))

    async def _do_chores(self) -> None:
        while True:
            chore = await self._chores.get()
            await chore()

    # What the program asks for.

    def commit_due(self) -> None:
        """There is something to commit."""
        self._streams.wake()

    def seek(self, name: TopicPartition, position: Position) -> asyncio.Future[int]:
        """Reads a partition from another place; the future is the offset that this is."""
        place = self._owned(name)
        done = self._seeks.ask(place, position)
        self.inbox.purge(place)
        return done

    def pause(self, names: Partitions, *, paused: bool) -> None:
        """Stops or goes on with partitions."""
        for name in names:
            self._owned(name).is_paused = paused
        self._streams.send(_pausing(names, paused=paused))

    def _owned(self, name: TopicPartition) -> Place:
        if self._ended is not None:
            raise self._ended.again()
        place = self.places.get(name)
        if place is None or place.is_leaving:
            raise _not_owned(name)
        return place

    def end(self, error: RakitError) -> None:
        """`run` is over: nobody answers any more."""
        self._ended = error
        self.commits.end(error)
        self._seeks.end(error)

    def leave(self) -> None:
        """Ends the membership: `run` returns when the server has heard of it."""
        self.is_leaving = True
        self._streams.send(SubscribeRequest(leave=LeaveRequest()))


def _wire(name: TopicPartition) -> WireTopicPartition:
    return WireTopicPartition(topic=name.topic, partition=name.partition)


def _revoked(names: Partitions) -> SubscribeRequest:
    return SubscribeRequest(revoked=RevokeDone(partitions=[_wire(name) for name in names]))


def _pausing(names: Partitions, *, paused: bool) -> SubscribeRequest:
    pause = PausePartitions(partitions=[_wire(name) for name in names], paused=paused)
    return SubscribeRequest(pause=pause)


def _not_owned(name: TopicPartition) -> RakitError:
    return make_error(
        "PARTITION_NOT_OWNED",
        f"this member does not own partition {name.partition} of {name.topic!r}",
        {"topic": name.topic, "partition": str(name.partition)},
    )
