"""What a node remembers about starts from a store that was cut: which replicas are in doubt.

A doubt mark says that the store was cut at a damaged tail while the replica lived in it (safety
S8); it outlives restarts and goes when the core says that the doubt is over.

What was cut off may have held the birth of a replica too, with all that it promised. A replica that
is made later on such a store cannot be told from one that is made again, so it is born in doubt.
That concerns groups that existed when the store was cut, and only those: a group id is given out
once. The first linearizable read of the registry in a start after the cut shows every id that was
given out before it, since a replica is only made of a group that a committed entry has created.
So the node tells then which id is the next to be given out (`trust_births_from`), and births from
there on are sound: a group that is created with one cut store and one dead node gets its leader. An
older picture of the registry would not do, nor a read before the cut: both may lack groups that
lost their births here. A new cut begins anew.
"""

from __future__ import annotations

import struct
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.machine import ID_MAX

_NUMBER: Final = struct.Struct(">Q")
_DOUBT: Final = keys.local(b"doubt:")
_CUT: Final = keys.local(b"cut")
#: Greater than every group id.
EVERY_BIRTH: Final = ID_MAX + 1


def births_doubted_below(disk: KeyValue, batch: WriteBatch, *, doubtful: bool) -> int:
    """Returns the group id from which on births are sound, and has a cut of this start noted."""
    if doubtful:
        batch.put(_CUT, b"")
        return EVERY_BIRTH
    value = disk.get(_CUT)
    if value is None:
        return 0
    return int(_NUMBER.unpack(value)[0]) if value else EVERY_BIRTH


def trust_births_from(group_id: int, batch: WriteBatch) -> None:
    """Notes that no group from this id on existed when the store was cut.

    It need not be synced: what is forgotten is doubted again.
    """
    batch.put(_CUT, _NUMBER.pack(group_id))


def is_doubtful(disk: KeyValue, group_id: int) -> bool:
    """Tells whether an earlier start left this group in doubt."""
    return disk.get(_doubt_key(group_id)) is not None


def mark_doubtful(group_id: int, batch: WriteBatch) -> None:
    """Has the doubt stored."""
    batch.put(_doubt_key(group_id), b"")


def clear_doubt(group_id: int, batch: WriteBatch) -> None:
    """Has the doubt forgotten."""
    batch.delete(_doubt_key(group_id))


def _doubt_key(group_id: int) -> bytes:
    return _DOUBT + _NUMBER.pack(group_id)
