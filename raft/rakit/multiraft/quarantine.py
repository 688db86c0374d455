"""Which replicas are shut out, as the disk remembers it (safety S5, S9).

A replica that met a contradiction while it worked (entries that it had acknowledged are gone, a
second leader in one term, a damaged block) may look whole again after a restart: what gave it away
came from a peer or was read by chance. It would vote and acknowledge again, and a majority that
counts on it is none. So the row that shuts it out is synced, and only its removal takes the row
away.

Two things shut a replica out for one start only, without a row. An entry that the machine cannot
apply breaks no promise: vote and log are sound, and replay meets it again at the next start. It
meets every replica of the group alike, so a row would take the partition away from the release that
can apply it. And a read can fail without damage, for want of a file handle or by an IO error that
passes: what is stored may be well, and if it is not, whoever reads it next will see.

What opening finds wrong (`loading`) needs no row: the next opening finds it again.

A replica is *at fault* when the loss is its own: what it stored is damaged or gone. Its node tells
the leader of its group, which has it replaced while a majority is well without it (the node above
decides that). One that merely contradicts the others (a second leader in one term, another entry in
the place of a committed one) may be the only one that still holds what was acknowledged, since
somebody's disk went back unnoticed. That one is never replaced by itself: it is for a person.

The row can come too late: when the node fails before the sync it is as if nobody had looked yet,
and the next to look will see the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.errors import MachineFailedError, StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.records import decode_shut_out, encode_shut_out
from rakit.raft import HardStateLostError, LogLostError

PREFIX: Final = keys.local(b"shut-out:")
_GROUP: Final = struct.Struct(">Q")

REMEDY_FOR_GOOD: Final = (
    "A partition's leader has it replaced by a new one on the same node as soon as a majority of"
    " its replicas is well without it. If it stays, or is of the metadata group: Start that node"
    " with an empty data directory while all others are well; its replicas are made anew."
)
_REMEDY_IN_DISPUTE: Final = (
    "It contradicts the other replicas, and may be the one that still holds what was acknowledged,"
    " so nothing replaces it by itself. Keep a copy of that node's data directory; to give it up,"
    " start that node with an empty one while all others are well."
)
_REMEDY_FOR_NOW: Final = (
    "Its vote and log are not known to be damaged: mend the cause (a release that cannot apply an"
    " entry, a lack of file handles, a failing disk) and restart that node with its data."
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A replica that is shut out; `replica_id` is 0 if even that is not known."""

    replica_id: int
    reason: str
    #: Whether every later start shuts it out too, by its row or for what it finds.
    for_good: bool = True
    #: Whether the loss is its own, so that nothing is lost with it that others lack.
    at_fault: bool = True

    @property
    def may_be_replaced(self) -> bool:
        """Whether its group may let go of it, while a majority is well without it."""
        return self.for_good and self.at_fault and self.replica_id != 0

    @property
    def remedy(self) -> str:
        """What becomes of it, and what a person can do about it."""
        if not self.for_good:
            return _REMEDY_FOR_NOW
        return REMEDY_FOR_GOOD if self.at_fault else _REMEDY_IN_DISPUTE


def is_for_good(error: Exception) -> bool:
    """Tells whether what made a replica fail may have broken its promises."""
    return not isinstance(error, (MachineFailedError, StoreUnreadableError))


def is_at_fault(error: Exception) -> bool:
    """Tells whether a replica failed for a loss of its own, and not for what others say."""
    return isinstance(error, (StoreCorruptError, HardStateLostError, LogLostError))


def note(group_id: int, replica: Quarantined, batch: WriteBatch) -> None:
    """Has it stored that a replica is shut out; the batch is to be synced."""
    key = _key(group_id)
    value = encode_shut_out(key, replica.replica_id, replica.reason, at_fault=replica.at_fault)
    batch.put(key, value)


def noted(disk: KeyValue, group_id: int) -> Quarantined | None:
    """Returns the replica that an earlier start shut out; raises `StoreCorruptError`."""
    value = disk.get(_key(group_id))
    if value is None:
        return None
    replica, reason, at_fault = decode_shut_out(_key(group_id), value)
    return Quarantined(replica, reason, at_fault=at_fault)


def forget(group_id: int, batch: WriteBatch) -> None:
    """Has the row removed, together with the replica."""
    batch.delete(_key(group_id))


def _key(group_id: int) -> bytes:
    return PREFIX + _GROUP.pack(group_id)
