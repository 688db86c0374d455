"""Reading RocksDB's write-ahead log ourselves, to find where its undamaged part ends (S8).

RocksDB either drops a bad end in silence or refuses the whole database; neither tells where it
begins. The format is small: blocks of 32 KiB hold records of a masked CRC32C (4 bytes, over type
and payload), a length (2, little endian), a type (1) and the payload; a write that does not fit
is split into first, middle and last fragments; a block's last bytes, too few for a header, are
zero.

Only what this store's settings produce is understood (no recycling, no compression). Everything
else counts as damage, which at worst refuses a start that a newer format would have allowed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft.checksum import crc32c, crc32c_extend

BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7

_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_STARTS = (_FULL, _FIRST)
_ENDS = (_FULL, _LAST)
_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF


class Flaw(enum.Enum):
    """How a log ends."""

    NONE = "whole"
    #: The file ends inside a write, as after any power cut: bytes are missing, none is wrong.
    TORN = "torn"
    #: There are bytes that no write has left: flipped, zeroed or foreign.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Survey:
    """The undamaged part of a log."""

    #: The end of the last whole write before the first flaw.
    valid_length: int

    #: The length of the file.
    size: int

    flaw: Flaw


def masked_crc(kind: int, payload: bytes) -> int:
    """The checksum of a record as the log stores it."""
    crc = crc32c_extend(crc32c(bytes((kind,))), payload)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _UINT32


def survey(path: Path, start: int = 0) -> Survey:
    """Walk a log from ``start``, the end of a write, up to its end or the first flaw."""
    size = path.stat().st_size
    assert start <= size, "a survey starts inside the file"
    valid, inside = start, False
    with path.open("rb") as file:
        base = start - start % BLOCK_BYTES
        at = start - base
        file.seek(base)
        while block := file.read(BLOCK_BYTES):
            whole = len(block) == BLOCK_BYTES
            while at + HEADER_BYTES <= len(block):
                length = int.from_bytes(block[at + 4 : at + 6], "little")
                kind = block[at + 6]
                end = at + HEADER_BYTES + length
                fits = kind in (_MIDDLE, _LAST) if inside else kind in _STARTS
                if end > len(block):
                    # Past a block no record can reach; past the file's end one can be torn.
                    torn = fits and not whole and end <= BLOCK_BYTES
                    return Survey(valid, size, Flaw.TORN if torn else Flaw.DAMAGED)
                payload = block[at + HEADER_BYTES : end]
                stored = int.from_bytes(block[at : at + 4], "little")
                if not fits or stored != masked_crc(kind, payload):
                    return Survey(valid, size, Flaw.DAMAGED)
                inside = kind not in _ENDS
                at = end
                if not inside:
                    valid = base + at
            rest = block[at:]
            if BLOCK_BYTES - at < HEADER_BYTES:
                if any(rest):
                    return Survey(valid, size, Flaw.DAMAGED)
            elif rest:
                return Survey(valid, size, Flaw.TORN if any(rest) else Flaw.DAMAGED)
            base += BLOCK_BYTES
            at = 0
    return Survey(valid, size, Flaw.TORN if inside else Flaw.NONE)
