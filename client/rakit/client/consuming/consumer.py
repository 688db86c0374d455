"""What users hold to read as a member of a group: `GroupConsumer`.

The cluster gives each member its share of the partitions; this object hands their records over, one
by one or batch by batch, and commits what the program is through with. Records may come again after
a crash or a move of their partition, from the last commit on; none is left out.

Rules:

- The program is through with a record when it asks for the next one, or leaves `async with` without
  an error. That is what is committed by itself each `auto_commit_ms`, before a partition is let go
  of, and at the end. With `auto_commit_ms=None` nothing is committed but by `commit()`.
- A partition that moves elsewhere waits for the program to be through with what it has of it.
- Hooks run between records of the partitions that they are about, never beside each other.
- With an `instance_id` the membership outlives this object: leaving `async with` keeps its share
  for the next process of that name. Without, the member leaves at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1.log_service_pb2 import Position
from rakit.client.config import ClientConfig, GroupConfig
from rakit.client.connections import Connections
from rakit.client.consuming.commits import Outcome
from rakit.client.consuming.places import Place, Received, TopicPartition
from rakit.client.consuming.session import Partitions, Session, Subscription
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.records import Record, RecordBatch

Hook = Callable[[Partitions], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the program wants to hear of a rebalance."""

    #: These partitions are owned now; no record of them was handed over yet.
    assigned: Hook | None = None
    #: These are about to be let go of. The last moment for commits.
    revoking: Hook | None = None
    #: These went to others without asking, because the session had ended. Commits of them fail.
    lost: Hook | None = None


class GroupConsumer:
    """A member of a group. Made by `Client.group_consumer()`; use it as `async with`."""

    def __init__(
        self,
        connections: Connections,
        configs: tuple[ClientConfig, GroupConfig],
        wanted: Subscription,
        hooks: Hooks,
    ) -> None:
        self.group = wanted.group
        self._connections = connections
        self._configs = configs
        self._config = configs[1]
        self._wanted = wanted
        self._hooks = hooks
        self._session: Session
        self._tasks: list[asyncio.Task[None]] = []
        #: What the program has got and is not through with.
        self._held: Received | None = None
        self._let_go = asyncio.Event()
        self._is_drained = False

    async def __aenter__(self) -> Self:
        self._session = session = Session(self._connections, self._configs, self._wanted, self)
        running = asyncio.create_task(self._run(session))
        self._tasks.append(running)
        try:
            await asyncio.wait({running, session.joined}, return_when=asyncio.FIRST_COMPLETED)
            if not session.joined.done():
                # What ended it is what the program has to know.
                await session.inbox.get()
        except BaseException:
            await self._end()
            raise
        if self._config.auto_commit_ms is not None:
            self._tasks.append(asyncio.create_task(self._auto_commit(self._config.auto_commit_ms)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        running = self._tasks[0]
        try:
            if running.done():
                return
            if kind is None:
                self._settle()
            self._session.inbox.end()
            if self._config.auto_commit_ms is not None:
                await self._unless_ended(self._commit_last(list(self._session.places)))
            if not self._config.instance_id:
                self._session.leave()
                await asyncio.wait({running}, timeout=self._leave_s)
        finally:
            await self._end()

    @property
    def _leave_s(self) -> float:
        return self._configs[0].attempt_timeout_ms / 1000

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except asyncio.CancelledError:
            session.inbox.end(_closed())
            session.end(_closed())
            raise
        except Exception as failure:
            session.inbox.end(failure)
            session.end(failure if isinstance(failure, RakitError) else _closed())
        else:
            session.inbox.end()
            session.end(_closed())

    # Records.

    async def batches(self) -> AsyncGenerator[RecordBatch]:
        """Yields what comes, batch by batch: several times faster than record by record."""
        while (received := await self.take()) is not None:
            received.place.handed = received.batch.end_offset
            yield received.batch

    def __aiter__(self) -> AsyncIterator[Record]:
        return self.records()

    async def records(self) -> AsyncGenerator[Record]:
        """Yields record by record, as iterating over the consumer does."""
        while (received := await self.take()) is not None:
            for record in self.hand_over(received):
                yield record

    def hand_over(self, received: Received) -> Iterator[Record]:
        """Yields the records of what `take` returned, and notes how far the program is.

        With `take` for whoever iterates without asyncio.
        """
        place = received.place
        for record in received.batch:
            place.processed = place.handed
            place.handed = record.offset + 1
            yield record
            if place.is_leaving or self._held is not received or self._is_drained:
                # It is to be let go of, or the program went on elsewhere in it, or ends.
                return

    async def one(self) -> Record | None:
        """Returns the next record; None when the consumer is drained."""
        async with aclosing(self.records()) as records:
            async for record in records:
                return record
        return None

    async def take(self) -> Received | None:
        """Returns what is left of the batch in hand, else the next one; None at the end."""
        self._settle()
        held, self._held = self._held, None
        if held is not None:
            rest = held.batch.beginning_at(held.place.handed)
            if rest is not None and not held.place.is_leaving and not self._is_drained:
                self._held = Received(held.place, rest, held.charged_bytes)
                return self._held
            self._session.inbox.give_back(held.charged_bytes)
            self._let_go.set()
        self._held = await self._session.inbox.get()
        return self._held

    def _settle(self) -> None:
        """The program is through with what it was handed."""
        if self._held is not None:
            place = self._held.place
            place.processed = place.handed
            if place.is_leaving:
                self._session.inbox.give_back(self._held.charged_bytes)
                self._held = None
                self._let_go.set()

    def drain(self) -> None:
        """Hands nothing over any more: iterating ends when the program asks for the next record.

        For the end of a program; leaving `async with` then commits, and leaves the group.
        """
        self._is_drained = True
        self._session.inbox.end()

    # Commits.

    async def commit(
        self,
        through: Record | RecordBatch | None = None,
        *,
        offsets: Mapping[TopicPartition, int] | None = None,
    ) -> None:
        """Commits, and returns when that is replicated.

        By default everything that was handed over; with `through`, its partition up to and
        including it; with `offsets`, exactly these: the next offset of each partition. Raises
        NotOwnerError where a partition has gone to another member, which then begins at an earlier
        commit.
        """
        if isinstance(through, Record):
            name = TopicPartition(through.topic, through.partition)
            offsets = {name: through.offset + 1}
        elif through is not None:
            name = TopicPartition(through.topic, through.partition)
            offsets = {name: through.end_offset}
        elif offsets is None:
            places = self._session.places.values()
            offsets = {each.name: each.handed for each in places if each.handed > each.committed}
        for error in (await self._commit(offsets)).values():
            raise error

    async def _commit(
        self, offsets: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, RakitError]:
        return await self._ask(offsets)

    def _ask(self, offsets: Mapping[TopicPartition, int]) -> asyncio.Future[Outcome]:
        """Asks for commits; those that fail are asked for again with the next ones."""
        done = self._session.commits.add(offsets)
        for name, offset in offsets.items():
            if (place := self._session.places.get(name)) is not None:
                place.committed = offset
        done.add_done_callback(self._answered)
        self._session.commit_due()
        return done

    def _answered(self, done: asyncio.Future[Outcome]) -> None:
        if done.cancelled():
            return
        for name in done.result():
            if (place := self._session.places.get(name)) is not None:
                place.committed = -1

    async def _commit_last(self, names: Partitions) -> None:
        """Commits before these are let go of: nobody does it after that."""
        failures = 0
        while offsets := self._processed(names):
            errors = await self._commit(offsets)
            names = [name for name, error in errors.items() if error.retriable]
            if names:
                failures += 1
                await self._session.rest(failures)

    def _processed(self, names: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """What of these is to be committed by itself."""
        found = [place for name in names if (place := self._session.places.get(name)) is not None]
        return {each.name: each.processed for each in found if each.processed > each.committed}

    async def _auto_commit(self, every_ms: int) -> None:
        while True:
            await asyncio.sleep(every_ms / 1000)
            # Nobody waits for the answers: that of one partition, which the server has not spoken
            # of on a new stream, must not keep the others from being committed.
            places = self._session.places
            self._ask(self._processed(filter(self._session.may_commit, places)))

    # Rebalances; called by the session, one at a time.

    async def assigned(self, partitions: Partitions) -> None:
        """Tells the program."""
        if self._hooks.assigned is not None:
            await self._hooks.assigned(partitions)

    async def revoking(self, places: Sequence[Place]) -> None:
        """Waits until nothing of them is in hand, tells the program, commits."""
        while self._held is not None and self._held.place in places:
            self._let_go.clear()
            await self._let_go.wait()
        names = [place.name for place in filter(self._session.holds, places)]
        if not names:
            return
        if self._hooks.revoking is not None:
            await self._hooks.revoking(names)
        if self._config.auto_commit_ms is not None:
            await self._commit_last(names)

    async def lost(self, partitions: Partitions) -> None:
        """Tells the program."""
        if self._hooks.lost is not None:
            await self._hooks.lost(partitions)

    # What else the program may ask for.

    @property
    def member_id(self) -> str:
        """Who this is in the group."""
        return self._session.member_id

    @property
    def assignment(self) -> tuple[TopicPartition, ...]:
        """What is owned at the moment."""
        return tuple(
            sorted(name for name, place in self._session.places.items() if _is_here(place))
        )

    def positions(self) -> dict[TopicPartition, int]:
        """Returns the next offset to be handed over of each partition."""
        return {each.name: each.handed for each in self._session.places.values() if _is_here(each)}

    def lag(self) -> dict[TopicPartition, int]:
        """Records of each partition that are in the log and were not handed over.

        As of the newest records that came. `Admin.get_group` tells the lag of the whole group.
        """
        return {each.name: each.lag for each in self._session.places.values() if _is_here(each)}

    async def seek(
        self, topic: str, partition: int, to: Literal["earliest", "latest"] | int | datetime
    ) -> int:
        """Goes on elsewhere in a partition; returns the offset that this is.

        Raises NotOwnerError, and OffsetOutOfRangeError; the partition then stays where it was.
        """
        position = Position(topic=topic, partition=partition)
        match to:
            case "earliest":
                position.edge = log.EDGE_EARLIEST
            case "latest":
                position.edge = log.EDGE_LATEST
            case datetime():
                if to.tzinfo is None:
                    raise ValueError("a time to read from needs its time zone")
                position.time_ms = int(to.timestamp() * 1000)
            case _:
                position.offset = to
        name = TopicPartition(topic, partition)
        done = self._session.seek(name, position)
        self._drop_held(name)
        return await done

    def _drop_held(self, name: TopicPartition) -> None:
        """What is left of the batch in hand is from the old place."""
        if self._held is not None and self._held.place.name == name:
            self._session.inbox.give_back(self._held.charged_bytes)
            self._held = None
            self._let_go.set()

    def pause(self, *partitions: TopicPartition) -> None:
        """Gets no more records of these partitions, which are kept; those here still follow."""
        self._session.pause(partitions, paused=True)

    def resume(self, *partitions: TopicPartition) -> None:
        """Gets records of them again."""
        self._session.pause(partitions, paused=False)

    async def _unless_ended(self, work: Awaitable[object]) -> None:
        """Waits for something that the end of the membership makes impossible."""
        waiting = asyncio.ensure_future(work)
        running = self._tasks[0]
        done, _ = await asyncio.wait(
            {waiting, running}, return_when=asyncio.FIRST_COMPLETED, timeout=self._leave_s
        )
        if waiting in done:
            await waiting
        else:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def _is_here(place: Place) -> bool:
    return place.is_open and not place.is_leaving


def _closed() -> RakitError:
    return make_error(LocalReason.CLOSED, "the consumer was closed", maybe_applied=False)
