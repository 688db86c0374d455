"""Which replicas are shut out, as the disk remembers it (safety S5, S9).

A replica that met a contradiction while it worked (entries that it had acknowledged are gone, a
second leader in one term, a block that cannot be read, an entry that cannot be applied) may look
whole again after a restart: what gave it away came from a peer or was read by chance. It would vote
and acknowledge again, and a majority that counts on it is none. So the row that shuts it out is
synced, and only its removal takes the row away.

What opening finds wrong (`loading`) needs no row: the next opening finds it again.

The row can come too late: when the node fails before the sync it is as if nobody had looked yet,
and the next to look will see the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.records import decode_shut_out, encode_shut_out

PREFIX: Final = keys.local(b"shut-out:")
_GROUP: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A replica that is shut out; `replica_id` is 0 if even that is not known."""

    replica_id: int
    reason: str


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
