"""Whether this node holds again what it should: may another one be taken away, as far as it goes?

A node that lost its disk has joined within seconds, long before its replicas are there again. Until
then every other disk counts, and who replaces nodes one after the other must wait. A replica that
is being filled is a learner, and its leader lets it vote when it has caught up (`metadata.steps`);
so what is missing is told by the configurations that this node's own replicas have applied.

Once nothing was missing that holds until the node ends: partitions that are born or move later
must not make all their nodes look unfit at once. A replica that is shut out for damage (S9) is not
waited for, since waiting may not bring it back; `GetCluster` shows it. Its successor is (S8).

Left out: how far a replica is behind that kept its disk. It votes already, and what it lacks is on
its way.
"""

from __future__ import annotations

from collections.abc import Iterator

from rakit.node.metadata.caretaker import VOTERS_COUNT_MAX
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.registry import METADATA_GROUP_ID, Registry


class Filling:
    """The replicas that a node which has joined does not have yet."""

    def __init__(self, host: HostPort, registry: Registry) -> None:
        self._host = host
        self._registry = registry
        self._done = False

    def missing_count(self) -> int:
        """How many replicas are still being filled; 0 for ever once it was 0."""
        if self._done:
            return 0
        count = sum(1 for _ in self._missing())
        self._done = count == 0
        return count

    def _missing(self) -> Iterator[int]:
        node_id = self._host.node_id
        if not self._is_fit_for_metadata():
            yield METADATA_GROUP_ID
        for partition in self._registry.partitions():
            replica = partition.on_node(node_id)
            if replica is not None and not self._votes(partition.group_id, replica):
                yield partition.group_id

    def _votes(self, group_id: int, replica: int) -> bool:
        group = self._host.group(group_id)
        if group is None:
            return group_id in self._host.quarantined
        return replica in group.conf_state.voters

    def _is_fit_for_metadata(self) -> bool:
        """It votes, or learns beside as many voters as there are to be."""
        group, nodes = self._host.group(METADATA_GROUP_ID), self._registry.nodes
        if group is None:
            return False
        desired = {each.metadata_replica_id for each in nodes.values()}
        voters = desired.intersection(group.conf_state.voters)
        mine = nodes[self._host.node_id].metadata_replica_id
        return mine in voters or len(voters) >= VOTERS_COUNT_MAX
