"""Read: a server stream from positions to their ends, or for ever (contract 11, 17).

A session fetches from all of its positions at once, sends what it found, and goes on behind it. It
fetches again only when the client's transport has taken the last answer, so a client that does not
read holds one answer in memory and no more. What all such clients hold together is bounded by
`reading.budget`.

Rules:

- A session that is behind the log asks for room first, and looks then; what it finds is turned into
  bytes, and everything else is let go of, before it is written.
- At the end of the log it waits without room. A few records that come are sent as they are, where
  there is room at once; when there are more it is behind.
- Without `follow`, a position without an end gets the end of its log at the time of the call.
- A position that fails is reported and dropped while others go on; where it was the only one, or
  all fail, the call fails with that error.
- A partition without a leader is waited for, `LEADER_WAIT_S` long, while the others go on.
- The initial metadata is sent when every position has become an offset: a follower of "latest"
  that has seen it gets whatever is appended from then on.
- After `HEARTBEAT_S` without anything to send there is a heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rakit.api.v1.log_service_pb2 import PartitionEnd, Position, ReadHeartbeat, ReadRequest
from rakit.node.errors import RakitError, to_status
from rakit.node.partition.wire import heading
from rakit.node.reading.budget import Lease, ReadBudget
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, ReadLimits, end_offset
from rakit.node.reading.render import Form, rendered
from rakit.node.routing import LEADER_WAIT_S, RETRY_PAUSE_S, is_reroutable
from rakit.node.services.handlers import Stream
from rakit.node.services.offsets import OffsetLookup
from rakit.node.services.positions import check_positions
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData, OpaqueReadResponse

_DATA: Final = OpaqueReadResponse.DATA_FIELD_NUMBER
HEARTBEAT_S: Final = 5.0
#: What a session that waits takes along without having asked for room.
WAITING_BYTES: Final = 64 << 10


@dataclass(slots=True)
class _Reading:
    """One position and how far it was read."""

    position: Position
    # Since when it has no leader, on the loop's clock.
    lost_since: float | None = None

    @property
    def is_resolved(self) -> bool:
        """It is an offset by now, whatever it began as."""
        return self.position.WhichOneof("start") == "offset"

    @property
    def is_ended(self) -> bool:
        """Everything up to its end was sent."""
        end = end_offset(self.position)
        return end is not None and self.is_resolved and self.position.offset >= end


@dataclass(slots=True)
class _Step:
    """What one look comes to."""

    # The position, where it goes on, and the serialised answer.
    answers: deque[tuple[_Reading, int, bytes]] = field(
        default_factory=deque[tuple[_Reading, int, bytes]]
    )
    failures: list[tuple[_Reading, RakitError]] = field(
        default_factory=list[tuple[_Reading, RakitError]]
    )
    size_bytes: int = 0
    # There is more in the log than this.
    is_behind: bool = False


class ReadSession:
    """One read stream."""

    def __init__(
        self, request: ReadRequest, stream: Stream, fetcher: Fetcher, budget: ReadBudget
    ) -> None:
        check_positions(request.positions)
        self._follow = request.follow
        self._form = Form.of(request.layout, request.accept_codecs)
        self._stream = stream
        self._fetcher = fetcher
        self._budget = budget
        self._readings: list[_Reading] = [_Reading(each) for each in request.positions]
        self._is_single = len(self._readings) == 1
        self._is_any_ended = False
        self._is_begun = False
        # The first look does not wait: it is what turns every position into an offset.
        self._is_behind = True
        # What the next answer needs at least, where that is known.
        self._needed_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._heartbeat_at = 0.0

    async def run(self, lookup: OffsetLookup) -> None:
        """Serves the stream to its end."""
        if not self._follow:
            await self._fix_ends(lookup)
        self._heartbeat_at = self._loop.time() + HEARTBEAT_S
        while self._readings:
            if self._is_behind:
                await self._read_on()
            else:
                await self._wait()
            # The call has begun, in its initial metadata, when every position is an offset.
            if not self._is_begun and self._is_resolved:
                self._is_begun = True
                await self._stream.begin()
            await self._send_ends()
            await self._beat()
            # Whoever was first takes the largest share of a full answer: take turns.
            self._readings = self._readings[1:] + self._readings[:1]

    @property
    def _is_resolved(self) -> bool:
        """Every position has become an offset."""
        return all(each.is_resolved for each in self._readings)

    async def _read_on(self) -> None:
        """Sends what stands at the positions, as much as there is room for."""
        with self._budget.ask(self._needed_bytes) as lease:
            while not lease.given.is_set():
                await self._until_given(lease)
            limits = ReadLimits(1, lease.size_bytes, wait_until=self._loop.time())
            step = self._step(await self._look(limits), limits)
            if lease.has_room(step.size_bytes):
                self._needed_bytes = 0
                lease.keep(step.size_bytes)
                await self._send(step, lease)
            else:
                # One batch that is larger, or became so: once more, with what it takes.
                self._needed_bytes = step.size_bytes

    async def _until_given(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout_at(self._heartbeat_at):
                await lease.given.wait()
        except TimeoutError:
            await self._beat()

    async def _wait(self) -> None:
        """Waits for records, and sends them where they are few."""
        until = self._heartbeat_at
        if not self._is_resolved:
            # A leader was missing, or not ready yet: its answer is not news to the others, and the
            # caller waits for the beginning of the call.
            until = min(until, self._loop.time() + RETRY_PAUSE_S)
        limits = ReadLimits(1, WAITING_BYTES, wait_until=until, at_least_one=False)
        step = self._step(await self._look(limits), limits)
        lease = self._budget.ask_now(step.size_bytes) if step.answers else None
        if lease is not None:
            with lease:
                await self._send(step, lease)
        else:
            self._is_behind = step.is_behind or bool(step.answers)
            step.answers.clear()
            await self._send(step, None)

    async def _fix_ends(self, lookup: OffsetLookup) -> None:
        """Gives every position without an end the present end of its log."""
        deadline = self._loop.time() + LEADER_WAIT_S

        async def fix(reading: _Reading) -> RakitError | None:
            try:
                reading.position.end_offset = await lookup.latest(reading.position, deadline)
            except RakitError as error:
                return error
            return None

        endless = [each for each in self._readings if end_offset(each.position) is None]
        errors = await asyncio.gather(*map(fix, endless))
        for reading, error in zip(endless, errors, strict=True):
            if error is not None:
                await self._drop(reading, error)

    async def _look(self, limits: ReadLimits) -> list[tuple[_Reading, Finding]]:
        positions = [each.position for each in self._readings]
        findings = await self._fetcher.fetch(
            positions,
            limits,
            give_up=limits.wait_until,
            lookup_until=self._loop.time() + LEADER_WAIT_S,
        )
        return list(zip(self._readings, findings, strict=True))

    def _step(self, looked: list[tuple[_Reading, Finding]], limits: ReadLimits) -> _Step:
        """Turns what was found into bytes; it need not be kept any more."""
        step = _Step()
        for reading, finding in looked:
            if isinstance(finding, RakitError):
                step.failures.append((reading, finding))
                continue
            reading.lost_since = None
            answer = rendered(
                reading.position,
                finding,
                self._form,
                limits.max_bytes - step.size_bytes,
                at_least_one=limits.at_least_one and not step.answers,
            )
            reached = max(answer.next_offset, finding.from_offset)
            if answer.is_empty:
                reading.position.offset = reached
            else:
                before = heading(_DATA, sum(map(len, answer.pieces)))
                step.answers.append((reading, reached, b"".join((before, *answer.pieces))))
                step.size_bytes += answer.size_bytes
            end = end_offset(reading.position)
            last = finding.chunk.high_watermark
            step.is_behind |= reached < (last if end is None else min(last, end))
        return step

    async def _send(self, step: _Step, lease: Lease | None) -> None:
        if lease is not None:
            self._is_behind = step.is_behind
        for reading, error in step.failures:
            await self._failed(reading, error)
        while step.answers:
            assert lease is not None, "an answer is made with the room for it"
            reading, reached, answer = step.answers.popleft()
            reading.position.offset = reached
            self._is_begun = True
            await lease.write(self._stream, answer)
            self._heartbeat_at = self._loop.time() + HEARTBEAT_S

    async def _failed(self, reading: _Reading, error: RakitError) -> None:
        now = self._loop.time()
        if is_reroutable(error):
            reading.lost_since = reading.lost_since or now
            if now - reading.lost_since < LEADER_WAIT_S:
                return
        await self._drop(reading, error)

    async def _drop(self, reading: _Reading, error: RakitError) -> None:
        """Reports a position that failed; the call fails where it was the only one."""
        error.metadata.setdefault("topic", reading.position.topic)
        error.metadata.setdefault("partition", str(reading.position.partition))
        if self._is_single:
            raise error
        data = OpaquePartitionData(
            topic=reading.position.topic,
            partition=reading.position.partition,
            error=to_status(error),
        )
        await self._write(OpaqueReadResponse(data=data))
        self._readings = [each for each in self._readings if each is not reading]
        if not self._readings and not self._is_any_ended:
            raise error

    async def _send_ends(self) -> None:
        for reading in [each for each in self._readings if each.is_ended]:
            end = PartitionEnd(
                topic=reading.position.topic,
                partition=reading.position.partition,
                next_offset=reading.position.offset,
            )
            await self._write(OpaqueReadResponse(end=end))
            self._is_any_ended = True
        self._readings = [each for each in self._readings if not each.is_ended]

    async def _beat(self) -> None:
        """Shows that the stream is alive, where nothing else has for a while."""
        if self._loop.time() >= self._heartbeat_at:
            heartbeat = ReadHeartbeat(time_ms=int(time.time() * 1000))
            await self._write(OpaqueReadResponse(heartbeat=heartbeat))

    async def _write(self, response: OpaqueReadResponse) -> None:
        self._is_begun = True
        await self._stream.write(response)
        self._heartbeat_at = self._loop.time() + HEARTBEAT_S
