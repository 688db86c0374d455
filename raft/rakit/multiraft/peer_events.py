"""What streams between nodes tell, in one protocol, so that links and sessions need no layers.

Everything is called on the loop and returns at once, but for `arrived`, which returns when there is
room for more.
"""

from __future__ import annotations

from typing import Protocol

from rakit.multiraft.hello import Lane
from rakit.multiraft.inbox import Arrival
from rakit.peer.v1 import raft_service_pb2 as wire


class PeerEvents(Protocol):
    """The listener of every stream of a node."""

    def introduced(self, node_id: int, boot_epoch: int) -> None:
        """A peer said an acceptable hello, on a stream of either direction."""
        ...

    def disconnected(self, node_id: int, lane: Lane) -> None:
        """A link broke; the messages under way on it are lost."""
        ...

    def refused(self, node_id: int) -> None:
        """No process listens at a peer's address."""
        ...

    def turned_away(self, node_id: int) -> None:
        """A peer refused this node's hello, because of who this node is."""
        ...

    def pinged(self, node_id: int, ping: wire.Ping) -> wire.Ping | None:
        """Returns the answer to a peer's ping; None when this node had better be silent."""
        ...

    def ponged(self, node_id: int, pong: wire.Ping) -> None:
        """A ping of ours was answered."""
        ...

    def announced(self, node_id: int, leaderships: wire.Leaderships) -> None:
        """A peer told which groups it leads."""
        ...

    def led_here(self) -> dict[int, int]:
        """Returns the groups that this node leads with their terms, for a complete announcement."""
        ...

    def lane_changed(self, node_id: int, *, has_room: bool) -> None:
        """The data lane to a node takes no more appends, or does again (S17)."""
        ...

    def unreachable(self, group_id: int, replica_id: int) -> None:
        """An append was refused by a full or missing link (S17)."""
        ...

    async def arrived(self, arrival: Arrival) -> None:
        """Messages came; returns when there is room for more."""
        ...
