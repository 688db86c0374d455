"""Offsets and producer states, asked of the leaders of partitions.

Both are answered by the leader after ReadIndex (S20, S21): "latest" below an offset that a client
has an acknowledgement for would send that client back. While a partition has no leader one is
waited for, as everywhere.

Rule: an answer leaves before the caller's deadline (`answer_by`), also when a barrier, a fence or
another node hangs. The caller's own timer would say less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import (
    GetProducerStateRequest,
    GetProducerStateResponse,
    PartitionOffsets,
    Position,
)
from rakit.node.errors import RakitError, from_status, to_status
from rakit.node.metadata.registry import TopicInfo
from rakit.node.partition.partition import Partition
from rakit.node.partitions import Partitions
from rakit.node.peers import Peers
from rakit.node.routing import Router, answer_by, give_up_at, is_reroutable, not_misled
from rakit.peer.v1.node_service_pb2 import (
    ForwardedOffsets,
    ForwardOffsetsRequest,
    ForwardOffsetsResponse,
    ForwardProducerStateRequest,
    ForwardProducerStateResponse,
)

AnswerT = TypeVar("AnswerT")


async def partition_offsets(
    partition: Partition, number: int, time_ms: int | None
) -> PartitionOffsets:
    """The readable range of a partition that this node leads."""
    offsets = await partition.offsets(time_ms)
    return PartitionOffsets(
        partition=number,
        earliest=offsets.earliest,
        latest=offsets.latest,
        at_time=offsets.at_time,
        size_bytes=offsets.size_bytes,
    )


async def forwarded_offsets(
    partitions: Partitions, request: ForwardOffsetsRequest
) -> list[ForwardedOffsets]:
    """The readable ranges of groups that this node leads, each with its own error."""
    time_ms = request.time_ms if request.HasField("time_ms") else None
    places = dict(zip(request.group_ids, request.from_offsets, strict=False))

    async def ask(group_id: int) -> ForwardedOffsets:
        try:
            partition = partitions.get(group_id)
            found = await partition_offsets(partition, 0, time_ms)
            place = places.get(group_id)
            at_ms = 0 if place is None else partition.append_time_at(place)
            return ForwardedOffsets(offsets=found, append_time_ms=at_ms)
        except RakitError as error:
            return ForwardedOffsets(error=to_status(error))

    return list(await asyncio.gather(*(ask(each) for each in request.group_ids)))


async def producer_state(
    partitions: Partitions, group_id: int, request: GetProducerStateRequest
) -> GetProducerStateResponse:
    """What a partition that this node leads knows of a producer's batch."""
    partition = partitions.get(group_id)
    fence = request.fence_epoch if request.HasField("fence_epoch") else None
    epoch = request.epoch if request.HasField("epoch") else None
    answer = await partition.producer_state(request.producer_id, request.sequence, fence, epoch)
    response = GetProducerStateResponse(
        state=answer.state,
        last_sequence=answer.last_sequence,
        epoch=answer.epoch,
        final=answer.final,
    )
    if answer.stored is not None:
        response.result.partition = request.partition
        partitions.stored_before(group_id, answer.stored).fill(response.result)
    return response


class OffsetLookup:
    """Asks leaders, here or elsewhere."""

    def __init__(self, router: Router, partitions: Partitions, peers: Peers) -> None:
        self._router = router
        self._partitions = partitions
        self._peers = peers

    async def offsets(
        self, topic: str, number: int, time_ms: int | None, deadline: float
    ) -> PartitionOffsets:
        """The readable range of one partition."""

        async def ask(node_id: int, group_id: int, left_s: float) -> PartitionOffsets:
            if node_id == self._router.node_id:
                return await partition_offsets(self._partitions.get(group_id), number, time_ms)
            request = ForwardOffsetsRequest(
                destination=self._peers.destination(node_id), group_ids=[group_id], time_ms=time_ms
            )
            response = await self._peers.call(
                node_id, "ForwardOffsets", request, ForwardOffsetsResponse, timeout_s=left_s
            )
            outcome = response.groups[0]
            if outcome.HasField("error"):
                raise from_status(outcome.error)
            outcome.offsets.partition = number
            return outcome.offsets

        return await self._at_leader(topic, number, deadline, ask)

    async def all_offsets(
        self, topic: TopicInfo, numbers: Sequence[int], time_ms: int | None, deadline: float
    ) -> list[PartitionOffsets]:
        """The readable ranges of partitions of the topic, with one question to each other node.

        What a node cannot answer, because a leader has moved, is asked for by itself.
        """
        by_node: dict[int, dict[int, int]] = {}
        for number in numbers:
            group_id = topic.partitions[number].group_id
            leader = self._router.known_leader(group_id)
            if leader is not None and leader.node_id != self._router.node_id:
                by_node.setdefault(leader.node_id, {})[group_id] = number
        asked = (self._ask_node(*item, time_ms, deadline) for item in by_node.items())
        found = {one.partition: one for ones in await asyncio.gather(*asked) for one in ones}
        missing = [number for number in numbers if number not in found]
        singly = (self.offsets(topic.name, number, time_ms, deadline) for number in missing)
        found |= dict(zip(missing, await asyncio.gather(*singly), strict=True))
        return [found[number] for number in numbers]

    async def _ask_node(
        self, node_id: int, groups: dict[int, int], time_ms: int | None, deadline: float
    ) -> list[PartitionOffsets]:
        request = ForwardOffsetsRequest(
            destination=self._peers.destination(node_id), group_ids=groups, time_ms=time_ms
        )
        try:
            response = await self._peers.call(
                node_id,
                "ForwardOffsets",
                request,
                ForwardOffsetsResponse,
                timeout_s=answer_by(deadline) - asyncio.get_running_loop().time(),
            )
        except RakitError as error:
            if not is_reroutable(error):
                raise
            return []
        found: list[PartitionOffsets] = []
        for number, outcome in zip(groups.values(), response.groups, strict=True):
            if not outcome.HasField("error"):
                outcome.offsets.partition = number
                found.append(outcome.offsets)
        return found

    async def latest(self, position: Position, deadline: float) -> int:
        """One past the last committed record."""
        found = await self.offsets(position.topic, position.partition, None, deadline)
        return found.latest

    async def producer_state(
        self, request: GetProducerStateRequest, deadline: float
    ) -> GetProducerStateResponse:
        """What became of a batch. With fence_epoch this is a mutation."""
        mutates = request.HasField("fence_epoch")

        async def ask(node_id: int, group_id: int, left_s: float) -> GetProducerStateResponse:
            if node_id == self._router.node_id:
                return await producer_state(self._partitions, group_id, request)
            forwarded = ForwardProducerStateRequest(
                destination=self._peers.destination(node_id), group_id=group_id, request=request
            )
            response = await self._peers.call(
                node_id,
                "ForwardProducerState",
                forwarded,
                ForwardProducerStateResponse,
                timeout_s=left_s,
                mutates=mutates,
            )
            return response.response

        return await self._at_leader(
            request.topic, request.partition, deadline, ask, mutates=mutates
        )

    async def _at_leader(
        self,
        topic: str,
        number: int,
        deadline: float,
        ask: Callable[[int, int, float], Awaitable[AnswerT]],
        *,
        mutates: bool = False,
    ) -> AnswerT:
        """Asks the leader, and again while that was not possible and there is time."""
        loop = asyncio.get_running_loop()
        give_up = give_up_at(deadline)
        while True:
            _, place = await self._router.partition(topic, number, give_up)
            leader = await self._router.leader(topic, place, give_up)
            until = answer_by(deadline)
            try:
                async with asyncio.timeout_at(until):
                    return await ask(leader.node_id, place.group_id, until - loop.time())
            except TimeoutError:
                raise late(mutates=mutates) from None
            except RakitError as error:
                again = is_reroutable(error)
                if not again or not await self._router.look_again(place.group_id, leader, give_up):
                    raise not_misled(error, topic, number) from None


def late(*, mutates: bool = False) -> RakitError:
    """What a caller is told whose deadline came before the leader's answer."""
    if mutates:
        return RakitError(
            error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
            "The fence was proposed and its commit was not known before the deadline: it may or may"
            " not be in force.",
        )
    return RakitError(
        error_pb2.ERROR_REASON_NO_QUORUM,
        "The partition's leader did not answer, with a majority behind it, before the deadline.",
    )
