"""An entry as it is stored: a fixed head, then the payload, behind one checksum.

The checksum also covers where the entry belongs. It is taken once, by the leader, goes over the
wire with the entry, and is stored by every replica: one and the same from there to the disks (P9).

The payload of a large entry is a view of the value in which it is stored. A leader joins it there,
from the pieces that were proposed; a follower, from the request; who reads it from the disk has it
there. So each copies it once at most, and what is sent, cached, applied and stored is the same
memory. From 64 KiB on it is memory of whole pages (`pages`), which the disk takes as it is. A
request that ends with the payload of such an entry was read to where that is in place (`frames`): a
follower does not copy it at all.

Rules:

- A view is recognised by what lies before it: a head that says what the entry's own would. Whatever
  else an entry holds is joined when it is stored.
- What was not made on this machine was checked when it became an entry.

Decoding raises `StoreCorruptError`: the caller quarantines the group.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, cast

from rakit.multiraft import pages
from rakit.multiraft.checksum import crc32c, crc32c_extend_payload
from rakit.multiraft.errors import StoreCorruptError
from rakit.raft import Entry, EntryID, EntryType, Payload

#: What the checksum of an entry covers beside its payload: group, index, term, type.
_IDENTITY: Final = struct.Struct(">QQQB")
#: What stands before the payload of a stored entry: checksum, term, type.
_HEAD: Final = struct.Struct(">IQB")
ENTRY_HEAD_BYTES: Final = _HEAD.size
#: From this size on a payload is a view of the stored value: below, a copy costs less.
VIEWED_BYTES_MIN: Final = 16 << 10
#: From this size on a stored value is put together in whole pages: about as entries lie apart.
PAGED_BYTES_MIN: Final = 64 << 10
_TYPES: Final = {kind.value: kind for kind in EntryType}


def join_payload(group_id: int, place: EntryID, pieces: Sequence[Payload]) -> tuple[Payload, int]:
    """Returns the payload and the checksum of a NORMAL entry that will have this place."""
    term, index = place
    checksum = crc32c(_IDENTITY.pack(group_id, index, term, EntryType.NORMAL))
    for piece in pieces:
        checksum = crc32c_extend_payload(checksum, piece)
    size = sum(map(len, pieces))
    if size < VIEWED_BYTES_MIN:
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces), checksum
    pieces = (_HEAD.pack(checksum, term, EntryType.NORMAL), *pieces)
    value = _in_pages(pieces) if size >= PAGED_BYTES_MIN else b"".join(pieces)
    return memoryview(value)[ENTRY_HEAD_BYTES:], checksum


def arrived_entry(
    group_id: int, place: EntryID, kind: EntryType, payload: Payload, checksum: int
) -> Entry | None:
    """Returns the entry that a peer sent; None if its checksum is another.

    It may take over the payload's memory, and write to what stood before it in its message: whoever
    reads a message has read that by then.
    """
    term, index = place
    head = _HEAD.pack(checksum, term, kind)
    data: Payload
    if len(payload) < VIEWED_BYTES_MIN:
        data = bytes(payload)
    elif len(payload) < PAGED_BYTES_MIN:
        data = memoryview(b"".join((head, payload)))[ENTRY_HEAD_BYTES:]
    else:
        data = _in_place(head, payload)[ENTRY_HEAD_BYTES:]
    taken = entry_crc32c(group_id, index, term, kind, data)
    return Entry(term, index, kind, data, checksum) if taken == checksum else None


def _in_place(head: bytes, payload: Payload) -> memoryview:
    """Returns the stored value of a payload that arrived: its own memory, if it lies in place."""
    found = pages.become(payload, head) if isinstance(payload, memoryview) else None
    return _in_pages((head, payload)) if found is None else found


def _in_pages(pieces: Sequence[Payload]) -> memoryview:
    """Puts a stored value together in memory that the disk takes as it is."""
    value, at = pages.lend(sum(map(len, pieces))), 0
    for piece in pieces:
        value[at : at + len(piece)] = piece
        at += len(piece)
    return value.toreadonly()


def entry_checksum(group_id: int, entry: Entry) -> int:
    """Returns the checksum of an entry in its place; taken once, then remembered with it."""
    if entry.checksum is None:
        checksum = entry_crc32c(group_id, entry.index, entry.term, entry.type, entry.data)
        # Entries are frozen; this is no part of what they are.
        object.__setattr__(entry, "checksum", checksum)
        return checksum
    return entry.checksum


def entry_crc32c(group_id: int, index: int, term: int, kind: int, data: Payload) -> int:
    """Takes the checksum of an entry, stored or sent: over group, index, term, type, payload."""
    return crc32c_extend_payload(crc32c(_IDENTITY.pack(group_id, index, term, kind)), data)


def encode_entry(group_id: int, entry: Entry) -> Payload:
    """Returns the stored value of an entry, without a copy where its payload is a view of it."""
    head, data = _HEAD.pack(entry_checksum(group_id, entry), entry.term, entry.type), entry.data
    if isinstance(data, memoryview) and (value := _viewed_value(data)) is not None:
        size = len(head) + len(data)
        # The checksum in the head is that of the payload, so the payload is what follows: there
        # are no other views of such memory.
        if len(value) == size and value[:ENTRY_HEAD_BYTES] == head:
            return value
    return b"".join((head, data))


def _viewed_value(payload: memoryview) -> Payload | None:
    """The value of which a payload may be a view."""
    lent = pages.lent_for(payload)
    if lent is not None:
        return lent.whole()
    value = cast("object", payload.obj)
    return value if isinstance(value, bytes) else None


def decode_entry(group_id: int, index: int, value: bytes) -> Entry:
    """Reads what `encode_entry` wrote for this place, or raises `StoreCorruptError`."""
    if len(value) < ENTRY_HEAD_BYTES:
        raise StoreCorruptError(f"entry {index} of group {group_id} is cut to {len(value)} bytes")
    checksum, term, kind = _HEAD.unpack_from(value)
    viewed = len(value) >= VIEWED_BYTES_MIN
    data = memoryview(value)[ENTRY_HEAD_BYTES:] if viewed else value[ENTRY_HEAD_BYTES:]
    if entry_crc32c(group_id, index, term, kind, data) != checksum:
        raise StoreCorruptError(f"entry {index} of group {group_id} fails its checksum")
    if kind not in _TYPES:
        raise StoreCorruptError(f"entry {index} of group {group_id} is of the unknown type {kind}")
    return Entry(term, index, _TYPES[kind], data, checksum)


def stored_bytes(entry: Entry) -> int:
    """Returns what an entry takes in the store, without its key."""
    return ENTRY_HEAD_BYTES + len(entry.data)
