"""What a member is told of its partitions, in messages that clients in all languages take. Pure.

A member may own very many partitions, and every topic's name may be long; a client's library takes
4 MiB by default. So what it is told comes in portions of so many partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rakit.api.v1.group_service_pb2 import (
    Assigned,
    AssignedPartition,
    RevokeReason,
    Revoking,
    TopicPartition,
)

#: Partitions of one list in one message: with names of 249 characters two lists are 2.2 MiB.
PORTION_COUNT: Final = 4_096


def assigned_events(
    epoch: int, added: Sequence[AssignedPartition], owned: Sequence[TopicPartition]
) -> Iterator[Assigned]:
    """What a member is given, and all that it owns: at least one message."""
    longest = max(len(added), len(owned), 1)
    for at in range(0, longest, PORTION_COUNT):
        yield Assigned(
            member_epoch=epoch,
            added=added[at : at + PORTION_COUNT],
            owned=owned[at : at + PORTION_COUNT],
            more=at + PORTION_COUNT < longest,
        )


def revoking_events(
    partitions: Sequence[TopicPartition], reason: RevokeReason.ValueType, deadline_ms: int
) -> Iterator[Revoking]:
    """What a member is to let go of; each message stands for itself."""
    for at in range(0, len(partitions), PORTION_COUNT):
        portion = partitions[at : at + PORTION_COUNT]
        yield Revoking(partitions=portion, reason=reason, deadline_ms=deadline_ms)
