"""What a replicated state machine must offer, and who a replica is.

A state machine is deterministic: it knows entries and nothing else, no clock, no settings, no
random numbers, so that replicas stay identical byte for byte (promise P9). The leader puts what
it decided (time, limits) into the entry.

A replica id is the node id and a sequence number that is never used twice within the group, so
the node that a message goes to is read off the id, without a table that could be stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, TypeAlias

from rakit.multiraft.kv import WriteBatch
from rakit.raft import Entry

_SEQUENCE_BITS: Final = 24
NODE_ID_MAX: Final = (1 << 20) - 1
SEQUENCE_MAX: Final = (1 << _SEQUENCE_BITS) - 1
#: Every id stays exact where numbers are doubles.
ID_MAX: Final = (1 << 53) - 1


def replica_id(node_id: int, sequence: int) -> int:
    """Names the replica number `sequence` of a group, living on node `node_id`."""
    assert 1 <= node_id <= NODE_ID_MAX, f"node id {node_id} is out of range"
    assert 1 <= sequence <= SEQUENCE_MAX, f"replica sequence {sequence} is out of range"
    return (node_id << _SEQUENCE_BITS) | sequence


def node_of(replica: int) -> int:
    """Returns the node that a replica lives on."""
    return replica >> _SEQUENCE_BITS


class GroupKind(IntEnum):
    """What a group replicates. Stored: numbers never change."""

    METADATA = 1
    PARTITION = 2
    CONSUMERS = 3


@dataclass(frozen=True, slots=True)
class GroupMeta:
    """Who a replica is; stored as its birth record, which is synced before anything else (S10)."""

    group_id: int
    replica_id: int
    kind: GroupKind

    def __post_init__(self) -> None:
        assert 1 <= self.group_id <= ID_MAX, f"group id {self.group_id} is out of range"
        assert 1 <= self.replica_id <= ID_MAX, f"replica id {self.replica_id} is out of range"


class StateMachine(Protocol):
    """A replicated state, driven by committed entries in order, each applied exactly once."""

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        """Applies a committed NORMAL entry that has data; the result goes to its proposer.

        `writes` joins a batch of the node within a tick, which is not synced for its sake: derived
        rows only, which a replay after a crash writes again.
        """
        ...

    def snapshot(self) -> bytes:
        """Returns the whole state as of the last applied entry."""
        ...

    def restore(self, data: bytes, index: int) -> None:
        """Takes over the state of a checkpoint as of `index`; b"" is the newborn state."""
        ...

    def checkpoint_due(self) -> bool:
        """Tells, after each entry that it applied, whether to store a checkpoint as of exactly it.

        Asked once for each, so that the checkpoints of equal replicas are the same.
        """
        ...

    def trim_index(self) -> int:
        """Returns the index of the checkpoint up to which the log may go; 0 for none."""
        ...

    def trim_targets(self) -> Sequence[int]:
        """Returns the indexes of the checkpoints that `trim_index` may come to name.

        The others are of no use, and go. Part of the state: a restored machine names the same.
        """
        ...


MachineFactory: TypeAlias = Callable[[GroupMeta], StateMachine]
