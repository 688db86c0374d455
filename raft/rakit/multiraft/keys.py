"""The key schema of a node's store.

One key space, told apart by the first byte; integers are 8 bytes, big-endian, so that the order of
keys is the order of numbers and everything of a group lies together.

    01 group index    a log entry
    02 group          the group's HardState
    03 group index    a checkpoint as of that index
    04 group          the tombstone: the highest replica id that is dead for good
    05 group          the birth record
    06 ...            what the store knows of itself (its own)
    07 group offset   position rows of a partition: offset to index
    08 name           values of the node itself
    09 group index n  part n of a large checkpoint's state, written before the checkpoint
    0A group index    the run of entries that begins there: its segment (the store's own)
    FF number         the journal row of a write, the last of all keys (the store's own)

The numbers are on disks and never change.
"""

from __future__ import annotations

import struct
from typing import Final

ENTRY: Final = 0x01
HARD_STATE: Final = 0x02
CHECKPOINT: Final = 0x03
TOMBSTONE: Final = 0x04
BIRTH: Final = 0x05
JOURNAL: Final = 0x06
POSITION: Final = 0x07
LOCAL: Final = 0x08
BASE_PART: Final = 0x09
RUN: Final = 0x0A
JOURNAL_ROWS: Final = (b"\xff", b"\xff" * 10)

_JOURNAL_ROW_BYTES: Final = 9
_GROUP: Final = struct.Struct(">BQ")
_GROUP_NUMBER: Final = struct.Struct(">BQQ")
_GROUP_PART: Final = struct.Struct(">BQQQ")


def entry(group_id: int, index: int) -> bytes:
    """Returns the key of a log entry."""
    return _GROUP_NUMBER.pack(ENTRY, group_id, index)


def hard_state(group_id: int) -> bytes:
    """Returns the key of a group's HardState."""
    return _GROUP.pack(HARD_STATE, group_id)


def checkpoint(group_id: int, index: int) -> bytes:
    """Returns the key of a checkpoint."""
    return _GROUP_NUMBER.pack(CHECKPOINT, group_id, index)


def tombstone(group_id: int) -> bytes:
    """Returns the key of a group's tombstone."""
    return _GROUP.pack(TOMBSTONE, group_id)


def birth(group_id: int) -> bytes:
    """Returns the key of a group's birth record."""
    return _GROUP.pack(BIRTH, group_id)


def position(group_id: int, offset: int) -> bytes:
    """Returns the key of a partition's position row."""
    return _GROUP_NUMBER.pack(POSITION, group_id, offset)


def base_part(group_id: int, index: int, number: int) -> bytes:
    """Returns the key of one part of the state of a checkpoint."""
    return _GROUP_PART.pack(BASE_PART, group_id, index, number)


def journal_row(number: int) -> bytes:
    """Returns the key of the row of a write."""
    return JOURNAL_ROWS[0] + number.to_bytes(8, "big")


def is_journal_row(key: bytes) -> bool:
    """Whether a key is that of the row of a write, and not the end of some range."""
    return len(key) == _JOURNAL_ROW_BYTES and key.startswith(JOURNAL_ROWS[0])


def write_of(key: bytes) -> int:
    """Returns the number of the write that a row is of."""
    return int.from_bytes(key[len(JOURNAL_ROWS[0]) :], "big")


def local(name: bytes) -> bytes:
    """Returns the key of a value that belongs to the node, not to a group."""
    return bytes((LOCAL,)) + name


def prefix_range(prefix: int) -> tuple[bytes, bytes]:
    """Returns the half-open range of every key with this first byte."""
    return bytes((prefix,)), bytes((prefix + 1,))


def group_range(prefix: int, group_id: int) -> tuple[bytes, bytes]:
    """Returns the half-open range of a group's keys with this first byte."""
    return _GROUP.pack(prefix, group_id), _GROUP.pack(prefix, group_id + 1)


def group_of(key: bytes) -> int:
    """Returns the group of a key of the kinds 01 to 05, 07, 09 and 0A."""
    number: int = _GROUP.unpack_from(key)[1]
    return number


def number_of(key: bytes) -> int:
    """Returns the index or offset of a key of the kinds 01, 03 and 07."""
    number: int = _GROUP_NUMBER.unpack(key)[2]
    return number
