"""How a command says no: the same on every replica, without a trace in the state.

A handler raises `RakitError` (or `NodeRefusedError`, where a node must stop) before it has changed
anything; the machine turns it into a `MetadataRefusal`, which travels to the proposer and becomes
the same error again there. Only errors that the state decides belong here. A refusal is NOT_APPLIED
by its nature: the entry is in the log, and all replicas know that it did nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.peer.v1 import metadata_command_pb2
from rakit.peer.v1.metadata_command_pb2 import MetadataRefusal
from rakit.peer.v1.node_service_pb2 import Destination

if TYPE_CHECKING:
    Refusal: TypeAlias = metadata_command_pb2.NodeRefusal.ValueType


class NodeRefusedError(RakitError):
    """The cluster does not take this node. Waiting does not help: it exits with code 12."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(error_pb2.ERROR_REASON_INVALID_REQUEST, message)
        self.refusal = refusal


def not_meant(cluster_id: str, node_id: int, meant: Destination) -> str:
    """What a node says to a request for another one, whose address it has by now."""
    return (
        f"this is node {node_id} of cluster {cluster_id}, not node {meant.node_id} of cluster"
        f" {meant.cluster_id}"
    )


def to_refusal(error: RakitError) -> MetadataRefusal:
    """The error as it is sent to the proposer."""
    refusal = MetadataRefusal(reason=error.reason, message=error.message, metadata=error.metadata)
    if isinstance(error, NodeRefusedError):
        refusal.node_refusal = error.refusal
    return refusal


def to_error(refusal: MetadataRefusal) -> RakitError:
    """The error that was refused with."""
    if refusal.node_refusal:
        return NodeRefusedError(refusal.node_refusal, refusal.message)
    return RakitError(refusal.reason, refusal.message, dict(refusal.metadata))
