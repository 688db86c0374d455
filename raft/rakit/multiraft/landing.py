"""Which groups wait for which batch: what `written` and `synced` set free.

Batches are numbered in the order in which they are written. Invariant: both queues ascend by
number, and nothing stays in them beyond the batch that it waits for.
"""

from __future__ import annotations

from collections import deque

from rakit.multiraft.group import Group


class Landing:
    """The batches on their way to the disk."""

    def __init__(self) -> None:
        self._syncs: deque[tuple[int, list[int]]] = deque()
        #: (number, group) of bases that are in memory until their batch is written.
        self._held_bases: deque[tuple[int, Group]] = deque()
        self.written_number = 0

    def wait_for_sync(self, number: int, group_ids: list[int]) -> None:
        """Notes the groups that complete something with the sync of batch `number`."""
        if group_ids:
            self._syncs.append((number, group_ids))

    def hold_base(self, group: Group, number: int) -> None:
        """Notes that a group's base is in batch `number` and not readable on disk before."""
        group.base_number = number
        self._held_bases.append((number, group))

    def written(self, number: int) -> None:
        """Notes that batch `number` is readable."""
        assert number >= self.written_number, "batches are written in order"
        self.written_number = number
        while self._held_bases and self._held_bases[0][0] <= number:
            at, group = self._held_bases.popleft()
            if group.base_number == at:
                group.storage.base_written()

    def synced(self, number: int) -> list[int]:
        """Notes that every batch up to `number` is durable; returns the groups to complete."""
        assert number <= self.written_number, f"batch {number} was synced before it was written"
        group_ids: dict[int, None] = {}
        while self._syncs and self._syncs[0][0] <= number:
            group_ids.update(dict.fromkeys(self._syncs.popleft()[1]))
        return list(group_ids)
