"""Giving up a database that cannot be trusted as a whole (S9).

A store that does not open, or lacks what it must have, ends its node with 11, and again at every
later start. If all that it holds is elsewhere there is a better end: a new store, which is filled
again like that of a lost disk. Whether it can be spared only the cluster can say
(`rakit.node.giving_up`); here is the act.

Rules:

- The directory is locked from before the question until after the act, so what was asked about is
  what goes.
- The act is one rename. From then on the database has vanished, which makes the next opening that
  of a new store under a new uuid (S11). It takes away what is left, too.
- A store with a replica that contradicts the others, and may be the one that is right, is marked as
  long as it lasts, and never given up: it is for a person.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft.store import identity as identities
from rakit.multiraft.store.directory import DataDirectory
from rakit.multiraft.store.files import sync_directory, write_durably
from rakit.multiraft.store.identity import Identity

logger = logging.getLogger(__name__)

#: In the data directory, beside the database.
DISPUTED = "disputed"


def dispute(directory: DataDirectory) -> bool:
    """Mark a store, durably, as one that is for a person; False if the disk takes no mark now."""
    try:
        write_durably(directory.path / DISPUTED, b"A replica here contradicts the others.\n")
    except OSError as error:
        logger.warning("the store could not be marked as disputed yet: %s", error)
        return False
    return True


def tidy(directory: DataDirectory) -> None:
    """Take away what is left of a database that was given up."""
    if directory.given_up.exists():
        try:
            shutil.rmtree(directory.given_up)
        except OSError as error:
            logger.warning("%s could not be deleted yet: %s", directory.given_up, error)


@dataclass(frozen=True, slots=True)
class Held:
    """A closed store that nobody else can open meanwhile."""

    directory: DataDirectory
    identity: Identity
    #: It is for a person.
    is_disputed: bool

    def discard(self) -> None:
        """Give it up, for good. Raises ``OSError`` if it is still there.

        So it does while an earlier one could not be deleted: that may take long, and what allowed
        the act holds for a moment only.
        """
        self.directory.database.rename(self.directory.given_up)
        logger.warning("store %s is given up: the next is a new one", self.identity.store_uuid)
        try:
            sync_directory(self.directory.path)
        except OSError as error:
            # After a power cut it may be back, and asks again.
            logger.warning("the end of the store may not be on the disk yet: %s", error)

    def close(self) -> None:
        """Let others in."""
        self.directory.close()


def hold(directory: Path) -> Held | None:
    """Hold a closed store; None where there is none, or nobody knows whose it is.

    Raises ``StoreError``, for example where another process has it, and ``OSError``.
    """
    locked = DataDirectory.open(directory)
    try:
        found = identities.load(locked.identity)
        if found is not None and found.database_created and locked.database.is_dir():
            return Held(locked, found, (locked.path / DISPUTED).exists())
    except BaseException:
        locked.close()
        raise
    locked.close()
    return None
