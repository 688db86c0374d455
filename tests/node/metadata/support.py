"""A machine that is driven by hand, and requests for it."""

from __future__ import annotations

from rakit.multiraft.kv import WriteBatch
from rakit.node.checkpoints import CHECKPOINT_ENTRIES_COUNT
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.refusals import to_error
from rakit.node.metadata.registry import Registry
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import Entry


class Log:
    """Applies commands one after the other, as replicas do, and can be replayed."""

    def __init__(self, checkpoint_entries_count: int = CHECKPOINT_ENTRIES_COUNT) -> None:
        self.machine = MetadataMachine(checkpoint_entries_count)
        self.entries: list[Entry] = []
        #: Index and data of every checkpoint that was due.
        self.checkpoints: list[tuple[int, bytes]] = []

    @property
    def registry(self) -> Registry:
        return self.machine.registry

    def apply(self, command: pb.MetadataCommand, time_ms: int = 1_000) -> pb.MetadataResult:
        stamped = pb.MetadataCommand()
        stamped.CopyFrom(command)
        stamped.time_ms = time_ms
        entry = Entry(term=1, index=len(self.entries) + 2, data=stamped.SerializeToString())
        self.entries.append(entry)
        writes = WriteBatch()
        result = self.machine.apply(entry, writes)
        assert not writes.ops, "the metadata machine stores nothing beside its checkpoints"
        if self.machine.checkpoint_due():
            self.checkpoints.append((entry.index, self.machine.snapshot()))
        return result

    def do(self, command: pb.MetadataCommand, time_ms: int = 1_000) -> pb.MetadataResult:
        """Applies a command that must not be refused, or raises the refusal."""
        result = self.apply(command, time_ms)
        if result.HasField("refusal"):
            raise to_error(result.refusal)
        return result

    def found(self, count: int = 3) -> Log:
        members = [describe(f"n{number}") for number in range(1, count + 1)]
        founding = pb.Founding(cluster_id="cluster", members=members)
        self.do(pb.MetadataCommand(found_cluster=pb.FoundCluster(founding=founding)))
        return self


def describe(name: str, store: str = "", address: str = "", rack: str = "") -> pb.NodeDescription:
    return pb.NodeDescription(
        name=name,
        store_uuid=store or f"store-{name}",
        peer_address=address or f"{name}:7071",
        addresses=[pb.NamedAddress(listener="default", address=f"{name}:7070")],
        rack=rack,
    )


def register(node: pb.NodeDescription, node_id: int = 0, replaces: str = "") -> pb.MetadataCommand:
    return pb.MetadataCommand(
        register_node=pb.RegisterNode(node=node, node_id=node_id, replaces_store_uuid=replaces)
    )
