"""Topics, partitions and nodes as clients are told of them.

What should be comes from the registry, what is from this node's view of leaders and of its own
replicas. Addresses are those of the listener that the caller came in by (contract 19).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.topic_service_pb2 import (
    REPLICA_ROLE_LEARNER,
    REPLICA_ROLE_VOTER,
    Partition,
    Topic,
)
from rakit.multiraft.machine import node_of
from rakit.node.metadata.registry import PartitionInfo, TopicInfo
from rakit.node.routing import Router
from rakit.raft import ConfState


class Describe:
    """Makes the messages."""

    def __init__(
        self,
        router: Router,
        header: ResponseHeader,
        members: Callable[[int], ConfState | None],
    ) -> None:
        #: Of every answer.
        self.header = header
        self._router = router
        # The configuration of a group, where this node has a replica of it.
        self._members = members

    def topic(
        self, topic: TopicInfo, listener: str, places: Sequence[PartitionInfo] | None = None
    ) -> Topic:
        """A topic, with all of its partitions or some."""
        return Topic(
            name=topic.name,
            topic_id=topic.topic_id,
            replication_factor=topic.replication_factor,
            config=topic.config.to_proto(),
            partitions=[
                self.partition(place, listener)
                for place in (topic.partitions if places is None else places)
            ],
            create_time_ms=topic.create_time_ms,
        )

    def partition(self, place: PartitionInfo, listener: str) -> Partition:
        """A partition with its leader, where this node knows one."""
        members = self._members(place.group_id)
        partition = Partition(partition=place.partition, group_id=place.group_id)
        for each in place.replica_ids:
            # A replica votes once it has caught up; a node without a replica is not told when.
            votes = members is None or each in members.voters
            role = REPLICA_ROLE_VOTER if votes else REPLICA_ROLE_LEARNER
            partition.replicas.add(node_id=node_of(each), replica_id=each, role=role)
        leader = self._router.known_leader(place.group_id)
        if leader is not None:
            partition.leader_node_id = leader.node_id
            partition.leader_term = leader.term
            partition.leader_address = self._router.address_of(leader.node_id, listener)
        return partition
