"""What a checker may read of a stored row, and how it reads it.

The heads of rows are decoded here a second time, on purpose: a checker that shared its eyes with
the code under test would share its blind spots. Checksums are left to the store's own tests.
"""

from __future__ import annotations

import struct

from rakit.multiraft.group import Group
from rakit.multiraft.records import decode_hard_state
from rakit.raft import EntryType, HardState

_HEAD = struct.Struct(">IQB")  # checksum, term, type


def entry_term(row: bytes) -> int:
    term: int = _HEAD.unpack_from(row)[1]
    return term


def is_conf_change(row: bytes) -> bool:
    return bool(_HEAD.unpack_from(row)[2] == EntryType.CONF_CHANGE)


def hard_state_of(group_id: int, row: bytes) -> HardState:
    return decode_hard_state(group_id, row).state


def term_at(group: Group, index: int) -> int | None:
    """The term of an entry that the replica holds; None where its log begins later."""
    if index < group.storage.first_index():
        return None
    return group.storage.term(index)
