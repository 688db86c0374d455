"""Room on the disk: the ballast, and when to refuse new data (S12).

A full disk must not end a node for good. With less free than the reserve ``low`` is reported and
the node is to refuse produce while metadata, deletion and retention go on. Should the disk fill up
nevertheless, RocksDB could not even open: recovery writes the replayed log out as tables. So a
file of nothing, the ballast, holds room back; opening gives it up when there is not enough, and
stays ``low`` until there is room to put it back.

A disk that hangs may keep even this question waiting for ever (S13). So only the syncer's thread
asks it, which waits for the disk anyway; everybody else is told what it found last.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft.store.config import GIB, StoreConfig

logger = logging.getLogger(__name__)

_RESERVE_BYTES_MAX = 5 * GIB
_RESERVE_SHARE = 20  # one twentieth of the disk
_BALLAST_SHARE = 5  # one fifth of the reserve; more for what memtables may have to be written out,
_BALLAST_SHARE_MAX = 2  # up to one half of it
_EASE_SHARE = 10  # a tenth of the reserve more than that, before there is room again
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Room:
    """The state of the file system that holds the store."""

    free_bytes: int
    total_bytes: int


def room(path: Path) -> Room:
    """Ask the file system; ``free_bytes`` is what this process may still use."""
    state = os.statvfs(path)
    return Room(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize)


def reserve_bytes(config: StoreConfig, total_bytes: int) -> int:
    """Free space below which produce is refused: the room that upkeep itself needs."""
    if config.reserve_bytes is not None:
        return config.reserve_bytes
    return min(_RESERVE_BYTES_MAX, total_bytes // _RESERVE_SHARE)


class Space:
    """Watches the room of one store and owns its ballast file."""

    def __init__(self, config: StoreConfig, ballast: Path) -> None:
        self._ballast = ballast
        self._low_bytes = reserve_bytes(config, room(ballast.parent).total_bytes)
        memtables = config.write_buffer_count * config.write_buffer_bytes
        least, most = self._low_bytes // _BALLAST_SHARE, self._low_bytes // _BALLAST_SHARE_MAX
        self._ballast_bytes = min(max(least, memtables), most)
        self._spare_bytes = config.write_buffer_bytes
        self._was_low = False
        self._next_look_s = 0.0

    @property
    def free_bytes(self) -> int:
        """Free bytes for this process."""
        return room(self._ballast.parent).free_bytes

    @property
    def low(self) -> bool:
        """Whether produce is to be refused, as of the last look; asks the disk nothing."""
        return self._was_low

    def look(self) -> bool:
        """Whether produce is to be refused: little room, or the ballast had to be given up."""
        self._next_look_s = time.monotonic() + _LOOK_SECONDS
        # Leaderships go away with it and come back: not at each file that comes or goes.
        eased_bytes = self._low_bytes // _EASE_SHARE if self._was_low else 0
        self._was_low = self.free_bytes < self._low_bytes + eased_bytes or not self._has_ballast
        return self._was_low

    def look_if_due(self) -> None:
        """Look, unless that was a moment ago: called after every flush."""
        if time.monotonic() >= self._next_look_s:
            self.look()

    @property
    def tight(self) -> bool:
        """Whether it is time to compact what was deleted, while there is room to do it in."""
        return self.free_bytes < 2 * self._low_bytes

    @property
    def _has_ballast(self) -> bool:
        return self._ballast_bytes == 0 or self._ballast.exists()

    def release(self) -> bool:
        """Give the ballast up; False when there was none."""
        if not self._ballast.exists():
            return False
        self._ballast.unlink()
        logger.warning("disk full: ballast released, %d bytes are free", self.free_bytes)
        return True

    def release_if_short(self, live_wal_bytes: int) -> None:
        """Before opening: recovery needs about as much room as there is log to replay."""
        if self.free_bytes < live_wal_bytes + self._spare_bytes:
            self.release()

    def restore(self) -> None:
        """Put the ballast back if it is missing and everything else keeps enough room."""
        if self._has_ballast:
            return
        if self.free_bytes < self._ballast_bytes + max(self._low_bytes, self._ballast_bytes):
            return
        try:
            self._allocate()
        except OSError as error:
            self._ballast.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            logger.warning("no room for the ballast of %d bytes", self._ballast_bytes)

    def _allocate(self) -> None:
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._ballast_bytes)
        finally:
            os.close(descriptor)
