"""The witness: durable proof, kept outside RocksDB, of how far the store had got (S7).

A write-ahead log that is missing, empty, or cut at the end of a write looks like a whole one. So
the syncer thread keeps, in a file of its own, the number of the newest write that a sync is known
to have covered, with the name and length of the file of the log that held it. Opening compares: a
recovered number below the witness means that durable writes are gone, whatever RocksDB says. The
length tells damage before that point (loss) from damage after it, which may never have been
acknowledged (S8).

The file has two slots of one sector each, written in turn and synced with ``fdatasync``, so a
write torn by a power cut leaves the older slot. The newer valid slot counts; a file without any
valid slot, or no file at all beside an existing database, is damage, since both slots are valid
from birth on.

The witness trails the newest sync by ``witness_interval_ms``. It says nothing about a directory
that was rolled back as a whole: witness and database then agree on an old state. Only the peers
can notice that, by the highest counter they remember from this store's hello (S7).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft.checksum import crc32c
from rakit.multiraft.store.errors import LossKind, LossReport, StoreDamagedError
from rakit.multiraft.store.files import write_durably

SLOT_BYTES = 512
SLOT_COUNT = 2

_MAGIC = b"RKW3"
#: Of earlier versions. One knew nothing of values that lie apart, the one before had RocksDB's own
#: log: a place in that says nothing here.
_MAGIC_OF_OUR_LOG = b"RKW2"
_MAGIC_OF_ROCKSDB_S = b"RKW1"
_EARLIER_MAGICS = (_MAGIC_OF_OUR_LOG, _MAGIC_OF_ROCKSDB_S)
_FIELDS = struct.Struct(">4sQQQQ")  # magic, turn, number, WAL number, WAL length
_CHECKSUM = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Witness:
    """A point up to which everything is durable."""

    #: The newest write that a sync covered.
    number: int

    #: The file of the log that was newest then, by its first write; 0: none needed to be.
    wal: int

    #: Its length at that time, which is the end of a record.
    length: int


class WitnessFile:
    """The two slots on disk. One thread at a time."""

    def __init__(
        self, path: Path, turn: int, current: Witness, *, earlier_may_read: bool = False
    ) -> None:
        self._path = path
        self.turn = turn
        self.current = current
        #: An earlier version, which knows less of the files, would read a slot and open the store.
        self.earlier_may_read = earlier_may_read

    @classmethod
    def create(cls, path: Path, witness: Witness) -> WitnessFile:
        """Write a new file with both slots valid."""
        write_durably(path, _encode(0, witness) + _encode(1, witness))
        return cls(path, 1, witness)

    @classmethod
    def load(cls, path: Path) -> WitnessFile:
        """Read the newer valid slot; raises ``StoreDamagedError`` when there is none."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            detail = f"{path.name} is missing: nothing proves how far the store had got"
            raise StoreDamagedError(LossReport(LossKind.LOST_ACKED, detail), is_lost=True) from None
        slots = [
            slot
            for start in range(0, SLOT_COUNT * SLOT_BYTES, SLOT_BYTES)
            if (slot := _decode(data[start : start + SLOT_BYTES])) is not None
        ]
        if not slots:
            detail = f"{path.name} holds no valid slot: nothing proves how far the store had got"
            raise StoreDamagedError(LossReport(LossKind.LOST_ACKED, detail), is_lost=True)
        turn, witness = max(slots, key=lambda slot: slot[0])
        earlier = any(magic in data for magic in _EARLIER_MAGICS)
        return cls(path, turn, witness, earlier_may_read=earlier)

    def save(self, witness: Witness) -> None:
        """Make a newer witness durable."""
        assert witness.number >= self.current.number, "what was durable cannot become less"
        turn = self.turn + 1
        descriptor = os.open(self._path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, _encode(turn, witness), turn % SLOT_COUNT * SLOT_BYTES)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self.turn = turn
        self.current = witness


def _encode(turn: int, witness: Witness) -> bytes:
    fields = _FIELDS.pack(_MAGIC, turn, witness.number, witness.wal, witness.length)
    return (fields + _CHECKSUM.pack(crc32c(fields))).ljust(SLOT_BYTES, b"\0")


def _decode(slot: bytes) -> tuple[int, Witness] | None:
    """The turn and witness of a slot, or None when it is torn, empty or not ours."""
    if len(slot) < _FIELDS.size + _CHECKSUM.size:
        return None
    fields = slot[: _FIELDS.size]
    (checksum,) = _CHECKSUM.unpack_from(slot, _FIELDS.size)
    magic, turn, number, wal, length = _FIELDS.unpack(fields)
    if magic not in (_MAGIC, *_EARLIER_MAGICS) or checksum != crc32c(fields):
        return None
    is_rocksdb_s = magic == _MAGIC_OF_ROCKSDB_S
    return turn, Witness(number, 0, 0) if is_rocksdb_s else Witness(number, wal, length)
