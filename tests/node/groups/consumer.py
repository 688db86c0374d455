"""A client of Subscribe as anybody would write it with nothing but generated stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio

from rakit.api.v1.group_service_pb2 import (
    CommitRequest,
    JoinGroup,
    OffsetCommit,
    RevokeDone,
    SubscribeRequest,
    SubscribeResponse,
)
from tests.node.groups.history import History
from tests.node.groups.world import short
from tests.node.services.served import Refusal, refusal_of

if TYPE_CHECKING:
    from rakit.api.v1.group_service_pb2_grpc import GroupServiceAsyncStub


class Stream:
    """One stream under way; the test decides what is sent."""

    def __init__(self, stub: GroupServiceAsyncStub, **join: Any) -> None:
        self.events: list[SubscribeResponse] = []
        self.refusal: Refusal | None = None
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()
        self.on_event: Callable[[SubscribeResponse], None] = lambda _: None
        self._requests: asyncio.Queue[SubscribeRequest | None] = asyncio.Queue()
        if join:
            self.send(join=JoinGroup(**join))
        self._call = stub.Subscribe(self._sent())
        self.task = asyncio.create_task(self._read())

    async def _sent(self) -> AsyncGenerator[SubscribeRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _read(self) -> None:
        try:
            async for event in self._call:
                self.events.append(event)
                self.on_event(event)
                self.changed.set()
        except grpc.aio.AioRpcError as error:
            with suppress(KeyError):
                self.refusal = refusal_of(error)
        finally:
            self.ended.set()
            self.changed.set()

    def send(self, **fields: Any) -> None:
        self._requests.put_nowait(SubscribeRequest(**fields))

    def finish(self) -> None:
        self._requests.put_nowait(None)

    @property
    def told(self) -> list[str]:
        return [short(each) for each in self.events]

    async def until(self, holds: Callable[[list[str]], bool], limit_s: float = 20.0) -> list[str]:
        """What was told, once it is what the test waits for."""
        try:
            async with asyncio.timeout(limit_s):
                while not holds(self.told):
                    assert not self.ended.is_set(), (self.told, self.refusal)
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(self.told) from None
        return self.told

    async def hears(self, *events: str) -> None:
        await self.until(lambda told: set(events) <= set(told))

    async def refused(self, limit_s: float = 20.0) -> Refusal:
        """How the stream was refused."""
        await asyncio.wait_for(self.ended.wait(), limit_s)
        assert self.refusal is not None, self.told
        return self.refusal

    @property
    def member_id(self) -> str:
        return self.events[0].joined.member_id

    @property
    def token(self) -> bytes:
        return self.events[0].joined.resume_token

    async def close(self) -> None:
        self._call.cancel()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class Consumer:
    """A member that processes what it gets, commits it, and goes on elsewhere when it must."""

    stubs: list[GroupServiceAsyncStub]
    history: History
    join: dict[str, Any]
    #: (partition, offset, value), as processed.
    seen: list[tuple[int, int, bytes]] = field(default_factory=list[tuple[int, int, bytes]])
    refusals: list[Refusal | None] = field(default_factory=list[Refusal | None])
    committed: dict[int, int] = field(default_factory=dict[int, int])
    owned: set[int] = field(default_factory=set[int])
    joins: int = 0
    events: list[str] = field(default_factory=list[str])
    #: False: takes records and does not commit.
    commits: bool = True
    stream: Stream | None = None
    _tag: int = 0
    _sent: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def start(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        token = b""
        at = 0
        while True:
            stub = self.stubs[at % len(self.stubs)]
            join = self.join | ({"resume_token": token} if token else {})
            stream = self.stream = Stream(stub, **join)
            stream.on_event = self._heard
            await stream.ended.wait()
            await stream.close()
            self.refusals.append(stream.refusal)
            self.owned.clear()
            if stream.events and stream.events[0].HasField("joined"):
                token = stream.token
            if stream.refusal is not None and stream.refusal.reason == "MEMBER_FENCED":
                token = b""
            at += 1
            await asyncio.sleep(0.05)

    @property
    def id(self) -> str:
        assert self.stream is not None
        return self.stream.member_id

    def _heard(self, event: SubscribeResponse) -> None:
        assert self.stream is not None
        self.history.heard(self.id, event)
        self.events.append(short(event))
        match event.WhichOneof("event"):
            case "joined":
                self.joins += 1
            case "assigned":
                self.owned = {each.partition for each in event.assigned.owned}
            case "records":
                data = event.records.data
                self.seen += [(data.partition, one.offset, one.value) for one in data.records]
                if self.commits and data.records:
                    self.commit(data.topic, data.partition, data.next_offset)
            case "committed":
                partition, offset = self._sent.pop(event.committed.tag)
                if not event.committed.HasField("error") and not event.committed.errors:
                    self.committed[partition] = offset
            case "revoking":
                partitions = event.revoking.partitions
                self.owned -= {each.partition for each in partitions}
                self.stream.send(revoked=RevokeDone(partitions=partitions))
            case _:
                pass

    def commit(self, topic: str, partition: int, offset: int) -> None:
        """Sends a commit, and does not wait for what becomes of it."""
        assert self.stream is not None
        self._tag += 1
        self._sent[self._tag] = partition, offset
        self.history.commits(self.id, self._tag, (topic, partition))
        one = OffsetCommit(topic=topic, partition=partition, offset=offset)
        self.stream.send(commit=CommitRequest(tag=self._tag, offsets=[one]))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if self.stream is not None:
            await self.stream.close()
