"""Reads positions in partitions that this node leads, waiting a while for new records.

A position is first turned into an offset, which a "latest" keeps for the rest of the wait; then the
partitions are polled together (`partition.polling` shares the bytes and does the waiting).

Rule: one position's failure is that position's answer. The others are read all the same, without
waiting, because the caller must hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rakit.api.v1 import error_pb2, log_service_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.node.errors import RakitError
from rakit.node.partition.partition import Partition
from rakit.node.partition.polling import Poller, Want
from rakit.node.partition.reader import Chunk
from rakit.node.partitions import Partitions


@dataclass(frozen=True, slots=True)
class Wanted:
    """A position in a group."""

    group_id: int
    position: Position


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a position."""

    # The offset that the position stands for; the first batch may begin before it.
    from_offset: int
    chunk: Chunk


Finding: TypeAlias = Found | RakitError


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much is enough, how much is too much, and how long to wait."""

    min_bytes: int
    max_bytes: int
    # On the clock of the event loop.
    wait_until: float
    # One batch is returned also where it alone is too much.
    at_least_one: bool = True


def is_enough(findings: Sequence[Finding], min_bytes: int) -> bool:
    """Whether to answer now: enough bytes, or something that the caller must hear of."""
    total = 0
    for finding in findings:
        if isinstance(finding, RakitError):
            return True
        total += finding.chunk.size_bytes
    return total >= min_bytes


class LocalReads:
    """Reads on this node."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._poller = Poller()

    async def fetch(self, wanted: Sequence[Wanted], limits: ReadLimits) -> list[Finding]:
        """One finding for each position, in order."""
        findings: dict[int, Finding] = {}
        wants: dict[int, Want] = {}
        for at, each in enumerate(wanted):
            try:
                partition = self._partitions.get(each.group_id)
                start = await start_offset(partition, each.position)
            except RakitError as error:
                findings[at] = error
            else:
                wants[at] = Want(partition, start, end_offset(each.position))
        left_s = 0.0 if findings else limits.wait_until - asyncio.get_running_loop().time()
        chunks = await self._poller.poll(
            list(wants.values()),
            max_bytes=limits.max_bytes,
            min_bytes=limits.min_bytes,
            max_wait_ms=max(0, int(left_s * 1000)),
            at_least_one=limits.at_least_one,
        )
        for (at, want), chunk in zip(wants.items(), chunks, strict=True):
            findings[at] = chunk if isinstance(chunk, RakitError) else Found(want.offset, chunk)
        return [findings[at] for at in range(len(wanted))]


def end_offset(position: Position) -> int | None:
    """Where the position ends, if it says so."""
    return position.end_offset if position.HasField("end_offset") else None


async def start_offset(partition: Partition, position: Position) -> int:
    """The offset that a position stands for at this moment."""
    match position.WhichOneof("start"):
        case "offset":
            return position.offset
        case "time_ms":
            return await partition.offset_at(position.time_ms)
        case "edge" if position.edge == log_service_pb2.EDGE_LATEST:
            return await partition.latest()
        case "edge" if position.edge not in {
            log_service_pb2.EDGE_UNSPECIFIED,
            log_service_pb2.EDGE_EARLIEST,
        }:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"{position.edge} is no edge of a log; use EDGE_EARLIEST or EDGE_LATEST.",
            )
        case _:
            return partition.earliest()
