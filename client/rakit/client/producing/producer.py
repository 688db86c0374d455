"""What users hold to append records: `Producer`.

`send()` puts a record into the open batch of its partition and returns a `Delivery` at once; it
waits only for memory, when too much is unacknowledged. Batches form by themselves while an earlier
one is on its way, so sending fast makes large batches and sending seldom costs no delay.

Where a record goes: to the partition that the caller names; else, with a key, to xxh3_64(key)
modulo the partition count, so that a key stays in order; else to one partition for a while and then
to the next, so that records without a key fill batches instead of spreading thinly.

Nearly every record finds a batch open that has room, in memory that nobody else needs, and calls
for nothing. That is known beforehand, as two distances in bytes: the producer's credit (`room`) and
the size to which the open batch may grow unattended (`lane`). `send()` compares with both and adds
the record; one that reaches either goes the long way, `_send_with_care()`, which asks everything.

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
from rakit.client.producing.room import Room
from rakit.client.records import HeaderPairs
from rakit.client.routing import key_hash

#: What comes together in the partition where records without a key go, before the next one gets
#: its turn: at least so much, and then until a batch has left or about so much.
UNKEYED_RUN_BYTES_MIN: Final = 64 << 10
UNKEYED_RUN_BYTES_MAX: Final = 1 << 20


class _TopicLanes:
    """The lanes of one topic, and whose turn it is among them."""

    __slots__ = ("_run_from_bytes", "_turn", "count", "lanes", "run_lane")

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes
        self.count = len(lanes)
        self._turn = 0
        # Where records without a key go, and what that lane had been given when its turn began.
        self.run_lane = lanes[0]
        self._run_from_bytes = 0

    def next_turn(self) -> Lane:
        """Passes on to the next lane and returns it."""
        self._turn = (self._turn + 1) % self.count
        self.run_lane = self.lanes[self._turn]
        self._run_from_bytes = self.run_lane.given_bytes
        return self.run_lane

    def for_run(self, size_bytes: int) -> Lane:
        """Returns the lane of a record without a key; passes on when the turn has been long."""
        run_bytes = self.run_lane.given_bytes - self._run_from_bytes + size_bytes
        if run_bytes > UNKEYED_RUN_BYTES_MIN and (
            self.run_lane.open is None or run_bytes > UNKEYED_RUN_BYTES_MAX
        ):
            return self.next_turn()
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
        self._room = Room(config.unacknowledged_bytes_max, config.unacknowledged_count_max)
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
        # Every batch ends by it and frees its room: who waits for some has a turn, and is told.
        await self._engine.close(error)
        self._topics.clear()
        # The caller wanted it so; it is no failure that a flush has to report.
        self._failures.close(error)

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
        lanes = self._topics.get(topic) or await self._opened(topic)
        if partition is not None:
            lane = lanes.named(topic, partition)
        elif key is not None:
            lane = lanes.lanes[key_hash(key) % lanes.count]
        else:
            lane = lanes.run_lane
        room, batch = self._room, lane.open
        if (
            batch is None
            or (size_bytes := batch.size_bytes + size) > lane.quiet_bytes
            or (credit_bytes := room.credit_bytes - size) <= 0
        ):
            if size > BATCH_BYTES_LIMIT:
                raise too_large(size)
            if key is None and partition is None:
                lane = lanes.for_run(size)
            return await self._send_with_care(
                lane, value, key, size, headers=headers, timestamp_ms=timestamp_ms
            )
        room.credit_bytes = credit_bytes
        room.count += 1
        batch.size_bytes = size_bytes
        # What Lane.append() does.
        values = batch.values
        delivery = Delivery()
        delivery.batch, delivery.index = batch, len(values)
        values.append(value)
        batch.keys.append(key)
        if headers:
            batch.headers[delivery.index] = headers
        if timestamp_ms is not None:
            batch.timestamps_ms[delivery.index] = timestamp_ms
        return delivery

    async def _send_with_care(
        self,
        lane: Lane,
        value: bytes | None,
        key: bytes | None,
        size: int,
        *,
        headers: HeaderPairs | None,
        timestamp_ms: int | None,
    ) -> Delivery:
        """Sends a record that reaches a limit, of whatever kind, and finds how far the next is."""
        room = self._room
        has_credit = size < room.credit_bytes
        if has_credit:
            room.credit_bytes -= size
            room.count += 1
        elif not room.take(size, 1):
            await self._wait_for_room(size, 1)
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
        lane.calm()
        if not has_credit and room.lend():
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
        self._check_open()
        if not self._room.take(size, count):
            await self._wait_for_room(size, count)
        try:
            # The encoder looks at every element: what is no bytes is found here.
            batch = Batch.of(columns, self._loop.time(), self._limits.codec)
        except BaseException:
            self._room.give_back(size, count)
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

    async def _wait_for_room(self, size_bytes: int, count: int) -> None:
        self._check_open()
        await self._room.wait(size_bytes, count)
        try:
            self._check_open()
        except RakitError:
            self._room.give_back(size_bytes, count)
            raise

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
        self._room.give_back(batch.size_bytes, batch.record_count)
