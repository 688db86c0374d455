"""Read: a server stream from positions to their ends, or for ever (contract 11, 17).

A session fetches from all of its positions at once, sends what it found, and goes on behind it. It
fetches again only when the client's transport has taken the last answer, so a client that does not
read holds one answer in memory and no more.

Rules:

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
from dataclasses import dataclass
from typing import Final

from rakit.api.v1.log_service_pb2 import PartitionEnd, Position, ReadHeartbeat, ReadRequest
from rakit.node.errors import RakitError, to_status
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, Found, ReadLimits, end_offset
from rakit.node.reading.render import Form, render
from rakit.node.routing import LEADER_WAIT_S, is_reroutable
from rakit.node.services.handlers import Stream
from rakit.node.services.offsets import OffsetLookup
from rakit.node.services.positions import RESPONSE_BYTES_MAX, check_positions
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData, OpaqueReadResponse

HEARTBEAT_S: Final = 5.0


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


class ReadSession:
    """One read stream."""

    def __init__(self, request: ReadRequest, stream: Stream, fetcher: Fetcher) -> None:
        check_positions(request.positions)
        self._follow = request.follow
        self._form = Form.of(request.layout, request.accept_codecs)
        self._stream = stream
        self._fetcher = fetcher
        self._readings: list[_Reading] = [_Reading(each) for each in request.positions]
        self._is_single = len(self._readings) == 1
        self._is_any_ended = False
        self._is_begun = False
        self._loop = asyncio.get_running_loop()
        self._heartbeat_at = 0.0

    async def run(self, lookup: OffsetLookup) -> None:
        """Serves the stream to its end."""
        if not self._follow:
            await self._fix_ends(lookup)
        # The first look does not wait: it is what turns every position into an offset. The
        # client's call has begun, in its initial metadata, when that is done.
        wait_until = self._loop.time()
        self._heartbeat_at = wait_until + HEARTBEAT_S
        while self._readings:
            for reading, finding in await self._look(wait_until):
                if isinstance(finding, RakitError):
                    await self._failed(reading, finding)
                else:
                    await self._send_found(reading, finding)
            if not self._is_begun and all(each.is_resolved for each in self._readings):
                self._is_begun = True
                await self._stream.begin()
            await self._send_ends()
            if self._loop.time() >= self._heartbeat_at:
                heartbeat = ReadHeartbeat(time_ms=int(time.time() * 1000))
                await self._write(OpaqueReadResponse(heartbeat=heartbeat))
            wait_until = self._heartbeat_at
            # Whoever was first takes the largest share of a full answer: take turns.
            self._readings = self._readings[1:] + self._readings[:1]

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

    async def _look(self, wait_until: float) -> list[tuple[_Reading, Finding]]:
        limits = ReadLimits(min_bytes=1, max_bytes=RESPONSE_BYTES_MAX, wait_until=wait_until)
        positions = [each.position for each in self._readings]
        findings = await self._fetcher.fetch(
            positions, limits, give_up=wait_until, lookup_until=self._loop.time() + LEADER_WAIT_S
        )
        return list(zip(self._readings, findings, strict=True))

    async def _send_found(self, reading: _Reading, found: Found) -> None:
        reading.lost_since = None
        data, _ = render(reading.position, found, self._form, RESPONSE_BYTES_MAX, at_least_one=True)
        reading.position.offset = max(data.next_offset, found.from_offset)
        if data.records or data.batches:
            await self._write(OpaqueReadResponse(data=data))

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

    async def _write(self, response: OpaqueReadResponse) -> None:
        self._is_begun = True
        await self._stream.write(response)
        self._heartbeat_at = self._loop.time() + HEARTBEAT_S
