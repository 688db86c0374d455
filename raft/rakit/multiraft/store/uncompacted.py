"""A store with a table that cannot be read: it goes on, and rewrites no tables (S9).

RocksDB reads every block of the tables that it merges. A block that fails its checksum, or that the
disk does not give, ends the merge, and RocksDB takes no write from then on: the store is poisoned,
the process ends with 11 (S12). What compaction picks at the next start is the same. So one bad
block would end a node at every start, and bad blocks on two nodes of three, in whatever partitions,
would stop every group.

So before the process ends a note is left in the data directory, and while it is there no table is
rewritten, neither in the background nor for room. Every group works on. A replica whose rows are
damaged is shut out when they are read, and made anew, as always. What is lost is what compaction is
for: a seek looks into more and more tables, and what retention deletes keeps its room.

So this lasts as long as the disk has room, until a person lets the node begin with an empty
directory. The note goes with the database. Whoever takes it away while the node is down has the
tables rewritten again, for example after a disk gave an error that has passed.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.files import write_durably

logger = logging.getLogger(__name__)

#: In the data directory, beside the database.
NAME = "uncompacted"

_REASON_BYTES_MAX = 4096


def note(directory: Path, fault: Fault, text: str) -> None:
    """Leave it for the next start, if what a write failed by is a table that cannot be read.

    Without it, for a disk that takes no note, that start ends as this one did.
    """
    if fault not in {Fault.CORRUPTION, Fault.TABLE_UNREAD}:
        return
    try:
        write_durably(directory / NAME, text.encode()[:_REASON_BYTES_MAX])
    except OSError as error:
        logger.error("no note of the table that cannot be read could be left: %s", error)  # noqa: TRY400


def reason(directory: Path) -> str:
    """Why no table is rewritten; empty when they are."""
    try:
        return (directory / NAME).read_bytes()[:_REASON_BYTES_MAX].decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"the note about it cannot be read either: {error}"
