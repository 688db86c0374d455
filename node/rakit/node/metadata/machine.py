"""The metadata group's state machine: commands in, results out, the registry in between.

It decides from the command and the registry alone. Its results are `MetadataResult`s, refusals
among them, so that a proposer on any node learns what became of its command.

An entry that cannot be applied would stop every replica, now and at every replay. So whatever is
wrong with a command, as every version sees it, is a refusal: it had no effect. Only what a newer
version wrote stops the replica, because there a refusal would be a difference between replicas.

Checkpoints are due after a number of entries or of bytes since the last one, whichever comes
first; the log is kept between the last two of them, so that a node that was away for a short time
catches up by ordinary entries. Both marks are part of the state, so every replica takes its
checkpoints at the same entries.

The machine object and its registry live as long as the process: a restore changes them in place.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.unknown_fields import UnknownFieldSet

from rakit.api.v1 import error_pb2
from rakit.multiraft.kv import WriteBatch
from rakit.node.errors import RakitError
from rakit.node.metadata import nodes, state, topics
from rakit.node.metadata.refusals import to_refusal
from rakit.node.metadata.registry import Change, Registry
from rakit.peer.v1.metadata_command_pb2 import MetadataCommand, MetadataResult
from rakit.raft import Entry

#: What one more checkpoint costs is about what applying these entries again costs.
CHECKPOINT_ENTRIES_COUNT: Final = 1_000
CHECKPOINT_BYTES: Final = 4 << 20


class MetadataMachine:
    """Implements `rakit.multiraft.machine.StateMachine` for group 1."""

    def __init__(self, checkpoint_entries_count: int = CHECKPOINT_ENTRIES_COUNT) -> None:
        self.registry = Registry()
        self._encoder = state.Encoder()
        self._checkpoint_entries_count = checkpoint_entries_count
        #: The last applied entry that had a command, or the checkpoint that was restored.
        self.applied_index = 0
        self._checkpoint_index = 0
        self._previous_index = 0
        self._entries_since = 0
        self._bytes_since = 0
        self._due = False

    @property
    def version(self) -> int:
        """Grows with every change of the registry."""
        return self.registry.version

    def apply(self, entry: Entry, writes: WriteBatch) -> MetadataResult:
        """Applies one command; a refusal is a result like any other and leaves no trace."""
        del writes  # Everything is in memory and in checkpoints; nothing else is stored.
        assert entry.index > self.applied_index, "an entry is applied once, in order"
        self.applied_index = entry.index
        command = MetadataCommand.FromString(entry.data)
        try:
            result = _dispatch(self.registry, command)
        except RakitError as error:
            result = MetadataResult(refusal=to_refusal(error))
        self._count(entry)
        return result

    def _count(self, entry: Entry) -> None:
        self._entries_since += 1
        self._bytes_since += len(entry.data)
        self._due = (
            self._entries_since >= self._checkpoint_entries_count
            or self._bytes_since >= CHECKPOINT_BYTES
        )
        if self._due:
            self._mark(entry.index)

    def _mark(self, index: int) -> None:
        self._previous_index, self._checkpoint_index = self._checkpoint_index, index
        self._entries_since = 0
        self._bytes_since = 0

    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is to be stored as of the entry that was applied last."""
        return self._due

    def trim_index(self) -> int:
        """The checkpoint before the last one."""
        return self._previous_index

    def trim_targets(self) -> tuple[int]:
        """The last checkpoint, which is the one before the last when the next is taken."""
        return (self._checkpoint_index,)

    def snapshot(self) -> bytes:
        """The whole state."""
        return self._encoder.encode(self.registry, self._checkpoint_index, self._previous_index)

    def restore(self, data: bytes, index: int) -> None:
        """Takes over a checkpoint in place; subscribers learn that anything may have changed."""
        self.registry.reset()
        self._encoder = state.Encoder()
        self.applied_index = index
        self._checkpoint_index = index
        self._previous_index = 0
        self._entries_since = 0
        self._bytes_since = 0
        self._due = False
        if data:
            marked, self._previous_index = state.decode(data, self.registry)
            assert marked in {0, index}, "a checkpoint knows its own index"
            # What the next checkpoint need not encode: a start has time for it, an entry has not.
            self._encoder.encode(self.registry, 0, 0)
        self.registry.changed(Change(0, everything=True))


def _dispatch(registry: Registry, command: MetadataCommand) -> MetadataResult:
    kind = command.WhichOneof("command")
    if kind is not None and kind != "found_cluster" and not registry.cluster_id:
        # Ids that were given out before would not be those that the founders gave themselves.
        raise RakitError(error_pb2.ERROR_REASON_NO_QUORUM, "the cluster is being founded")
    match kind:
        case "found_cluster":
            return nodes.found_cluster(registry, command.found_cluster, command.time_ms)
        case "register_node":
            return nodes.register_node(registry, command.register_node, command.time_ms)
        case "create_topic":
            return topics.create_topic(registry, command.create_topic, command.time_ms)
        case "update_topic":
            return topics.update_topic(registry, command.update_topic)
        case "delete_topic":
            return topics.delete_topic(registry, command.delete_topic)
        case "init_producer":
            return topics.init_producer(registry, command.init_producer)
        case _:
            # The feature level keeps newer commands out of the log until every node knows them.
            assert not len(UnknownFieldSet(command)), (
                "the log holds a command that this version does not know"
            )
            raise RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, "the command is empty")
