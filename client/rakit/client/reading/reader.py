"""What users hold to read records: `Reader`.

A reader resolves its start to offsets once, opens one stream per leader, and goes on at the next
offset whatever happens to streams, nodes and leaders. It yields every record of a partition once
and in order; between partitions there is no order.

Rules:

- What was received and not consumed is bounded in bytes: a slow consumer slows its streams down.
- An error that a retry may cure is retried, on another node too, for as long as the reader lives or
  `retry_timeout_ms` says; any other, of whatever kind, is raised to the consumer, after what was
  received before it.
- Iterating ends without an error only when every partition was read to its end.
- Leaders are a short cut, not a need: every node serves reads by asking the leader.
"""

from __future__ import annotations

import asyncio
import operator
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self, cast

from rakit.api.v1.log_service_pb2 import GetOffsetsRequest
from rakit.client.config import ClientConfig, ReaderConfig
from rakit.client.connections import Connections, is_nodes_fault
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.freed_memory import keep_freed_memory
from rakit.client.metadata import Metadata
from rakit.client.model import Offsets
from rakit.client.reading.progress import From, Progress, begin, time_of
from rakit.client.reading.source import POSITIONS_COUNT_MAX, stream
from rakit.client.records import Record, RecordBatch

#: Partitions of one stream that fail together begin anew together; the pause grows up to this
#: power.
_BACKOFF_STEPS_MAX: Final = 10


class _Buffer:
    """Batches between the streams and the consumer, bounded in bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._batches: deque[RecordBatch] = deque()
        self._changed = asyncio.Event()
        self._is_ended = False
        self._error: Exception | None = None

    async def put(self, batch: RecordBatch) -> None:
        """Waits for room. One batch is always taken, however large."""
        while self._batches and self._bytes + batch.size_bytes > self._bytes_max:
            await self._wait()
        self._batches.append(batch)
        self._bytes += batch.size_bytes
        self._changed.set()

    def end(self, error: Exception | None) -> None:
        """Nothing follows. The consumer gets the error after what is here."""
        self._is_ended = True
        self._error = error
        self._changed.set()

    async def get(self) -> RecordBatch | None:
        """Returns the next batch, None at the end; raises what ended the reading."""
        while not self._batches:
            if self._is_ended:
                if self._error is not None:
                    raise (
                        self._error.again() if isinstance(self._error, RakitError) else self._error
                    )
                return None
            await self._wait()
        batch = self._batches.popleft()
        self._bytes -= batch.size_bytes
        self._changed.set()
        return batch

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Reader:
    """Reads a topic's partitions. Made by `Client.reader()`; use it as `async with`.

    Iterate over it for records, or over `batches()` for whole columns, which is several times
    faster.
    """

    def __init__(
        self,
        connections: Connections,
        metadata: Metadata,
        topic: str,
        what: tuple[Sequence[int] | None, From, bool],
        configs: tuple[ClientConfig, ReaderConfig],
    ) -> None:
        self.topic = topic
        self._connections = connections
        self._metadata = metadata
        self._partitions = what[0]
        self._from: From = what[1]
        self._follow = what[2]
        self._client_config = configs[0]
        self._config = configs[1]
        self._progress: dict[int, Progress] = {}
        # Where the consumer stands, which is behind what has been received.
        self._consumed: dict[int, int] = {}
        # What the consumer has got and may not be through with; the offsets that are left of it
        # where it takes record by record.
        self._in_hand: RecordBatch | None = None
        self._left: Iterator[int] | None = None
        self._buffer: _Buffer
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        time_ms = time_of(self._from)
        request = GetOffsetsRequest(
            topic=self.topic, partitions=self._partitions or (), time_ms=time_ms
        )
        answer = await self._connections.call(lambda stubs: stubs.log.GetOffsets, request)
        ranges = [Offsets.from_message(each) for each in answer.partitions]
        self._progress = begin(self.topic, self._from, ranges, follow=self._follow)
        self._consumed = {each.partition: each.next_offset for each in self._progress.values()}
        self._buffer = _Buffer(self._config.buffer_bytes_max)
        keep_freed_memory(self._config.buffer_bytes_max)
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    def positions(self) -> dict[int, int]:
        """Returns the next offset of each partition, to go on from there later.

        Everything below has been handed to the consumer. A record counts as read when it is handed
        over: ask once you are through with it. A batch of `batches()` counts when the next one is
        asked for, because it may be left half way: whoever stops there gets it again. So a reader
        that begins at these positions may repeat, and never skips.
        """
        self._count_singles()
        return dict(self._consumed)

    async def batches(self) -> AsyncGenerator[RecordBatch]:
        """Yields what is read, batch by batch; goes on where an iteration before was left."""
        assert self._runner is not None, "use it as `async with client.reader(...) as reader`"
        while (batch := await self._next()) is not None:
            self._in_hand = batch
            yield batch
            self._consumed[batch.partition] = batch.end_offset

    async def __aiter__(self) -> AsyncIterator[Record]:
        async with aclosing(self.batches()) as batches:
            async for batch in batches:
                self._left = offsets = batch.offsets()
                for record in batch.numbered(offsets):
                    yield record

    def _count_singles(self) -> None:
        """Notes how far the batch in hand has been handed over record by record.

        This is found out when somebody asks: a note for each record takes a tenth of its time.
        """
        if self._in_hand is not None and self._left is not None:
            self._consumed[self._in_hand.partition] = (
                self._in_hand.end_offset - operator.length_hint(self._left)
            )

    async def _next(self) -> RecordBatch | None:
        """What is left of the batch in hand, else the next one."""
        self._count_singles()
        batch, self._in_hand, self._left = self._in_hand, None, None
        rest = batch.beginning_at(self._consumed[batch.partition]) if batch is not None else None
        return await self._buffer.get() if rest is None else rest

    async def _run(self) -> None:
        """Reads to the end, and lets the consumer know how that came, however it came."""
        try:
            await self._read_all()
        except asyncio.CancelledError:
            self._buffer.end(_closed())
            raise
        except Exception as failure:
            self._buffer.end(_first(failure))
        else:
            # A stream whose client is closed is cancelled, and its task ends without an error.
            self._buffer.end(_closed() if self._unfinished() else None)

    async def _read_all(self) -> None:
        """Keeps a stream open for every partition that is not at its end."""
        await self._metadata.topic(self.topic)
        self._metadata.follow(self.topic)
        async with asyncio.TaskGroup() as tasks:
            for group in self._by_leader(self._unfinished()):
                tasks.create_task(self._read(group))

    def _unfinished(self) -> list[Progress]:
        return [each for each in self._progress.values() if not each.is_at_end]

    def _by_leader(self, wanted: Sequence[Progress]) -> list[list[Progress]]:
        groups: dict[str, list[Progress]] = {}
        for each in wanted:
            leader = self._metadata.leader_address(self.topic, each.partition)
            groups.setdefault(leader, []).append(each)
        return [
            group[at : at + POSITIONS_COUNT_MAX]
            for group in groups.values()
            for at in range(0, len(group), POSITIONS_COUNT_MAX)
        ]

    async def _read(self, wanted: list[Progress]) -> None:
        """Reads some partitions to their end, over as many streams as it takes."""
        now_s = asyncio.get_running_loop().time
        # Attempts without a sign of life, in a row, and when the first of them failed.
        failures, failing_since_s = 0, 0.0
        while wanted:
            leader, address = self._leader(wanted[0]), self._address(wanted[0])
            try:
                stubs = self._connections.stubs(address)
                async with aclosing(stream(stubs, wanted, follow=self._follow)) as answers:
                    async for batches in answers:
                        failures = 0
                        for batch in batches:
                            await self._buffer.put(batch)
                        if self._leader(wanted[0]) not in {leader, ""}:
                            # The one that leads now serves without a detour.
                            break
            except RakitError as error:
                failures += 1
                failing_since_s = now_s() if failures == 1 else failing_since_s
                if not error.retriable or self._is_too_long(now_s() - failing_since_s):
                    raise
                if is_nodes_fault(error):
                    self._connections.failed(address)
                failed = error.number("partition")
                partition = wanted[0].partition if failed is None else failed
                self._metadata.learn_leader(error, self.topic, partition)
            else:
                self._connections.served(address)
            wanted = [each for each in wanted if not each.is_at_end]
            if wanted:
                await self._pause(failures)

    def _is_too_long(self, failing_s: float) -> bool:
        timeout_ms = self._config.retry_timeout_ms
        return timeout_ms is not None and failing_s * 1000 >= timeout_ms

    def _leader(self, first: Progress) -> str:
        return self._metadata.leader_address(self.topic, first.partition)

    def _address(self, first: Progress) -> str:
        leader = self._leader(first)
        if leader and not self._connections.is_avoided(leader):
            return leader
        return self._connections.pick()

    async def _pause(self, failures: int) -> None:
        config = self._client_config
        pause_ms = config.backoff_ms * 2 ** min(failures, _BACKOFF_STEPS_MAX)
        await asyncio.sleep(min(pause_ms, config.backoff_ms_max) / 1000 * random.uniform(0.5, 1))
        await self._metadata.refresh_quietly(self.topic)


def _first(failure: Exception) -> Exception:
    """What failed in a group of tasks."""
    while isinstance(failure, ExceptionGroup):
        failure = cast("ExceptionGroup[Exception]", failure).exceptions[0]
    return failure


def _closed() -> RakitError:
    text = "the reader was closed before everything was read"
    return make_error(LocalReason.CLOSED, text, maybe_applied=False)
