"""Replicas that were removed: what their disks keep of them, and whether one comes back (row 14).

A removal counts from when it is durable; one that a crash takes back is made again at the next
start. From then on the replica must not work, whatever its node is told by an outdated registry,
and in the end the disk holds nothing of it but its tombstone.
"""

from __future__ import annotations

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver
from tests.sim.node import SimNode
from tests.sim.violations import Invariant, ViolationError

_ROWS = (keys.ENTRY, keys.HARD_STATE, keys.CHECKPOINT, keys.POSITION, keys.BIRTH)


class Graves:
    """What was removed in one world."""

    def __init__(self, nodes: dict[int, SimNode]) -> None:
        self.nodes = nodes
        #: (node, group) -> the replica that was removed there for good.
        self.buried: dict[tuple[int, int], int] = {}
        # (node, group) -> the replica, and the write that removes it; 0: the node's next one.
        self._under_way: dict[tuple[int, int], tuple[int, int]] = {}

    def dig(self, node: SimNode, group_id: int) -> bool:
        """A node is about to remove its replica of a group; tells whether it has one."""
        group = node.driver.group(group_id) if node.driver is not None else None
        if group is None:
            return False
        self._under_way[node.node_id, group_id] = (group.meta.replica_id, 0)
        return True

    def wrote(self, node_id: int, number: int) -> None:
        for key, (replica, written) in self._under_way.items():
            if key[0] == node_id and not written:
                self._under_way[key] = (replica, number)

    def synced(self, node_id: int, number: int) -> None:
        for key, (replica, written) in list(self._under_way.items()):
            if key[0] == node_id and 0 < written <= number:
                del self._under_way[key]
                self.buried[key] = replica

    def crashed(self, node_id: int) -> None:
        for key in [key for key in self._under_way if key[0] == node_id]:
            del self._under_way[key]

    def forget(self, node_id: int) -> None:
        """The node's disk is another one: what it had removed is not known there."""
        self.crashed(node_id)
        for key in [key for key in self.buried if key[0] == node_id]:
            del self.buried[key]

    def stepped(self, node_id: int, driver: Driver) -> None:
        for (at, group_id), replica in self.buried.items():
            group = driver.group(group_id) if at == node_id else None
            if group is not None and group.meta.replica_id == replica:
                raise ViolationError(
                    Invariant.BURIED, f"node {node_id} works with {replica:x} of group {group_id}"
                )

    def judge(self) -> None:
        """Once all is at rest, nothing of what was removed is left."""
        for node_id, group_id in self.buried:
            disk = self.nodes[node_id].disk
            left = [
                prefix
                for prefix in _ROWS
                if next(iter(disk.scan(*keys.group_range(prefix, group_id))), None) is not None
            ]
            if left:
                raise ViolationError(
                    Invariant.BURIED, f"node {node_id} keeps rows {left} of group {group_id}"
                )
