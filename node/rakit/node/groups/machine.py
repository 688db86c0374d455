"""The state machine of an internal partition: group commands in, results out. Deterministic (P9).

It decides from the command and the state alone; what does not apply is told in the result and has
no effect. Only what a newer version wrote stops the replica, because there a refusal would be a
difference between replicas. Everything is in memory and in checkpoints of the whole state, which
are taken as `rakit.node.checkpoints` says.
"""

from __future__ import annotations

from google.protobuf.unknown_fields import UnknownFieldSet

from rakit.multiraft.kv import WriteBatch
from rakit.node.checkpoints import CheckpointMarks
from rakit.node.groups.state import Groups
from rakit.peer.v1.group_command_pb2 import GroupCommand, GroupResult
from rakit.raft import Entry


class GroupsMachine:
    """Implements `rakit.multiraft.machine.StateMachine` for internal partitions."""

    def __init__(self) -> None:
        self.state = Groups()
        #: The last applied entry that had a command, or the checkpoint that was restored.
        self.applied_index = 0
        self._marks = CheckpointMarks()

    def apply(self, entry: Entry, writes: WriteBatch) -> GroupResult:
        """Applies one command: changes first, then commits, then what is forgotten."""
        del writes  # Everything is in memory and in checkpoints; nothing else is stored.
        assert entry.index > self.applied_index, "an entry is applied once, in order"
        self.applied_index = entry.index
        command = GroupCommand.FromString(bytes(entry.data))
        # The feature level keeps newer commands out of the log until every node knows them.
        assert not len(UnknownFieldSet(command)), (
            "the log holds a command that this version does not know"
        )
        state, time_ms = self.state, command.time_ms
        result = GroupResult(
            changed=[state.change(each, time_ms) for each in command.changes],
            commits=[state.commit(each, time_ms) for each in command.commits],
            dropped=[state.drop(each) for each in command.dropped_groups],
        )
        if command.forgotten_topic_ids:
            state.forget_topics(command.forgotten_topic_ids)
        self._marks.count(entry, state.items_count)
        return result

    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is to be stored as of the entry that was applied last."""
        return self._marks.due

    def trim_index(self) -> int:
        """The checkpoint before the last one."""
        return self._marks.previous_index

    def trim_targets(self) -> tuple[int]:
        """The last checkpoint, which is the one before the last when the next is taken."""
        return (self._marks.index,)

    def snapshot(self) -> bytes:
        """The whole state."""
        return self.state.encode(self._marks.index, self._marks.previous_index)

    def restore(self, data: bytes, index: int) -> None:
        """Takes over a checkpoint."""
        self.applied_index = index
        marked, previous = self.state.decode(data)
        assert marked in {0, index}, "a checkpoint knows its own index"
        self._marks.restored(index, previous)
