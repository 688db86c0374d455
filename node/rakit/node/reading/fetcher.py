"""One answer for positions whose partitions are led by different nodes.

A round asks every leader at once, without waiting there; only where one leader has all of the
positions does it wait for new records itself. When a round finds too little, the fetcher waits at
all leaders together until one of them has news, and begins anew.

Rules (S20, S22):

- The leader answers; a node that is not the leader any more is not asked twice for one round.
- A partition without a leader does not hold up what others have: its position gets NO_LEADER. Where
  no position can be read at all, a leader is waited for as with any other call.
- Everything here is a read: what broke is asked again, nothing is ever in doubt.
- Nothing is waited for beyond the time of the answer, whatever another node does or does not do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.node.errors import RakitError, from_status
from rakit.node.partition.reader import Chunk
from rakit.node.partition.stored import StoredBatch
from rakit.node.peers import Peers
from rakit.node.reading.local import (
    Finding,
    Found,
    LocalReads,
    ReadLimits,
    Wanted,
    end_offset,
    is_enough,
)
from rakit.node.routing import RETRY_PAUSE_S, Router, is_reroutable, no_leader, not_misled
from rakit.peer.v1.node_service_pb2 import (
    ForwardedData,
    ForwardedPosition,
    ForwardFetchRequest,
    ForwardFetchResponse,
)
from rakit.peer.v1.opaque_pb2 import OpaqueBatch

#: What a remote read may take beyond the time that it is asked to wait, where there is so much.
REMOTE_SLACK_S: Final = 2.0


class Fetcher:
    """Reads positions wherever their leaders are."""

    def __init__(self, router: Router, local: LocalReads, peers: Peers) -> None:
        self._router = router
        self._local = local
        self._peers = peers

    async def fetch(
        self,
        positions: Sequence[Position],
        limits: ReadLimits,
        give_up: float,
        lookup_until: float,
        answer_by: float | None = None,
    ) -> list[Finding]:
        """One finding for each position, in order.

        Waits until `give_up` where no position has a leader, and for a majority of the metadata
        group until `lookup_until` where a topic is not known. No node is asked for longer than
        until `answer_by`.
        """
        findings = await self._until_enough(positions, limits, give_up, lookup_until, answer_by)
        return [
            not_misled(each, position.topic, position.partition)
            if isinstance(each, RakitError)
            else each
            for position, each in zip(positions, findings, strict=True)
        ]

    async def _until_enough(
        self,
        positions: Sequence[Position],
        limits: ReadLimits,
        give_up: float,
        lookup_until: float,
        answer_by: float | None,
    ) -> list[Finding]:
        loop = asyncio.get_running_loop()
        while True:
            round_ = _Round(positions, answer_by)
            await self._ask_leaders(round_, limits, lookup_until)
            findings = round_.findings
            positions = [_pinned(*pair) for pair in zip(positions, findings, strict=True)]
            round_.positions = positions
            lost = [at for at, each in enumerate(findings) if _is_lost(each)]
            until = limits.wait_until
            if len(lost) == len(positions):
                # Nothing can be read: this is not a wait for records but for a leader.
                until = give_up
                if loop.time() >= give_up:
                    return findings
            else:
                readable = [each for each in findings if not _is_lost(each)]
                full = any(has_more(*pair) for pair in zip(positions, findings, strict=True))
                if full or loop.time() >= until or is_enough(readable, limits.min_bytes):
                    return findings
            await self._until_any(self._news(round_, findings, limits, until))

    async def _ask_leaders(self, round_: _Round, limits: ReadLimits, lookup_until: float) -> None:
        """Asks every leader once."""
        positions = round_.positions
        for at, position in enumerate(positions):
            try:
                _, place = await self._router.partition(
                    position.topic, position.partition, lookup_until
                )
            except RakitError as error:
                round_.findings[at] = error
                continue
            round_.groups[at] = place.group_id
            leader = self._router.known_leader(place.group_id)
            if leader is None:
                round_.findings[at] = no_leader(position.topic, position.partition)
            else:
                round_.by_node.setdefault(leader.node_id, []).append(at)
        alone = any(len(each) == len(positions) for each in round_.by_node.values())
        wait_until = limits.wait_until if alone else 0.0
        share = max(1, limits.max_bytes // max(1, len(round_.by_node)))
        asked = replace(limits, max_bytes=share, wait_until=wait_until)
        await asyncio.gather(*(self._ask(round_, node_id, asked) for node_id in round_.by_node))

    async def _ask(self, round_: _Round, node_id: int, limits: ReadLimits) -> None:
        places = round_.by_node[node_id]
        wanted = [Wanted(round_.groups[at], round_.positions[at]) for at in places]
        try:
            findings = await self._ask_node(node_id, wanted, limits, round_.answer_by)
        except RakitError as error:
            findings = [error for _ in wanted]
        for at, finding in zip(places, findings, strict=True):
            round_.findings[at] = finding

    async def _ask_node(
        self, node_id: int, wanted: Sequence[Wanted], limits: ReadLimits, answer_by: float | None
    ) -> list[Finding]:
        if node_id == self._router.node_id:
            return await self._ask_here(wanted, limits, answer_by)
        now = asyncio.get_running_loop().time()
        wait_s = max(0.0, limits.wait_until - now)
        timeout_s = wait_s + REMOTE_SLACK_S
        if answer_by is not None:
            timeout_s = min(timeout_s, answer_by - now)
        request = ForwardFetchRequest(
            destination=self._peers.destination(node_id),
            positions=[
                ForwardedPosition(group_id=each.group_id, position=each.position) for each in wanted
            ],
            wait_ms=int(wait_s * 1000),
            min_bytes=limits.min_bytes,
            max_bytes=limits.max_bytes,
            strict=not limits.at_least_one,
        )
        response = await self._peers.call(
            node_id,
            "ForwardFetch",
            request,
            ForwardFetchResponse,
            timeout_s=timeout_s,
        )
        return [found(each) for each in response.positions]

    async def _ask_here(
        self, wanted: Sequence[Wanted], limits: ReadLimits, answer_by: float | None
    ) -> list[Finding]:
        try:
            async with asyncio.timeout_at(answer_by):
                return await self._local.fetch(wanted, limits)
        except TimeoutError:
            raise RakitError(
                error_pb2.ERROR_REASON_NO_QUORUM,
                "A majority of the partition's replicas did not confirm the leader in time.",
            ) from None

    def _news(
        self, round_: _Round, findings: Sequence[Finding], limits: ReadLimits, until: float
    ) -> list[Awaitable[object]]:
        """What to wait for: records at each leader, a leader where there is none."""
        loop = asyncio.get_running_loop()
        waits: list[Awaitable[object]] = []
        for node_id, places in round_.by_node.items():
            if any(_is_lost(findings[at]) for at in places):
                # The leader has moved and the news of it is under way.
                waits.append(asyncio.sleep(RETRY_PAUSE_S))
            else:
                wanted = [Wanted(round_.groups[at], round_.positions[at]) for at in places]
                # One more byte than this node had is news, however much all of them must have.
                known = sum(_size_bytes(findings[at]) for at in places)
                asked = replace(limits, min_bytes=known + 1, wait_until=until)
                waits.append(self._quietly(node_id, wanted, asked, round_.answer_by))
        for at, finding in enumerate(findings):
            asked_somewhere = any(at in places for places in round_.by_node.values())
            if at in round_.groups and not asked_somewhere and _is_lost(finding):
                waits.append(self._leader_of(round_, at, until - loop.time()))
        return waits

    async def _leader_of(self, round_: _Round, at: int, left_s: float) -> None:
        position = round_.positions[at]
        try:
            until = asyncio.get_running_loop().time() + left_s
            _, place = await self._router.partition(position.topic, position.partition, until)
            await self._router.leader(position.topic, place, until)
        except RakitError:
            # The next round meets the same error and reports it.
            return

    async def _quietly(
        self, node_id: int, wanted: Sequence[Wanted], limits: ReadLimits, answer_by: float | None
    ) -> None:
        try:
            await self._ask_node(node_id, wanted, limits, answer_by)
        except RakitError:
            # The same: this was only about when to look again.
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _until_any(self, waits: Sequence[Awaitable[object]]) -> None:
        tasks = [asyncio.ensure_future(each) for each in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Round:
    """One question to every leader."""

    def __init__(self, positions: Sequence[Position], answer_by: float | None) -> None:
        self.positions = positions
        self.answer_by = answer_by
        self.groups: dict[int, int] = {}
        self.by_node: dict[int, list[int]] = {}
        self.findings: list[Finding] = [no_leader(each.topic, each.partition) for each in positions]


def _is_lost(finding: Finding) -> bool:
    """The position was not read because its leader was not found, which may change soon."""
    return isinstance(finding, RakitError) and is_reroutable(finding)


def _size_bytes(finding: Finding) -> int:
    return finding.chunk.size_bytes if isinstance(finding, Found) else 0


def has_more(position: Position, finding: Finding) -> bool:
    """Whether the leader had more than its share of the answer: then waiting brings nothing."""
    if not isinstance(finding, Found):
        return False
    end, chunk = end_offset(position), finding.chunk
    reachable = chunk.high_watermark if end is None else min(end, chunk.high_watermark)
    return chunk.next_offset < reachable


def _pinned(position: Position, finding: Finding) -> Position:
    """The position as it was resolved: while a fetch waits, "latest" must not move with the log."""
    if not isinstance(finding, Found) or position.WhichOneof("start") == "offset":
        return position
    pinned = Position()
    pinned.CopyFrom(position)
    pinned.offset = finding.from_offset
    return pinned


def found(forwarded: ForwardedData) -> Finding:
    """A finding of another node."""
    data = forwarded.data
    if data.HasField("error"):
        return from_status(data.error)
    batches = tuple(_stored(batch) for batch in data.batches)
    chunk = Chunk(batches, data.next_offset, data.high_watermark, data.log_start_offset)
    return Found(forwarded.from_offset, chunk)


def _stored(batch: OpaqueBatch) -> StoredBatch:
    compressed = batch.WhichOneof("content") == "compressed"
    return StoredBatch(
        batch.base_offset,
        batch.record_count,
        batch.append_time_ms,
        0,
        batch.compressed if compressed else batch.records,
        compressed,
    )
