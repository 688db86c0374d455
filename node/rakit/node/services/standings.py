"""How far a partition reaches, and since when a reader who stands somewhere in it is waiting.

What a lag is made of: the readable range (linearizable, as GetOffsets has it) and when the record
at the reader's place was appended. Each node is asked once for all partitions that it leads. A
partition without a leader is an error of its own at once: whoever wants to know a lag is not made
to wait for an election.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from rakit.node.errors import RakitError, from_status
from rakit.node.metadata.registry import TopicInfo
from rakit.node.partitions import Partitions
from rakit.node.peers import Peers
from rakit.node.routing import Router, answer_by, no_leader
from rakit.node.services.offsets import forwarded_offsets, late
from rakit.peer.v1.node_service_pb2 import (
    ForwardedOffsets,
    ForwardOffsetsRequest,
    ForwardOffsetsResponse,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """One partition, seen from a place in it."""

    earliest: int
    latest: int
    #: When the record at the place was appended, or the first one kept; 0: there is none.
    append_time_ms: int


class Standings:
    """Asks the leaders, here or elsewhere."""

    def __init__(self, router: Router, partitions: Partitions, peers: Peers) -> None:
        self._router = router
        self._partitions = partitions
        self._peers = peers

    async def of(
        self, topic: TopicInfo, places: Mapping[int, int], deadline: float
    ) -> dict[int, Standing | RakitError]:
        """By partition, for a place in each."""
        found: dict[int, Standing | RakitError] = {}
        by_node: dict[int, list[int]] = {}
        for number in places:
            leader = self._router.known_leader(topic.partitions[number].group_id)
            if leader is None:
                found[number] = no_leader(topic.name, number)
            else:
                by_node.setdefault(leader.node_id, []).append(number)

        async def ask(node_id: int, numbers: list[int]) -> None:
            request = ForwardOffsetsRequest(
                destination=self._peers.destination(node_id),
                group_ids=[topic.partitions[number].group_id for number in numbers],
                from_offsets=[places[number] for number in numbers],
            )
            try:
                answers = await self._ask(node_id, request, deadline)
            except RakitError as error:
                found.update(dict.fromkeys(numbers, error))
            else:
                found.update(zip(numbers, map(_standing, answers), strict=True))

        await asyncio.gather(*(ask(*each) for each in by_node.items()))
        return found

    async def _ask(
        self, node_id: int, request: ForwardOffsetsRequest, deadline: float
    ) -> list[ForwardedOffsets]:
        until = answer_by(deadline)
        if node_id != self._router.node_id:
            response = await self._peers.call(
                node_id,
                "ForwardOffsets",
                request,
                ForwardOffsetsResponse,
                timeout_s=until - asyncio.get_running_loop().time(),
            )
            return list(response.groups)
        try:
            async with asyncio.timeout_at(until):
                return await forwarded_offsets(self._partitions, request)
        except TimeoutError:
            raise late() from None


def _standing(answer: ForwardedOffsets) -> Standing | RakitError:
    if answer.HasField("error"):
        return from_status(answer.error)
    return Standing(answer.offsets.earliest, answer.offsets.latest, answer.append_time_ms)
