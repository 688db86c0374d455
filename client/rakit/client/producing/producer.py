"""What users hold to append records: `Producer`.

`send()` puts a record into the open batch of its partition and returns a `Delivery` at once; it
waits only for memory, when too much is unacknowledged. Batches form by themselves while an earlier
one is on its way, so sending fast makes large batches and sending seldom costs no delay.

Where a record goes: to the partition that the caller names; else, with a key, to xxh3_64(key)
modulo the partition count, so that a key stays in order; else to one partition for a while and then
to the next, so that records without a key fill batches instead of spreading thinly.

Idempotent by default: every batch is numbered, so however often it is sent it is stored once, and
the batches of a partition are stored in the order in which they were sent.

Rules:

- The order of `send()` calls, of all tasks, is the order in a partition, whatever fails in between.
  Calls that have to wait, for the topic to be known or for room, are served in their order, and
  nobody passes one that was served and whose task has not run yet.
- A failed delivery does not stop later records. Await deliveries, or call `flush()`, which raises
  the first failure that nobody heard of, or wait for it in `failure()`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from rakit.api.v1.log_service_pb2 import InitProducerRequest
from rakit.client import tracing
from rakit.client.config import BATCH_BYTES_LIMIT, ClientConfig, ProducerConfig
from rakit.client.connections import Connections, is_cancelled
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.metadata import Metadata
from rakit.client.producing.batch import Batch, Delivery
from rakit.client.producing.engine import Engine, Identity
from rakit.client.producing.failures import Failures
from rakit.client.producing.intake import (
    RECORD_OVERHEAD_BYTES,
    check_time,
    checked_headers,
    columns_of,
    headers_bytes,
    length,
    too_large,
)
from rakit.client.producing.lane import Lane, LaneLimits
from rakit.client.records import HeaderPairs
from rakit.client.routing import key_hash

#: What records without a key put into one partition before the next one gets its turn: at least so
#: much, and then until a batch has left or so much has come together.
UNKEYED_RUN_BYTES_MIN: Final = 64 << 10
UNKEYED_RUN_BYTES_MAX: Final = 1 << 20
#: `send()` lets other tasks run after so much, even if there is room for more.
YIELD_EVERY_BYTES: Final = 32 << 10


class _TopicLanes:
    """The lanes of one topic, and whose turn it is among them."""

    __slots__ = ("_turn", "count", "lanes", "run_bytes", "run_lane")

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes
        self.count = len(lanes)
        self._turn = 0
        # Where records without a key go, and how much has gone there in this turn.
        self.run_lane = lanes[0]
        self.run_bytes = 0

    def next_turn(self) -> Lane:
        """Passes on to the next lane and returns it."""
        self._turn = (self._turn + 1) % self.count
        self.run_lane = self.lanes[self._turn]
        return self.run_lane

    def named(self, topic: str, partition: int) -> Lane:
        """Returns the lane that the caller named."""
        if not 0 <= partition < self.count:
            raise make_error(
                "UNKNOWN_PARTITION",
                f"topic {topic!r} has partitions 0 to {self.count - 1}, not {partition}",
                {"topic": topic, "partition": str(partition)},
            )
        return self.lanes[partition]


@dataclass(slots=True, eq=False)
class _Opening:
    """Calls that wait for a topic to be known. The lock serves them in their order."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting_count: int = 0
    # Asks about the topic, on behalf of all of them; what comes of it is shared.
    task: asyncio.Task[_TopicLanes | RakitError] | None = None
    outcome: _TopicLanes | RakitError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """Somebody who waits for room."""

    size_bytes: int
    count: int
    come: asyncio.Future[None]


class Producer:
    """Appends records to topics. Made by `Client.producer()`; use it as `async with`."""

    def __init__(
        self,
        connections: Connections,
        metadata: Metadata,
        client_config: ClientConfig,
        config: ProducerConfig,
    ) -> None:
        self._connections = connections
        self._metadata = metadata
        self._config = config
        self._engine: Engine
        self._client_config = client_config
        self._limits = LaneLimits(
            config.batch_bytes_max,
            config.batch_count_max,
            config.in_flight_batches_max,
            config.linger_ms / 1000,
            config.idempotent,
            config.compression,
        )
        # Topics that nobody waits for any more.
        self._topics: dict[str, _TopicLanes] = {}
        self._openings: dict[str, _Opening] = {}
        self._bytes_max = config.unacknowledged_bytes_max
        self._count_max = config.unacknowledged_count_max
        # What was taken and is not acknowledged.
        self._bytes = 0
        self._count = 0
        self._room: deque[_Turn] = deque()
        # Calls that wait for room, or have got it and have not run since.
        self._waiting_count = 0
        # Other tasks have their turn when so much is not acknowledged: a distance from `_bytes`.
        self._yield_at_bytes = YIELD_EVERY_BYTES
        self._failures = Failures()
        #: Adds the trace of the moment to headers; None in a program that does not trace.
        self._trace: tracing.Injector | None = None
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        identity = await self._init_producer()
        self._engine = Engine(
            self._connections,
            self._metadata,
            (self._client_config, self._config),
            self._batch_finished,
        )
        self._engine.identity = identity
        self._trace = tracing.injector()
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Closes at once. Records that are not acknowledged may or may not be stored."""
        if not self._is_open:
            return
        self._is_open = False
        for opening in self._openings.values():
            if opening.task is not None:
                opening.task.cancel()
        error = make_error(
            LocalReason.CLOSED, "the producer was closed before this was acknowledged"
        )
        await self._engine.close(error)
        self._topics.clear()
        # The caller wanted it so; it is no failure that a flush has to report.
        self._failures.close(error)
        self._grant()

    async def _init_producer(self) -> Identity:
        if not self._config.idempotent:
            return Identity()
        name = self._config.name
        # After a broken call it is asked again; an id that nobody heard of fences nobody.
        answer = await self._connections.call(
            lambda stubs: stubs.log.InitProducer, InitProducerRequest(producer_name=name)
        )
        return Identity(answer.producer_id, answer.epoch, is_known_name=bool(name))

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        headers: HeaderPairs | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Hands a record over and returns what to await for its `Receipt`.

        Waits while too much is unacknowledged. Raises TypeError and ValueError for what is no
        record, InvalidRequestError for more than a topic can take, NotFoundError for a topic or
        partition that does not exist, and ClosedError. Once a newer producer of the same name has
        taken over, the delivery ends with ProducerFencedError, or this call where it has to wait.
        """
        # This runs once per record: nothing here is done that only few records need, and what is
        # short stands in line, because a call takes as long as ten operations.
        size = RECORD_OVERHEAD_BYTES
        if value is not None:
            size += len(value) if type(value) is bytes else length("value", value)
        if key is not None:
            size += len(key) if type(key) is bytes else length("key", key)
        if self._trace is not None:
            headers = self._trace(headers)
        if headers:
            headers = checked_headers(headers)
            size += headers_bytes(headers)
        if timestamp_ms is not None:
            check_time(timestamp_ms)
        if size > BATCH_BYTES_LIMIT:
            raise too_large(size)
        lanes = self._topics.get(topic) or await self._opened(topic)
        if partition is not None:
            lane = lanes.named(topic, partition)
        elif key is not None:
            lane = lanes.lanes[key_hash(key) % lanes.count]
        else:
            lane, run_bytes = lanes.run_lane, lanes.run_bytes + size
            if run_bytes > UNKEYED_RUN_BYTES_MIN and (
                lane.open is None or run_bytes > UNKEYED_RUN_BYTES_MAX
            ):
                lane, run_bytes = lanes.next_turn(), size
            lanes.run_bytes = run_bytes
        taken_bytes = self._bytes + size
        if self._waiting_count or taken_bytes > self._bytes_max or self._count >= self._count_max:
            await self._take_room(size, 1)
            taken_bytes = self._bytes
        else:
            self._bytes = taken_bytes
            self._count += 1
        delivery = lane.append(value, key, size)
        batch, index = delivery.batch, delivery.index
        if headers:
            batch.headers[index] = headers
        if timestamp_ms is not None:
            batch.timestamps_ms[index] = timestamp_ms
        if batch.size_bytes > lane.trigger_bytes:
            self._engine.wake(lane)
        if not index and self._limits.linger_s:
            self._engine.wake_in(lane, batch, self._limits.linger_s)
        if taken_bytes >= self._yield_at_bytes:
            self._yield_at_bytes = taken_bytes + YIELD_EVERY_BYTES
            await asyncio.sleep(0)
        return delivery

    async def send_batch(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        *,
        headers: Sequence[HeaderPairs] | None = None,
        timestamps_ms: Sequence[int] | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Hands one batch over, which is stored in one partition together or not at all.

        The fast way for many records: nothing is done per record. `keys`, `headers` and
        `timestamps_ms` are as long as `values`. Without `partition` the partitions take turns; with
        keys it must be named, because a key belongs to one partition (see `partition_for`). The
        delivery's receipt spans the batch. Raises what send() raises.
        """
        if keys is not None and partition is None:
            raise ValueError(
                "a batch with keys needs the partition; send() puts records where keys belong"
            )
        columns = columns_of(values, keys, headers, timestamps_ms)
        size, count = columns.size_bytes, len(columns.values)
        if size > BATCH_BYTES_LIMIT:
            raise too_large(size)
        lanes = self._topics.get(topic) or await self._opened(topic)
        lane = lanes.next_turn() if partition is None else lanes.named(topic, partition)
        await self._take_room(size, count)
        try:
            # The encoder looks at every element: what is no bytes is found here.
            batch = Batch.of(columns, self._loop.time(), self._limits.codec)
        except BaseException:
            self._give_back(size, count)
            raise
        lane.append_batch(batch)
        self._engine.wake(lane)
        await asyncio.sleep(0)
        return Delivery.of(batch)

    async def flush(self) -> None:
        """Waits until everything sent so far is acknowledged or has failed.

        Raises the first failure since the last flush of a delivery that nobody awaits or awaited.
        """
        sent: list[Batch] = []
        for lane in self._engine.lanes if self._is_open else ():
            lane.seal_open()
            if batches := lane.sealed:
                sent += batches
                self._engine.wake(lane)
        for batch in sent:
            await batch.wait()
        error = self._failures.first_unheard()
        self._failures.forget()
        if error is not None:
            raise error.again()

    async def failure(self) -> RakitError:
        """Waits for the first failure that nobody awaits, and returns it.

        For whoever sends without awaiting deliveries and does not want to go on until `flush()`,
        which still raises it. Raises ClosedError when the producer is closed meanwhile.
        """
        return (await self._failures.until_unheard()).again()

    async def _opened(self, topic: str) -> _TopicLanes:
        """Returns the lanes of a topic to those who came before they were known, in order."""
        opening = self._openings.setdefault(topic, _Opening())
        opening.waiting_count += 1
        try:
            async with opening.lock:
                self._check_open()
                if opening.outcome is None:
                    opening.task = asyncio.create_task(self._open_topic(topic))
                    opening.outcome = await opening.task
                    self._check_open()
                if isinstance(opening.outcome, RakitError):
                    raise opening.outcome.again()
                return opening.outcome
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # abort() does not wait for the answer.
            raise self._closed() from None
        finally:
            opening.waiting_count -= 1
            if not opening.waiting_count:
                del self._openings[topic]
                if isinstance(opening.outcome, _TopicLanes) and self._is_open:
                    self._topics[topic] = opening.outcome

    async def _open_topic(self, topic: str) -> _TopicLanes | RakitError:
        try:
            found = await self._metadata.topic(topic)
            self._metadata.follow(topic)
            lanes = [
                Lane(topic, each.partition, self._limits, self._loop.time, self._engine.spoiled)
                for each in found.partitions
            ]
            await self._engine.add_lanes(lanes)
        except RakitError as error:
            return error
        return _TopicLanes(lanes)

    def _fits(self, size_bytes: int, count: int) -> bool:
        # One that is larger than all room is taken when nothing else is there.
        return not self._count or (
            self._bytes + size_bytes <= self._bytes_max and self._count + count <= self._count_max
        )

    async def _take_room(self, size_bytes: int, count: int) -> None:
        """Counts records as unacknowledged; waits for room, behind those who wait already."""
        self._check_open()
        if not self._waiting_count and self._fits(size_bytes, count):
            self._bytes += size_bytes
            self._count += count
            return
        turn = _Turn(size_bytes, count, self._loop.create_future())
        self._room.append(turn)
        self._waiting_count += 1
        try:
            await turn.come
            self._check_open()
        except BaseException:
            # Cancelled, closed or fenced: whether the turn had come or not, it is not used.
            if turn in self._room:
                self._room.remove(turn)
            else:
                self._give_back(size_bytes, count)
            raise
        finally:
            self._waiting_count -= 1
            self._grant()

    def _give_back(self, size_bytes: int, count: int) -> None:
        """Frees room that was taken for records, by whatever end they had."""
        self._bytes -= size_bytes
        self._count -= count
        self._yield_at_bytes -= size_bytes
        self._grant()

    def _grant(self) -> None:
        """Counts for those whose turn has come, and wakes them, first come first served."""
        while self._room and (
            not self._is_open or self._fits(self._room[0].size_bytes, self._room[0].count)
        ):
            turn = self._room.popleft()
            self._bytes += turn.size_bytes
            self._count += turn.count
            if not turn.come.done():
                turn.come.set_result(None)

    def _check_open(self) -> None:
        if not self._is_open:
            raise self._closed()
        if self._engine.fatal is not None:
            raise self._engine.fatal.again()

    def _closed(self) -> RakitError:
        return make_error(
            LocalReason.CLOSED,
            "the producer is not open: use it as `async with client.producer() as producer`",
            maybe_applied=False,
        )

    def _batch_finished(self, batch: Batch) -> None:
        if isinstance(batch.outcome, RakitError):
            self._failures.add(batch)
        self._give_back(batch.size_bytes, batch.record_count)
