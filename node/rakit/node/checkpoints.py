"""When a state machine that lives in memory has a checkpoint of its whole state stored.

One is due after a number of entries or of bytes since the last one, whichever comes first, and
later the more the state holds: what a checkpoint costs is to stay small beside what applying costs.
The log is kept between the last two, so that a node that was away for a short time catches up by
ordinary entries. Both marks are part of the state, so every replica takes its checkpoints at the
same entries (P9).
"""

from __future__ import annotations

from typing import Final

from rakit.raft import Entry

#: What one more checkpoint costs is about what applying these entries again costs.
CHECKPOINT_ENTRIES_COUNT: Final = 1_000
CHECKPOINT_BYTES: Final = 4 << 20
#: So many things in the state put the next checkpoint off by one entry, and by so many bytes.
_ITEMS_PER_ENTRY_COUNT: Final = 16
_BYTES_PER_ITEM: Final = 16


class CheckpointMarks:
    """The last two checkpoints, and how far the next one is."""

    __slots__ = ("_bytes", "_entries", "_entries_count", "due", "index", "previous_index")

    def __init__(self, entries_count: int | None = None) -> None:
        # Part of the format: only simulations, which cannot wait so long, have another one.
        self._entries_count = CHECKPOINT_ENTRIES_COUNT if entries_count is None else entries_count
        #: The checkpoint taken last.
        self.index = 0
        #: The one before it: the log may go up to here.
        self.previous_index = 0
        #: One is to be taken as of the entry that was counted last.
        self.due = False
        self._entries = 0
        self._bytes = 0

    def count(self, entry: Entry, items_count: int = 0) -> None:
        """Takes in that an entry was applied, and how much the state holds."""
        self._entries += 1
        self._bytes += len(entry.data)
        self.due = (
            self._entries >= self._entries_count + items_count // _ITEMS_PER_ENTRY_COUNT
            or self._bytes >= CHECKPOINT_BYTES + items_count * _BYTES_PER_ITEM
        )
        if self.due:
            self.previous_index, self.index = self.index, entry.index
            self._entries = 0
            self._bytes = 0

    def restored(self, index: int, previous_index: int) -> None:
        """Goes on from a checkpoint."""
        self.index = index
        self.previous_index = previous_index
        self.due = False
        self._entries = 0
        self._bytes = 0
