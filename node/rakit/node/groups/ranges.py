"""Where a log begins and ends, asked of its leader where that is not known here.

A look is a fetch of no bytes: one question to each leader, however many partitions, which turns a
position into an offset and refuses one that lies outside of the log. A group needs that in order
to begin in a partition, to seek, and to tell a commit outside of the log from one within (0013).

Rule: a partition without a leader is asked for again until `give_up`; the others are not held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import OffsetCommit
from rakit.api.v1.log_service_pb2 import Position
from rakit.node.errors import RakitError
from rakit.node.partition.producers import INTEGER_MAX
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, ReadLimits
from rakit.node.routing import is_reroutable

COMMITS_COUNT_MAX: Final = 1024
METADATA_BYTES_MAX: Final = 4096
#: Before a partition without a leader is asked for again.
_PAUSE_S: Final = 0.05


async def look_at(
    fetcher: Fetcher,
    positions: Sequence[Position],
    give_up: float,
    answer_by: float | None = None,
) -> list[Finding]:
    """One finding for each position, without records. No node is asked for beyond `answer_by`."""
    loop = asyncio.get_running_loop()
    findings: dict[int, Finding] = {}
    left = list(range(len(positions)))
    while left:
        limits = ReadLimits(0, 0, wait_until=loop.time(), at_least_one=False)
        found = await fetcher.fetch(
            [positions[at] for at in left], limits, loop.time(), give_up, answer_by or give_up
        )
        findings |= dict(zip(left, found, strict=True))
        left = [at for at in left if _is_lost(findings[at])]
        if not left or loop.time() >= give_up:
            break
        await asyncio.sleep(_PAUSE_S)
    return [findings[at] for at in range(len(positions))]


def _is_lost(finding: Finding) -> bool:
    return isinstance(finding, RakitError) and is_reroutable(finding)


def check_commits(offsets: Sequence[OffsetCommit]) -> None:
    """Raises INVALID_REQUEST for commits that nobody need be asked about."""
    if len(offsets) > COMMITS_COUNT_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"The commit names {len(offsets)} partitions; the limit is {COMMITS_COUNT_MAX}.",
            {"limit": str(COMMITS_COUNT_MAX), "actual": str(len(offsets))},
        )
    seen: set[tuple[str, int]] = set()
    for each in offsets:
        where = {"topic": each.topic, "partition": str(each.partition)}
        if (each.topic, each.partition) in seen:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"Partition {each.partition} of topic {each.topic!r} is committed twice.",
                where,
            )
        seen.add((each.topic, each.partition))
        if not 0 <= each.offset <= INTEGER_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST, f"{each.offset} is no offset.", where
            )
        size = len(each.metadata.encode())
        if size > METADATA_BYTES_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"The metadata of a commit has {size:,} bytes; the limit is"
                f" {METADATA_BYTES_MAX:,}.",
                where | {"limit": str(METADATA_BYTES_MAX), "actual": str(size)},
            )


def out_of_range(commit: OffsetCommit, error: RakitError) -> RakitError:
    """What a commit gets whose offset the leader does not have; any other error as it is."""
    where = {"topic": commit.topic, "partition": str(commit.partition)}
    if error.reason != error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE:
        for key, value in where.items():
            error.metadata.setdefault(key, value)
        return error
    return RakitError(
        error_pb2.ERROR_REASON_COMMIT_OUT_OF_RANGE,
        f"Offset {commit.offset} lies outside of partition {commit.partition} of topic"
        f" {commit.topic!r}, which holds {error.metadata['earliest']} up to, not including,"
        f" {error.metadata['latest']}. Nothing was committed for it.",
        where | error.metadata,
    )


async def outside(
    fetcher: Fetcher, commits: Sequence[OffsetCommit], give_up: float
) -> dict[int, RakitError]:
    """The commits that cannot be made, by their places: outside of the log, or not to be told."""
    positions = [
        Position(topic=each.topic, partition=each.partition, offset=each.offset) for each in commits
    ]
    findings = await look_at(fetcher, positions, give_up)
    return {
        at: out_of_range(commits[at], finding)
        for at, finding in enumerate(findings)
        if isinstance(finding, RakitError)
    }
