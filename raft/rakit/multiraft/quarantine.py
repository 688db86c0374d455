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

The row can come too late: when the node fails before the sync it is as if nobody had looked yet,
and the next to look will see the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.errors import MachineFailedError, StoreUnreadableError
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.records import decode_shut_out, encode_shut_out

PREFIX: Final = keys.local(b"shut-out:")
_GROUP: Final = struct.Struct(">Q")

REMEDY_FOR_GOOD: Final = (
    "Start that node with an empty data directory while all others are well; its replicas are made"
    " anew."
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

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        return REMEDY_FOR_GOOD if self.for_good else _REMEDY_FOR_NOW


def is_for_good(error: Exception) -> bool:
    """Tells whether what made a replica fail may have broken its promises."""
    return not isinstance(error, (MachineFailedError, StoreUnreadableError))


def note(group_id: int, replica: Quarantined, batch: WriteBatch) -> None:
    """Has it stored that a replica is shut out; the batch is to be synced."""
    value = encode_shut_out(_key(group_id), replica.replica_id, replica.reason)
    batch.put(_key(group_id), value)


def noted(disk: KeyValue, group_id: int) -> Quarantined | None:
    """Returns the replica that an earlier start shut out; raises `StoreCorruptError`."""
    value = disk.get(_key(group_id))
    return None if value is None else Quarantined(*decode_shut_out(_key(group_id), value))


def forget(group_id: int, batch: WriteBatch) -> None:
    """Has the row removed, together with the replica."""
    batch.delete(_key(group_id))


def _key(group_id: int) -> bytes:
    return PREFIX + _GROUP.pack(group_id)
