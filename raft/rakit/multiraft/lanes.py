"""Which nodes have no room for more appends, and which groups wait until they have (S17).

A group reads entries only to send them. While the way to a node is full, or there is none, what its
leaders read for it could only be thrown away, and read again after the next heartbeat. So they hold
their replicas there: those are sent nothing, and the log keeps what they need. When there is room
again everybody who waited goes on, each with its share.

Nothing is held for a node of which nothing was told. Votes, heartbeats and reads go another way.
"""

from __future__ import annotations

from rakit.multiraft.group import Group
from rakit.multiraft.machine import node_of


class Lanes:
    """The ways to other nodes, as far as they are shut."""

    def __init__(self) -> None:
        #: Of each node that is shut: the groups kept from sending, each with the replica there. A
        #: group has two on one node while one takes the other's place.
        self.waiting: dict[int, dict[tuple[int, int], None]] = {}

    def shut(self, node_id: int) -> None:
        """Notes that a node takes no more."""
        self.waiting.setdefault(node_id, {})

    def open(self, node_id: int) -> list[tuple[int, int]]:
        """Notes that a node has room; returns (group, replica) of all that were held there."""
        return list(self.waiting.pop(node_id, {}))

    def hold(self, group: Group) -> None:
        """Keeps a group, if it leads, from sending where there is no room; before it is stepped."""
        for replica in group.raw.hold(lambda each: node_of(each) in self.waiting):
            self.waiting[node_of(replica)][group.meta.group_id, replica] = None
