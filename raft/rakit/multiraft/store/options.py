"""How RocksDB is set up, as one OPTIONS text, and the proof that it took (S6).

The binding has no setter for several options that matter, above all
``track_and_verify_wals_in_manifest``, but RocksDB reads all of them from an OPTIONS file. So the
whole set-up is written as such a file beside the database and loaded from there; the OPTIONS
files inside the database are never read back, so damage to them cannot change how the store
behaves. What RocksDB writes into them on opening says what is in force, and ``verify`` compares.

Why these values:

- RocksDB's own log is not used (``ahead``), but for what an earlier version may have left there:
  ``kTolerateCorruptedTailRecords``, since the default drops acknowledged records in silence at a
  flipped bit, and absolute consistency refuses after every torn append. Tracking in the manifest
  catches a closed one that went missing or shrank, which no recovery mode notices.
- ``atomic_flush``: all families become tables together. Else the journal's rows could be in a table
  while the entries of the same writes, in another family, are in memory alone: the log would be let
  go of, and they with it (S7).
- ``avoid_unnecessary_blocking_io``: the tables of a segment that goes are deleted in the
  background, not by whoever let it go.
- ``max_bgerror_resume_count=0``: RocksDB must not heal a failed background flush behind our back;
  the store is poisoned by it and the process ends (S12).
- Tables: xxh3 block checksums, no compression (batches arrive compressed), index and filter
  blocks in the bounded cache. No checksums of RocksDB's own on memtable entries: log entries carry
  ours from the driver to the reader, and a second one costs 0.25 s of CPU per GB.
- The index of a table knows the first key of each block and, to the byte, the last one. A seek
  looks into every table of the first level, and would else read a block of each one that lies
  behind or ends before, which in a log of large entries is a megabyte. A start looks behind the end
  of each group: with shortened keys that read a third of a store of 3 GB. A look backwards from the
  end of a group lands in the next group's block; where that is damaged the range is walked forwards
  (S9).
- Direct I/O for flushes and compaction: buffered, a flush's dirty pages queue before the WAL's
  fsync (59 against 109 MB/s with three writers). File systems without O_DIRECT are probed for.
- Every table file is kept open where the process may have that many, because a file that is open
  has had its footer checked. The usual soft limit of 1,024 would end a node of 60 GB.
- Compaction: see ``_L0_TABLES_MAX``.
- Flushes and compaction write at a bounded pace, see ``BACKGROUND_BYTES_PER_S_MAX``. It is not in
  the OPTIONS file; RocksDB's own log tells of it.
"""

from __future__ import annotations

import logging
import mmap
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from rakit.multiraft.store.config import MIB, StoreConfig
from rakit.multiraft.store.errors import StoreFailedError
from rakit.multiraft.store.files import write_durably

logger = logging.getLogger(__name__)

DEFAULT_FAMILY = "default"
#: What the settings of every segment are called in the template.
SEGMENT_FAMILY = "segment"

_FAMILY = 'CFOptions "%s"'
_TABLES = 'TableOptions/BlockBasedTable "%s"'

#: So many tables of 32 MiB, as those of segments are, are 4 TiB.
_PLENTY_OF_DESCRIPTORS = 131_072

#: Compaction of the default family: levels, begun late. Measured when it held everything.
#:
#: A log is only appended and cut at its ends, so compaction moves bytes for two reasons alone: to
#: let go of what retention deleted, and to keep the number of tables low that a seek must look at.
#: None at all keeps every byte for ever (5 times the live data after 5 retentions) and a seek
#: looks at every table (1.7 ms at 280). Measured on a log-shaped load (30 groups of uneven
#: traffic, HardStates, position and journal rows beside the entries), bytes written by compaction
#: per byte appended, with retention at a fifth of the run / without any retention:
#:
#:     level, L0 trigger 4, base 8 tables     5.4 / 4.5   disk at most 1.4 x live
#:     level, 8, 16                           4.2 / 4.0                1.7
#:     level, 16, 32                          2.8 / 3.5                2.3
#:     level, 32, 64                          1.4 / 2.5                2.9   <- this one
#:     universal, width 4, 100 %              3.2 / 3.1                2.7
#:     universal, width 8, 200 %, trigger 16  2.1 / 2.6                2.3
#:     two families, log without, state with  0.0 / 0.0                5.4, grows for ever
#:
#: Levels win over tiers once they begin late, since an appended log hardly overlaps below the
#: first level. A second family for the small rows saves nothing that shows, and an idle family
#: would pin the log. Up to about 64 tables (2 GiB) nothing is compacted at all; a seek then costs
#: 0.4 ms at worst, which only readers far behind the tail pay. Dead data may take about twice the
#: base level.
#:
#: The stop triggers are far out: a disk that cannot keep up should slow readers before it stalls
#: writers. The limits on pending bytes would stall far earlier and are off.
#:
#: A compaction of the first level needs room for its output before its input goes: at worst for
#: both levels. That must fit into the reserve below which produce is refused, or a disk that is
#: merely low would be filled by its own upkeep; so on small disks compaction begins earlier, at a
#: higher price.
_L0_TABLES_MAX = 64
_L0_TABLES_MIN = 4
_BASE_PER_L0 = 2
_STALL_TABLES = 512
#: A table of a deeper level in memtables: fewer files.
_TABLE_PER_BUFFER = 2

#: What flushes and compaction may write in a second; RocksDB goes down to a twentieth of it, by 5 %
#: each second, while less than half of what is allowed is used up, and up again while more than
#: nine tenths are.
#:
#: A compaction of the first level writes gigabytes, as fast as the disk takes them, and every sync
#: of the log waits behind that: the rate halved, a single record took three times as long (0005).
#: The twentieth, 512 MiB/s, is three times what a node takes in at most, so that flushes keep up
#: beside a compaction: with 256 memtables piled up once a node took in 150 MB/s (0020). A fixed
#: bound of less is gentler, but compaction that falls behind would never come back then.
BACKGROUND_BYTES_PER_S_MAX = 20 * 512 * MIB
#: A flush asks for a megabyte at a time, and waits for the next refill behind whatever compaction
#: has taken of the last one. With 10 ms it got 100 MB/s at most and memtables piled up to half a
#: gigabyte on a node (0005).
BACKGROUND_REFILL_US = 2_000
#: One in so many turns goes to compaction though a flush waits.
BACKGROUND_FAIRNESS = 100
#: What compaction reads ahead of each table that it merges, of up to sixty-four at once, beside the
#: block in hand. RocksDB's own 2 MiB is memory and nothing else.
_COMPACTION_READAHEAD_BYTES = 256 << 10


def settings(
    config: StoreConfig, *, create: bool, direct_io: bool, compacts: bool, reserve_bytes: int
) -> dict[str, dict[str, str]]:
    """The sections of the OPTIONS file, as RocksDB spells them.

    ``create`` only at birth: over a directory whose CURRENT file is gone, RocksDB would otherwise
    start an empty database and delete the tables it no longer knows. ``reserve_bytes`` is the room
    that compaction can count on. Unless it ``compacts`` a store only flushes (`uncompacted`);
    RocksDB's limits on first-level tables do not hold then.
    """
    l0_tables = _l0_tables(reserve_bytes // config.write_buffer_bytes)
    tables = {
        "checksum": "kXXH3",
        "block_size": str(16 << 10),
        "index_type": "kBinarySearchWithFirstKey",
        "index_shortening": "kNoShortening",
        "cache_index_and_filter_blocks": "true",
        "pin_l0_filter_and_index_blocks_in_cache": "false",
        "format_version": "6",  # the first with a checksum over footer and index handles
    }
    family = {
        "compression": "kNoCompression",
        "write_buffer_size": str(config.write_buffer_bytes),
        "max_write_buffer_number": str(config.write_buffer_count),
        "target_file_size_base": str(_TABLE_PER_BUFFER * config.write_buffer_bytes),
        "compaction_style": "kCompactionStyleLevel",
        "max_bytes_for_level_base": str(_BASE_PER_L0 * l0_tables * config.write_buffer_bytes),
        "level0_file_num_compaction_trigger": str(l0_tables),
        "level0_slowdown_writes_trigger": str(_STALL_TABLES),
        "level0_stop_writes_trigger": str(_STALL_TABLES),
        "soft_pending_compaction_bytes_limit": "0",
        "hard_pending_compaction_bytes_limit": "0",
    }
    return {
        "DBOptions": {
            "create_if_missing": _spell(create),
            "error_if_exists": _spell(create),
            "avoid_flush_during_recovery": "false",  # what an earlier version left becomes tables
            "wal_recovery_mode": "kTolerateCorruptedTailRecords",
            "track_and_verify_wals_in_manifest": "true",
            "recycle_log_file_num": "0",
            "atomic_flush": "true",
            "avoid_unnecessary_blocking_io": "true",
            "paranoid_checks": "true",
            "max_bgerror_resume_count": "0",
            "max_open_files": str(open_tables_max(all_of_them=compacts)),
            "max_background_jobs": "2",
            "compaction_readahead_size": str(_COMPACTION_READAHEAD_BYTES),
            "use_direct_io_for_flush_and_compaction": _spell(direct_io),
            "keep_log_file_num": "4",
            "max_log_file_size": str(4 * MIB),
            "stats_persist_period_sec": "0",
            "stats_dump_period_sec": "0",
        },
        _FAMILY % DEFAULT_FAMILY: family | {"disable_auto_compactions": _spell(not compacts)},
        _TABLES % DEFAULT_FAMILY: tables,
        _FAMILY % SEGMENT_FAMILY: family | {"disable_auto_compactions": "true"},
        _TABLES % SEGMENT_FAMILY: tables,
    }


def segment_name(number: int) -> str:
    """The name of a segment's family."""
    return f"{SEGMENT_FAMILY}-{number}"


def segment_number(name: str) -> int:
    """The number in the name of a segment's family; raises on any other family's."""
    digits = name.removeprefix(f"{SEGMENT_FAMILY}-")
    if not digits.isdigit() or segment_name(int(digits)) != name:
        message = f"the database has a family {name!r}, which this version does not know"
        raise StoreFailedError(message, disk_full=False)
    return int(digits)


def in_force(
    sections: Mapping[str, Mapping[str, str]], segments: Sequence[str]
) -> dict[str, Mapping[str, str]]:
    """What RocksDB must say of a database that has these segments."""
    wanted = dict(sections)
    for pattern in (_FAMILY, _TABLES):
        template = wanted.pop(pattern % SEGMENT_FAMILY)
        wanted.update({pattern % name: template for name in segments})
    return wanted


def _l0_tables(reserve_tables: int) -> int:
    """The number of first-level tables at which compaction begins."""
    return max(_L0_TABLES_MIN, min(_L0_TABLES_MAX, reserve_tables // (1 + _BASE_PER_L0)))


def open_tables_max(*, all_of_them: bool) -> int:
    """How many table files may be open: all (-1) if the process may have plenty, else half.

    Not `all_of_them` where their number has no bound.

    Raises the process's own soft limit to its hard one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    unlimited = hard == resource.RLIM_INFINITY or hard >= _PLENTY_OF_DESCRIPTORS
    if unlimited and all_of_them:
        return -1
    return (_PLENTY_OF_DESCRIPTORS if unlimited else hard) // 2


def render(sections: Mapping[str, Mapping[str, str]]) -> str:
    """The sections as the text of an OPTIONS file."""
    lines = ["[Version]", "  rocksdb_version=9.8.4", "  options_file_version=1.1"]
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines.extend(f"  {name}={value}" for name, value in values.items())
    return "\n".join(lines) + "\n"


def parse(text: str) -> dict[str, dict[str, str]]:
    """The sections of an OPTIONS file."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], {})
        elif "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            current[name] = value
    return sections


def verify(database: Path, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to run unless every setting is in force, by the file RocksDB wrote (S6)."""
    newest = max(database.glob("OPTIONS-*"), key=_file_number, default=None)
    if newest is None:
        raise StoreFailedError("RocksDB wrote no OPTIONS file: settings unproven", disk_full=False)
    found = parse(newest.read_text())
    for section, values in wanted.items():
        for name, value in values.items():
            actual = found.get(section, {}).get(name)
            if actual != value:
                message = f"RocksDB runs with {name}={actual} instead of {value}"
                raise StoreFailedError(message, disk_full=False)


def template(directory: Path, text: str) -> Path:
    """A directory that holds the text as the one OPTIONS file, beside the database.

    Written only when it changes, so that a full disk does not keep a node from opening.
    """
    folder = directory / "options"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "OPTIONS-000001"
    if not path.exists() or path.read_text() != text:
        write_durably(path, text.encode())
    return folder


def probe_direct_io(directory: Path) -> bool:
    """Whether the file system takes O_DIRECT writes: some overlays and network ones refuse them."""
    path = directory / "direct-io-probe"
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
        with mmap.mmap(
            -1, mmap.PAGESIZE
        ) as page:  # O_DIRECT wants an aligned buffer: a page is one
            os.write(descriptor, page)
    except OSError as error:
        logger.info("no direct I/O in %s (%s): flushes are buffered", directory, error)
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        path.unlink(missing_ok=True)
    return True


def _file_number(path: Path) -> int:
    """The number in ``OPTIONS-000123``; temporary files (``.dbtmp``) count as oldest."""
    digits = path.name.removeprefix("OPTIONS-")
    return int(digits) if digits.isdigit() else -1


def _spell(value: bool) -> str:
    return "true" if value else "false"
