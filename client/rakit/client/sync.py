"""The client for programs without asyncio. No second implementation: the same objects, elsewhere.

    with Client("127.0.0.1:7070") as client, client.producer() as producer:
        print(producer.send("orders", b"one bicycle", key=b"customer-7").result())

A `Client` runs an event loop on a thread of its own, and every method here hands its call to that
loop and waits. Iterating crosses over once for each batch, so reading is as fast as with asyncio;
so is `send_batch`. A `send()` costs a crossing for each record, some tens of microseconds.

Rules:

- Objects of one client may be used from several threads; one reader or consumer from one at a time.
- Hooks of a group run on the loop's thread and are asynchronous; they must not call back into this
  module.
- Ctrl-C interrupts the wait, and the call is cancelled.
- Closing the client ends every wait, in whatever thread; it and each later call raise ClosedError.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar

from rakit.client import client as asynchronous
from rakit.client.admin import Admin as AsyncAdmin
from rakit.client.config import ClientConfig, GroupConfig, ProducerConfig, ReaderConfig
from rakit.client.consuming.consumer import GroupConsumer as AsyncGroupConsumer
from rakit.client.consuming.consumer import Hooks
from rakit.client.consuming.places import TopicPartition
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.model import Receipt
from rakit.client.producing.batch import Delivery as AsyncDelivery
from rakit.client.producing.producer import Producer as AsyncProducer
from rakit.client.reading.reader import Reader as AsyncReader
from rakit.client.records import HeaderPairs, Record, RecordBatch

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


class _Loop:
    """An event loop on a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Between a call and the end: whatever was handed over before is cancelled by it.
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="rakit client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_all())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, _R], timeout_s: float | None = None) -> _R:
        """Runs a coroutine there and waits for it. Raises ClosedError when the loop ends."""
        with self._lock:
            if self._is_closed:
                work.close()
                raise _closed(maybe_applied=False)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError:
            if self._is_closed:
                raise _closed(maybe_applied=True) from None
            raise
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], _R]) -> _R:
        """Runs a function there and waits for it."""

        async def run() -> _R:
            return function()

        return self.wait(run())

    def close(self) -> None:
        """Cancels what is under way and ends the thread. Once more does no harm."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def is_closed(self) -> bool:
        """Nothing can be called any more."""
        return self._is_closed


async def _cancel_all() -> None:
    """Ends every other task, also those that the end of others begins."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _closed(*, maybe_applied: bool) -> RakitError:
    return make_error(LocalReason.CLOSED, "the client was closed", maybe_applied=maybe_applied)


class _Facade(Generic[_T]):
    """An object of the asynchronous client, and where it lives."""

    def __init__(self, loop: _Loop, inner: _T) -> None:
        self.loop = loop
        #: The asynchronous object; only its loop may use it.
        self.inner = inner


def _waits(
    method: Callable[Concatenate[_T, _P], Awaitable[_R]],
) -> Callable[Concatenate[_Facade[_T], _P], _R]:
    """The method, as one that waits."""

    @functools.wraps(method)
    def call(facade: _Facade[_T], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        async def run() -> _R:
            return await method(facade.inner, *args, **kwargs)

        return facade.loop.wait(run())

    return call


class Admin(_Facade[AsyncAdmin]):
    """What `Client.admin` offers; see `rakit.client.admin`."""

    create_topic = _waits(AsyncAdmin.create_topic)
    get_topic = _waits(AsyncAdmin.get_topic)
    list_topics = _waits(AsyncAdmin.list_topics)
    update_topic = _waits(AsyncAdmin.update_topic)
    delete_topic = _waits(AsyncAdmin.delete_topic)
    get_cluster = _waits(AsyncAdmin.get_cluster)
    get_offsets = _waits(AsyncAdmin.get_offsets)
    get_digest = _waits(AsyncAdmin.get_digest)
    transfer_leadership = _waits(AsyncAdmin.transfer_leadership)
    list_groups = _waits(AsyncAdmin.list_groups)
    get_group = _waits(AsyncAdmin.get_group)
    delete_group = _waits(AsyncAdmin.delete_group)
    commit_offsets = _waits(AsyncAdmin.commit_offsets)
    reset_offsets = _waits(AsyncAdmin.reset_offsets)


class Delivery(_Facade[AsyncDelivery]):
    """What became of a record, or of a batch."""

    def result(self, timeout_s: float | None = None) -> Receipt:
        """Waits for the receipt; raises what failed, or TimeoutError."""

        async def run() -> Receipt:
            return await self.inner

        return self.loop.wait(run(), timeout_s)


class _Entered(_Facade[_T]):
    """Something that is entered and left."""

    def __enter__(self) -> Self:
        self.loop.wait(self.inner.__aenter__())  # type: ignore[attr-defined]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.wait(self.inner.__aexit__(kind, error, traceback))  # type: ignore[attr-defined]


class Producer(_Entered[AsyncProducer]):
    """Appends records; see `rakit.client.producing.producer`."""

    flush = _waits(AsyncProducer.flush)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        headers: HeaderPairs | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Hands a record over; `result()` of what it returns waits for the receipt."""
        work = self.inner.send(
            topic, value, key, headers=headers, timestamp_ms=timestamp_ms, partition=partition
        )
        return Delivery(self.loop, self.loop.wait(work))

    def send_batch(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        *,
        headers: Sequence[HeaderPairs] | None = None,
        timestamps_ms: Sequence[int] | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Hands one batch over, which is stored together or not at all."""
        work = self.inner.send_batch(
            topic, values, keys, headers=headers, timestamps_ms=timestamps_ms, partition=partition
        )
        return Delivery(self.loop, self.loop.wait(work))


class Reader(_Entered[AsyncReader]):
    """Reads a topic; see `rakit.client.reading.reader`. Iterate over it for records."""

    def batches(self) -> Iterator[RecordBatch]:
        """Yields what is read, batch by batch."""
        batches = self.inner.batches()
        try:
            while (batch := self.loop.wait(_next(batches))) is not None:
                yield batch
        finally:
            self.loop.wait(batches.aclose())

    def __iter__(self) -> Iterator[Record]:
        for batch in self.batches():
            yield from batch

    def positions(self) -> dict[int, int]:
        """Returns the next offset of each partition; a batch counts when the next is asked for."""
        return self.loop.call(self.inner.positions)


async def _next(batches: Any) -> RecordBatch | None:
    return await anext(batches, None)


class GroupConsumer(_Entered[AsyncGroupConsumer]):
    """A member of a group; see `rakit.client.consuming.consumer`. Iterate over it for records."""

    commit = _waits(AsyncGroupConsumer.commit)
    seek = _waits(AsyncGroupConsumer.seek)

    def __iter__(self) -> Iterator[Record]:
        while (received := self.loop.wait(self.inner.take())) is not None:
            yield from self.inner.hand_over(received)

    def batches(self) -> Iterator[RecordBatch]:
        """Yields what comes, batch by batch."""
        while (received := self.loop.wait(self.inner.take())) is not None:
            received.place.handed = received.batch.end_offset
            yield received.batch

    def drain(self) -> None:
        """Hands nothing over any more: iterating ends when the program asks for the next record."""
        self.loop.call(self.inner.drain)

    @property
    def member_id(self) -> str:
        """Who this is in the group."""
        return self.inner.member_id

    @property
    def assignment(self) -> tuple[TopicPartition, ...]:
        """What is owned at the moment."""
        return self.loop.call(lambda: self.inner.assignment)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Records of each partition that are in the log and were not handed over."""
        return self.loop.call(self.inner.lag)

    def pause(self, *partitions: TopicPartition) -> None:
        """Gets no more records of these partitions, which are kept."""
        self.loop.call(lambda: self.inner.pause(*partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """Gets records of them again."""
        self.loop.call(lambda: self.inner.resume(*partitions))


class Client:
    """A cluster, as seen from here; see `rakit.client.client`."""

    def __init__(self, bootstrap: str | ClientConfig | None = None) -> None:
        self._loop = _Loop()
        try:
            self._inner = self._loop.call(lambda: asynchronous.Client(bootstrap))
        except BaseException:
            self._loop.close()
            raise
        self.admin = Admin(self._loop, self._inner.admin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread. Close producers and readers before.

        Other threads that wait for something of this client get ClosedError.
        """
        if self._loop.is_closed:
            return
        try:
            self._loop.wait(self._inner.close())
        finally:
            self._loop.close()

    def producer(self, config: ProducerConfig | None = None) -> Producer:
        """Returns a producer, to be used as `with`."""
        return Producer(self._loop, self._loop.call(lambda: self._inner.producer(config)))

    def reader(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        from_: Literal["earliest", "latest"] | int | datetime | Mapping[int, int] = "earliest",
        *,
        follow: bool = False,
        config: ReaderConfig | None = None,
    ) -> Reader:
        """Returns a reader of a topic's partitions, to be used as `with`."""
        inner = self._loop.call(
            lambda: self._inner.reader(topic, partitions, from_, follow=follow, config=config)
        )
        return Reader(self._loop, inner)

    def group_consumer(
        self,
        group: str,
        topics: Sequence[str] = (),
        *,
        patterns: Sequence[str] = (),
        from_: Literal["earliest", "latest"] = "earliest",
        hooks: Hooks | None = None,
        config: GroupConfig | None = None,
    ) -> GroupConsumer:
        """Returns a member of a group, to be used as `with`."""
        inner = self._loop.call(
            lambda: self._inner.group_consumer(
                group, topics, patterns=patterns, from_=from_, hooks=hooks, config=config
            )
        )
        return GroupConsumer(self._loop, inner)
