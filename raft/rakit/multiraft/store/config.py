"""The settings of a store: one frozen object, validated once, handed down whole.

Every limit names its unit. The defaults suit a node that moves about 100 MB/s on two cores; tests
use ``StoreConfig.small``, which reaches flushes, new files of the log and journal pruning within
kilobytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

#: So many segments a disk has room for, if its size can make it so.
_SEGMENTS_MIN = 64
_SEGMENTS_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """How one node's store is opened."""

    #: The node's data directory; made (mode 0700) when it does not exist.
    directory: Path

    #: A memtable of this size is written out as one table file. Larger ones gained nothing but
    #: memory: one takes writes while another one or two are on their way to the disk.
    write_buffer_bytes: int = 32 * MIB

    #: Memtables in memory at once; when all are full, writes stall instead of growing without
    #: bound.
    write_buffer_count: int = 8

    #: One file of the write-ahead log. It goes when memtables with all of its writes were written
    #: out, so what opening has to replay after a crash is bounded by these and a file.
    wal_file_bytes: int = 32 * MIB

    #: Values of entries from this size on are written once, to files of their segment, and not to
    #: log and table (``apart``). Each sync of some is two, so smaller ones would wait for nothing.
    apart_bytes_min: int = 64 * KIB

    #: Written to memory and not yet to the log, values included: beyond it writes stall.
    wal_waiting_bytes_max: int = 64 * MIB

    #: Entries in one segment of the log, whose tables go together (``segments``). ``None`` is 2
    #: GiB, but not more than a sixty-fourth of the disk, nor less than a 256th.
    segment_bytes: int | None = None

    #: Cached table blocks, index and filter blocks included.
    block_cache_bytes: int = 64 * MIB

    #: A scan reads this much before it lets go of its iterator: it bounds memory and the time for
    #: which other threads stand still, as iterators hold the interpreter's lock.
    scan_chunk_bytes: int = 256 * KIB

    #: The witness on disk is at most this much older than the newest synced write (S7).
    witness_interval_ms: int = 1000

    #: Below so much free space ``low_space`` is reported, and produce is to be refused: the room
    #: that upkeep itself needs. A fifth of it, or what all memtables hold if that is more, but not
    #: more than half of it, is taken at once and kept back as ballast, for opening on a full disk.
    #: ``None`` is 5 % of the disk, at most 5 GiB; 0 keeps nothing back.
    reserve_bytes: int | None = None

    #: ``False`` (--unsafe-no-fsync) acknowledges without a disk sync. For benches and for proving
    #: that the test harness notices; a power cut then loses acknowledged records.
    fsync: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        assert self.write_buffer_bytes >= 64 * KIB, "RocksDB rounds smaller memtables up to 64 KiB"
        assert self.write_buffer_count >= 2, (
            "one memtable must take writes while another is flushed"
        )
        assert self.wal_file_bytes > 0, "a file of the log must be able to hold a write"
        assert self.apart_bytes_min > KIB, "what refers to a value must be much smaller than it"
        assert self.wal_waiting_bytes_max > 0, "a write must be able to wait for its sync"
        assert self.segment_bytes is None or self.segment_bytes > 0, (
            "a segment must be able to hold an entry"
        )
        assert self.block_cache_bytes > 0, "without a block cache every read goes to the disk"
        assert self.scan_chunk_bytes > 0, "a scan must make progress"
        assert self.witness_interval_ms > 0, "a witness must be written at some time"
        assert self.reserve_bytes is None or self.reserve_bytes >= 0, "a reserve is not negative"

    def segment_bytes_on(self, disk_bytes: int) -> int:
        """How large a segment is on a disk of this size."""
        if self.segment_bytes is not None:
            return self.segment_bytes
        least = max(4 * self.write_buffer_bytes, disk_bytes // _SEGMENTS_MAX)
        return max(least, min(2 * GIB, disk_bytes // _SEGMENTS_MIN))

    @classmethod
    def small(cls, directory: Path, *, fsync: bool = True) -> StoreConfig:
        """Settings for tests: everything that happens after gigabytes happens after kilobytes."""
        return cls(
            directory=directory,
            write_buffer_bytes=64 * KIB,
            write_buffer_count=32,  # tiny ones fill faster than any disk flushes: no stalls, please
            wal_file_bytes=32 * KIB,
            apart_bytes_min=4 * KIB,
            segment_bytes=256 * KIB,
            block_cache_bytes=1 * MIB,
            scan_chunk_bytes=16 * KIB,
            witness_interval_ms=50,
            reserve_bytes=320 * KIB,
            fsync=fsync,
        )
