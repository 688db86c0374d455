"""What a node keeps on its disk about its cluster, and who it is once it belongs to one.

`formation.json` lies beside the store and is replaced durably at every step that others will rely
on: the one promise, the membership. It names the store that it is about; a store that was made anew
makes it meaningless, except for what the store's own identity still says (S11).

The promise is kept after the founding: until the metadata group has been seen at work on this disk,
a crash may mean that the group must be made again, from the founding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import json_format

from rakit.multiraft.store import StoreDamagedError
from rakit.multiraft.store.errors import LossKind, LossReport
from rakit.multiraft.store.files import write_durably
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1.metadata_service_pb2 import FormationRecord


@dataclass(frozen=True, slots=True)
class Member:
    """A node that belongs to a cluster."""

    cluster_id: str
    node_id: int
    store_uuid: str
    #: 0: the record is gone; the store knows.
    metadata_replica_id: int
    #: Present on a founder.
    founding: pb.Founding | None = None
    #: Its replica of the metadata group was seen at work before.
    metadata_seen: bool = False
    #: Where the other nodes were when it became a member, by node id.
    peers: Mapping[int, str] = field(default_factory=dict[int, str])


def load(path: Path, store_uuid: str) -> FormationRecord:
    """The record of this store, a blank one where there is none. Raises `StoreDamagedError`."""
    blank = FormationRecord(store_uuid=store_uuid)
    try:
        text = path.read_text()
    except FileNotFoundError:
        return blank
    try:
        record = json_format.Parse(text, FormationRecord())
    except json_format.ParseError as error:
        detail = f"{path} is damaged: {error}"
        raise StoreDamagedError(LossReport(LossKind.UNREADABLE, detail)) from error
    return record if record.store_uuid == store_uuid else blank


def save(path: Path, record: FormationRecord) -> None:
    """Makes the record durable. Blocks for the time of two syncs."""
    write_durably(path, json_format.MessageToJson(record).encode())


def member_of(record: FormationRecord) -> Member | None:
    """Who the record says that this node is."""
    if not record.HasField("member"):
        return None
    accepted = record.member
    return Member(
        cluster_id=accepted.cluster_id,
        node_id=accepted.node_id,
        store_uuid=record.store_uuid,
        metadata_replica_id=accepted.metadata_replica_id,
        founding=record.founding if record.HasField("founding") else None,
        metadata_seen=record.metadata_seen,
        peers={hint.node_id: hint.address for hint in accepted.peers},
    )
