"""Batches from a service to a leader, here or on another node, and the answer back.

`Dispatch` is one attempt: to the partition on this node, or down the link to another one.
`ProducePath` is the whole of a single request: find the leader, try, and where nothing was applied
and the leader has moved, try again until the request's time is up.

Rules:

- A request is forwarded at most one hop; the receiver never passes it on (S22).
- Only NOT_APPLIED leads to another attempt. A request without a producer stamp would otherwise be
  stored twice by this node's own doing.
- Bytes that were taken from clients and have no answer yet are bounded for the whole node.

Left out: order between requests. `forwarding.lanes` has it, for streams.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProducerStamp
from rakit.multiraft.leaders import LeaderInfo
from rakit.node.errors import RakitError
from rakit.node.forwarding.intact import sent_crc32c
from rakit.node.forwarding.link import ForwardLink
from rakit.node.metadata.registry import PartitionInfo
from rakit.node.partition.answers import (
    Appended,
    DoomedAnswer,
    GatheredAnswer,
    not_proposed,
    refusal_too_late,
)
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.routing import Router, answer_by, give_up_at, is_reroutable, not_misled
from rakit.peer.v1.node_service_pb2 import ForwardedBatch

#: Of all clients of this node together, taken and not yet answered.
IN_FLIGHT_BYTES_MAX: Final = 256 << 20
IN_FLIGHT_COUNT_MAX: Final = 65_536


class LocalAppend(Protocol):
    """The partitions of this node."""

    def append(
        self,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        gather: bool,
    ) -> asyncio.Future[Appended]:
        """Appends to a partition that this node leads; raises RakitError otherwise.

        With `gather` it may wait for others and share an entry with them.
        """
        ...


class InFlight:
    """What the whole node has taken from clients and not answered."""

    def __init__(
        self, bytes_max: int = IN_FLIGHT_BYTES_MAX, count_max: int = IN_FLIGHT_COUNT_MAX
    ) -> None:
        self._bytes_max = bytes_max
        self._count_max = count_max
        self.size_bytes = 0
        self.count = 0

    def check(self) -> None:
        """Raises THROTTLED when the node holds too much to begin with another request."""
        if self.count > self._count_max or self.size_bytes > self._bytes_max:
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                "This node holds as many unanswered requests as it may; wait and try again.",
                {"limit": str(self._bytes_max), "retry_delay_ms": "100"},
            )

    def take(self, size_bytes: int) -> None:
        """Counts a request in."""
        self.size_bytes += size_bytes
        self.count += 1

    def give(self, size_bytes: int, count: int = 1) -> None:
        """Counts requests out."""
        self.size_bytes -= size_bytes
        self.count -= count
        assert self.size_bytes >= 0, "nothing is answered twice"


class Dispatch:
    """One attempt to append a batch, at the leader that is given."""

    def __init__(
        self, node_id: int, local: LocalAppend, make_link: Callable[[int], ForwardLink]
    ) -> None:
        self._node_id = node_id
        self._local = local
        self._make_link = make_link
        self._links: dict[int, ForwardLink] = {}
        self._lanes = itertools.count(1)

    def new_lane(self) -> int:
        """A number for an order of batches, unique on this node's streams."""
        return next(self._lanes)

    def send(
        self,
        node_id: int,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        lane: int = 0,
        restart: bool = False,
    ) -> asyncio.Future[Appended]:
        """Appends here or sends the batch to the leader; raises RakitError, or the future does."""
        if node_id == self._node_id:
            return self._local.append(group_id, batch, stamp, expected_offset, gather=not lane)
        forwarded = ForwardedBatch(
            lane=lane,
            restart=restart,
            group_id=group_id,
            record_count=batch.record_count,
            content=bytes(batch.content),
            compressed=batch.compressed,
            content_crc32c=batch.crc32c,
            sent_crc32c=sent_crc32c(group_id, batch),
            expected_offset=expected_offset,
            producer=None if stamp is None else _stamp_message(stamp),
        )
        return self._link(node_id).send(forwarded)

    def end_lane(self, lane: int, node_ids: set[int]) -> None:
        """Tells the nodes that a lane was used on that it is over."""
        for node_id in node_ids:
            if link := self._links.get(node_id):
                link.end_lane(lane)

    def _link(self, node_id: int) -> ForwardLink:
        link = self._links.get(node_id)
        if link is None:
            link = self._links[node_id] = self._make_link(node_id)
        return link

    async def close(self) -> None:
        """Ends every link."""
        for link in self._links.values():
            await link.close()


def _stamp_message(stamp: Stamp) -> ProducerStamp:
    return ProducerStamp(
        producer_id=stamp.producer_id,
        epoch=stamp.epoch,
        sequence=stamp.sequence,
        previous_sequence=stamp.previous_sequence,
    )


class ProducePath:
    """A single request, from its batch to its answer."""

    def __init__(self, router: Router, dispatch: Dispatch) -> None:
        self._router = router
        self._dispatch = dispatch

    async def append(
        self,
        topic: str,
        number: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        deadline: float,
        leader_only_listener: str | None = None,
    ) -> Appended:
        """Appends the batch. With `leader_only_listener` NOT_LEADER replaces forwarding."""
        give_up = give_up_at(deadline)
        while True:
            # Looked up anew each time: the topic may have been deleted and made again meanwhile.
            _, place = await self._router.partition(topic, number, give_up)
            leader = await self._leader(topic, place, give_up)
            if leader_only_listener is not None and leader.node_id != self._router.node_id:
                raise self._router.not_leader(topic, number, leader, leader_only_listener)
            try:
                answer = self._dispatch.send(
                    leader.node_id, place.group_id, batch, stamp, expected_offset
                )
                return await answered(answer, deadline)
            except RakitError as error:
                again = is_reroutable(error)
                if again and await self._router.look_again(place.group_id, leader, give_up):
                    continue
                if leader_only_listener is not None:
                    raise
                raise not_misled(error, topic, number) from None

    async def _leader(self, topic: str, place: PartitionInfo, give_up: float) -> LeaderInfo:
        try:
            return await self._router.leader(topic, place, give_up)
        except RakitError as no_leader:
            # It may have no leader because the topic is gone: that is said only if it is certain.
            try:
                await self._router.confirmed_topic(topic, give_up)
            except RakitError as error:
                if error.reason != error_pb2.ERROR_REASON_NO_QUORUM:
                    raise
            raise no_leader from None


async def answered(answer: asyncio.Future[Appended], deadline: float) -> Appended:
    """The outcome, or what is known of it shortly before the caller's own timer says less.

    Nobody else may wait for the answer: when the time is up, that becomes its error. So it can be
    told from a caller that goes away without `asyncio.timeout`, which costs three times as much.
    """
    timer = answer.get_loop().call_at(answer_by(deadline), _time_is_up, answer)
    try:
        return await answer
    except TimeoutError:
        if isinstance(answer, GatheredAnswer) and not answer.is_judged:
            raise not_proposed() from None
        if isinstance(answer, DoomedAnswer | GatheredAnswer) and answer.doom is not None:
            raise refusal_too_late(answer.doom) from None
        raise RakitError(
            error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
            "The batch was proposed and its commit was not known before the deadline: it may or may"
            " not be stored.",
        ) from None
    finally:
        timer.cancel()
        # It holds the error that holds this frame, and cycles live long here.
        del answer


def _time_is_up(answer: asyncio.Future[Appended]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
