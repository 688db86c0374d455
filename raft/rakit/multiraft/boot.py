"""What a node remembers about starts from a store that was cut: which replicas are in doubt.

A doubt mark says that the store was cut at a damaged tail while the replica lived in it (safety
S8); it outlives restarts and goes when the core says that the doubt is over.

What was cut off may have held the birth of a replica too, with all that it promised. A replica that
is made later on such a store cannot be told from one that is made again, so it is born in doubt.
"""

from __future__ import annotations

import struct
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch

_NUMBER: Final = struct.Struct(">Q")
_DOUBT: Final = keys.local(b"doubt:")
_CUT: Final = keys.local(b"cut")


def births_are_doubtful(disk: KeyValue, batch: WriteBatch, *, doubtful: bool) -> bool:
    """Tells whether this store was ever cut at its tail, and has a cut of this start noted."""
    if doubtful:
        batch.put(_CUT, b"")
    return doubtful or disk.get(_CUT) is not None


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
