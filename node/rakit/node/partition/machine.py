"""The state machine of a partition's Raft group: applies entries, writes position rows.

It is what the driver of `rakit.multiraft` and the simulator run on every replica. The state and its
transitions are in `state`; this module joins them to the log: it decodes payloads, places position
rows, says when a checkpoint is due and up to where the log may go.

Rules:

- Deterministic (P9): two replicas that applied the same entries have byte-identical snapshots,
  wherever each of them started from.
- A trim removes the position rows below the new start in the write batch that the apply joins; the
  driver removes the entries (S4).
- Whatever cannot be applied is a bug or damage: it raises, and the replica stops. An entry is never
  skipped.
"""

from __future__ import annotations

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupMeta
from rakit.node.partition.commands import Append, Appends, Checkpoint, decode
from rakit.node.partition.positions import Row, Spacing, encode_row
from rakit.node.partition.snapshots import decode_state, encode_state
from rakit.node.partition.state import Applied, LogState
from rakit.raft import Entry


class PartitionMachine:
    """A partition's replicated state as of `applied_index`. Implements `StateMachine`."""

    def __init__(self, meta: GroupMeta) -> None:
        self.group_id = meta.group_id
        self.state = LogState()
        #: Index of the last entry that was applied or restored. Entries without data do not count.
        self.applied_index = 0
        self._spacing = Spacing()
        self._checkpoint_due = False

    def apply(self, entry: Entry, writes: WriteBatch) -> Applied:
        """Applies an entry and returns where its batch went, or each of its batches."""
        assert entry.index > self.applied_index, (
            f"entry {entry.index} comes after {self.applied_index}: entries apply once, in order"
        )
        command = decode(entry.data)
        start_before = self.state.start_offset
        stored = self.state.apply(command, entry.term, entry.index, len(entry.data))
        self.applied_index = entry.index
        if isinstance(command, Append | Appends) and self._spacing.wants_row(len(entry.data)):
            row = Row(command.base_offset, entry.index, command.append_time_ms)
            writes.put(keys.position(self.group_id, row.offset), encode_row(row))
        if self.state.start_offset > start_before:
            writes.delete_range(
                keys.position(self.group_id, 0),
                keys.position(self.group_id, self.state.start_offset),
            )
        self._checkpoint_due = isinstance(command, Checkpoint) or (
            isinstance(command, Append | Appends) and command.checkpoint
        )
        if self._checkpoint_due:
            self._spacing.restart()
        return stored

    def snapshot(self) -> bytes:
        """Returns the state as of the last applied entry."""
        # The driver may ask again after an entry without data, which is not applied here.
        self._checkpoint_due = False
        return encode_state(self.state)

    def restore(self, data: bytes, index: int) -> None:
        """Takes over the state of a checkpoint as of `index`."""
        self.state = decode_state(data)
        self.applied_index = index
        self._spacing = Spacing()
        self._checkpoint_due = False

    def checkpoint_due(self) -> bool:
        """Tells whether the last entry asked for a checkpoint as of itself."""
        return self._checkpoint_due

    def trim_index(self) -> int:
        """Returns the index of the checkpoint that the log was last cut at; 0: never cut."""
        return self.state.start.index

    def trim_targets(self) -> list[int]:
        """Returns the indexes of the marks at which the log may yet be cut."""
        return [mark.index for mark in self.state.marks]
