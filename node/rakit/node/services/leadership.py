"""Moves the leadership of a group, on the node that has it.

A transfer is a request to the core: the successor is brought up to date and told to campaign. It
may fail in silence, so the caller watches who leads and gives up after a while.
"""

from __future__ import annotations

from typing import Protocol

from rakit.api.v1 import error_pb2
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError
from rakit.node.partition.answers import refused
from rakit.raft import ConfState, PeerStatus, Status


class LedGroup(Protocol):
    """The part of a group that is needed to choose a successor."""

    conf_state: ConfState
    ready: bool

    def status(self) -> Status:
        """Progress of every replica, on the leader."""
        ...


class TransferHost(Protocol):
    """The part of the host that moves leaderships."""

    node_id: int

    def group(self, group_id: int) -> LedGroup | None:
        """A replica of this node."""
        ...

    def node_is_up(self, node_id: int) -> bool:
        """Whether a node answered lately."""
        ...

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        """Hands the leadership over; raises ProposalRefusedError."""
        ...


def transfer(host: TransferHost, group_id: int, to_node_id: int) -> None:
    """Begins to move a group that this node leads; 0 picks the most advanced living voter."""
    group = host.group(group_id)
    if group is None or not group.ready:
        raise RakitError(
            error_pb2.ERROR_REASON_NOT_LEADER, "This node does not lead the partition any more."
        )
    others = [each for each in group.conf_state.voters if node_of(each) != host.node_id]
    if to_node_id:
        others = [each for each in others if node_of(each) == to_node_id]
        if not others:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"Node {to_node_id} has no voting replica of the partition.",
            )
    living = [each for each in others if host.node_is_up(node_of(each))]
    if not living:
        raise RakitError(
            error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
            "No other voting replica of the partition is on a node that is up.",
        )
    fitness = {peer.id: _fitness(peer) for peer in group.status().peers}
    successor = max(living, key=lambda each: fitness.get(each, (False, 0)))
    try:
        host.transfer_leader(group_id, successor)
    except ProposalRefusedError as error:
        raise refused(error) from error


def _fitness(peer: PeerStatus) -> tuple[bool, int]:
    """Whoever doubts its log, or lost it, would be refused: it comes last, however long it is."""
    return not (peer.doubtful or peer.lost_log), peer.match
