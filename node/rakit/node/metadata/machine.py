"""The metadata group's state machine: commands in, results out, the registry in between.

It decides from the command and the registry alone. Its results are `MetadataResult`s, refusals
among them, so that a proposer on any node learns what became of its command.

An entry that cannot be applied would stop every replica, now and at every replay. So whatever is
wrong with a command, as every version sees it, is a refusal: it had no effect. Only what a newer
version wrote stops the replica, because there a refusal would be a difference between replicas.

Checkpoints are taken as `rakit.node.checkpoints` says.

The machine object and its registry live as long as the process: a restore changes them in place.
It does so in one piece, because the core takes a base in one: nobody else on the node has a turn
meanwhile. That is up to 18 us for each partition and 1 us for each producer name, so 0.16 s with
10,000 partitions in 1,000 topics and 2.4 s where every table of the registry is full. It happens at
a start, and to a replica that was away for longer than the log of the group is kept.
"""

from __future__ import annotations

from google.protobuf.unknown_fields import UnknownFieldSet

from rakit.api.v1 import error_pb2
from rakit.multiraft.kv import WriteBatch
from rakit.node.checkpoints import CheckpointMarks
from rakit.node.errors import RakitError
from rakit.node.metadata import nodes, state, topics
from rakit.node.metadata.refusals import to_refusal
from rakit.node.metadata.registry import Change, Registry
from rakit.peer.v1.metadata_command_pb2 import MetadataCommand, MetadataResult
from rakit.raft import Entry


class MetadataMachine:
    """Implements `rakit.multiraft.machine.StateMachine` for group 1."""

    def __init__(self, checkpoint_entries_count: int | None = None) -> None:
        self.registry = Registry()
        self._encoder = state.Encoder()
        #: The last applied entry that had a command, or the checkpoint that was restored.
        self.applied_index = 0
        self._marks = CheckpointMarks(checkpoint_entries_count)

    @property
    def version(self) -> int:
        """Grows with every change of the registry."""
        return self.registry.version

    def apply(self, entry: Entry, writes: WriteBatch) -> MetadataResult:
        """Applies one command; a refusal is a result like any other and leaves no trace."""
        del writes  # Everything is in memory and in checkpoints; nothing else is stored.
        assert entry.index > self.applied_index, "an entry is applied once, in order"
        self.applied_index = entry.index
        command = MetadataCommand.FromString(bytes(entry.data))
        try:
            result = _dispatch(self.registry, command)
        except RakitError as error:
            result = MetadataResult(refusal=to_refusal(error))
        self._marks.count(entry)
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
        return self._encoder.encode(self.registry, self._marks.index, self._marks.previous_index)

    def restore(self, data: bytes, index: int) -> None:
        """Takes over a checkpoint in place; subscribers learn that anything may have changed."""
        self.registry.reset()
        self._encoder = state.Encoder()
        self.applied_index = index
        previous = 0
        if data:
            marked, previous = state.decode(data, self.registry)
            nodes.check_level(self.registry.feature_level)
            assert marked in {0, index}, "a checkpoint knows its own index"
            # What the next checkpoint need not encode: a start has time for it, an entry has not.
            self._encoder.encode(self.registry, 0, 0)
        self._marks.restored(index, previous)
        self.registry.changed(Change(0, everything=True))


def _dispatch(registry: Registry, command: MetadataCommand) -> MetadataResult:
    kind = command.WhichOneof("command")
    if kind is not None and kind != "found_cluster" and not registry.cluster_id:
        # Ids that were given out before would not be those that the founders gave themselves.
        raise RakitError(error_pb2.ERROR_REASON_NO_QUORUM, "the cluster is being founded")
    match kind:
        case "found_cluster":
            return nodes.found_cluster(registry, command.found_cluster, command.time_ms)
        case "raise_feature_level":
            return nodes.raise_feature_level(registry, command.raise_feature_level)
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
        case "create_group_partitions":
            made = command.create_group_partitions
            return topics.create_group_partitions(registry, made, command.time_ms)
        case "replace_replica":
            return topics.replace_replica(registry, command.replace_replica)
        case _:
            # The feature level keeps newer commands out of the log until every node knows them.
            assert not len(UnknownFieldSet(command)), (
                "the log holds a command that this version does not know"
            )
            raise RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, "the command is empty")
