"""The receiving end of forwarded batches: appends them here, answers when they are committed.

Rules:

- Batches are appended in the order of the stream, each in one synchronous step, so a leader sees
  them in the order in which the other node sent them.
- In a lane nothing passes a failure: after one batch was refused or lost, the later ones are
  refused with EARLIER_REQUEST_FAILED until one says `restart`. A lane that this stream does not
  know has failed somewhere else: on the stream before this one, which broke. Its outcomes are told
  in its order also where the failure itself takes a while (`DoomedAnswer`), because the sender
  tries again only what follows a failure that it knows.
- Answers gather: one message carries every outcome that is there when the previous message has
  left. That a message was taken is told along with outcomes, or after `TAKEN_DELAY_S` without any,
  so that the sender's window does not hang on a partition without a quorum.
- The stream is read no further while `in_flight_bytes_max` wait for their commit; the sender's
  window then fills up, and in the end the client is told to wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError, to_status
from rakit.node.forwarding.intact import check_intact
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.produce import LocalAppend
from rakit.peer.v1.node_service_pb2 import (
    ForwardedBatch,
    ForwardedOutcome,
    ForwardProduceRequest,
    ForwardProduceResponse,
)

#: How long an otherwise empty answer waits for an outcome to travel with: about one commit.
TAKEN_DELAY_S: Final = 0.002
#: Of one peer, received and not yet committed or refused.
IN_FLIGHT_BYTES_MAX: Final = 64 << 20


def earlier_failed() -> RakitError:
    """What every later batch of a lane is told after a failure."""
    return RakitError(
        error_pb2.ERROR_REASON_EARLIER_REQUEST_FAILED,
        "An earlier request of this stream for the same partition failed; send a restart message"
        " to go on.",
    )


@dataclass(slots=True)
class _LaneState:
    """One order of batches, from its beginning or its last restart on."""

    is_broken: bool = False
    # The batch that broke it, where its error is still to come.
    doomed: DoomedAnswer | None = None


class ForwardReceiver:
    """One stream of forwarded batches from one peer."""

    def __init__(self, local: LocalAppend) -> None:
        self._local = local
        self._lanes: dict[int, _LaneState] = {}
        self._outcomes: list[ForwardedOutcome] = []
        self._taken_number = 0
        self._told_number = 0
        self._in_flight_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def lane_count(self) -> int:
        """How many orders are known."""
        return len(self._lanes)

    async def room(self) -> None:
        """Waits until another message may be taken."""
        await self._room.wait()

    def take(self, request: ForwardProduceRequest) -> None:
        """Appends what the message carries."""
        for batch in request.batches:
            self._take_one(batch)
        # Last: the message may hold the last batches of a lane that ends with it.
        for lane in request.ended_lanes:
            self._lanes.pop(lane, None)
        self._taken_number = request.number
        self._changed.set()

    async def answer(self) -> ForwardProduceResponse:
        """The next message for the peer, as soon as there is something to tell."""
        while not self._outcomes and self._told_number == self._taken_number:
            self._changed.clear()
            await self._changed.wait()
        if not self._outcomes:
            await self._outcome_or_delay()
        outcomes, self._outcomes = self._outcomes, []
        self._told_number = self._taken_number
        return ForwardProduceResponse(taken_number=self._taken_number, outcomes=outcomes)

    async def _outcome_or_delay(self) -> None:
        try:
            async with asyncio.timeout(TAKEN_DELAY_S):
                while not self._outcomes:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _take_one(self, batch: ForwardedBatch) -> None:
        lane, tag = self._lane(batch), batch.tag
        if lane.doomed is not None:
            lane.doomed.add_done_callback(lambda _: self._failed(tag, lane, earlier_failed()))
            return
        try:
            if lane.is_broken:
                raise earlier_failed()
            check_intact(batch)
            answer = self._local.append(
                batch.group_id,
                Batch(batch.content, batch.compressed, batch.record_count, batch.content_crc32c),
                _stamp(batch),
                batch.expected_offset if batch.HasField("expected_offset") else None,
                gather=not batch.lane,
            )
        except RakitError as error:
            self._failed(tag, lane, error)
            return
        if isinstance(answer, DoomedAnswer):
            lane.is_broken, lane.doomed = True, answer
        size = len(batch.content)
        self._in_flight_bytes += size
        if self._in_flight_bytes > IN_FLIGHT_BYTES_MAX:
            self._room.clear()
        answer.add_done_callback(lambda done: self._done(tag, lane, size, done))

    def _lane(self, batch: ForwardedBatch) -> _LaneState:
        """The order that the batch stands in; without one, an order of its own."""
        if not batch.lane:
            return _LaneState()
        if batch.restart:
            # What is under way from before keeps the old state: its failure comes too late to
            # concern what follows the restart.
            self._lanes[batch.lane] = _LaneState()
        return self._lanes.get(batch.lane) or _LaneState(is_broken=True)

    def _done(self, tag: int, lane: _LaneState, size: int, done: asyncio.Future[Appended]) -> None:
        self._in_flight_bytes -= size
        if self._in_flight_bytes <= IN_FLIGHT_BYTES_MAX:
            self._room.set()
        error = None if done.cancelled() else done.exception()
        if error is not None or done.cancelled():
            assert isinstance(error, RakitError), f"an append ended with {error!r}"
            self._failed(tag, lane, error)
            return
        outcome = ForwardedOutcome(tag=tag)
        done.result().fill(outcome.result)
        self._outcomes.append(outcome)
        self._changed.set()

    def _failed(self, tag: int, lane: _LaneState, error: RakitError) -> None:
        lane.is_broken = True
        self._outcomes.append(ForwardedOutcome(tag=tag, error=to_status(error)))
        self._changed.set()


def _stamp(batch: ForwardedBatch) -> Stamp | None:
    if not batch.HasField("producer"):
        return None
    stamp = batch.producer
    previous = stamp.previous_sequence if stamp.HasField("previous_sequence") else None
    return Stamp(stamp.producer_id, stamp.epoch, stamp.sequence, previous)
