"""Which groups wait for which batch: what `synced` sets free.

Batches are numbered in the order in which they are written. Invariant: the queue ascends by number,
and nothing stays in it beyond the batch that it waits for.
"""

from __future__ import annotations

from collections import deque


class Landing:
    """The batches on their way to the disk."""

    def __init__(self) -> None:
        self._syncs: deque[tuple[int, list[int]]] = deque()
        self.written_number = 0

    def wait_for_sync(self, number: int, group_ids: list[int]) -> None:
        """Notes the groups that complete something with the sync of batch `number`."""
        if group_ids:
            self._syncs.append((number, group_ids))

    def written(self, number: int) -> None:
        """Notes that batch `number` is readable."""
        assert number >= self.written_number, "batches are written in order"
        self.written_number = number

    def synced(self, number: int) -> list[int]:
        """Notes that every batch up to `number` is durable; returns the groups to complete."""
        assert number <= self.written_number, f"batch {number} was synced before it was written"
        group_ids: dict[int, None] = {}
        while self._syncs and self._syncs[0][0] <= number:
            group_ids.update(dict.fromkeys(self._syncs.popleft()[1]))
        return list(group_ids)
