"""What the cluster accepts, and tells to whoever asks (GetCluster).

A client that keeps within these limits is refused by the transport for none of them. They are the
same on every node; a topic's own settings count more.
"""

from __future__ import annotations

from typing import Final

from rakit.api.v1.cluster_service_pb2 import Limits
from rakit.node.groups.credit import OUTSTANDING_BYTES_MAX
from rakit.node.groups.limits import MEMBERS_A_GROUP_COUNT_MAX
from rakit.node.groups.ranges import COMMITS_COUNT_MAX
from rakit.node.metadata.topic_config import BOUNDS
from rakit.node.metadata.topics import TOPIC_PARTITIONS_COUNT_MAX
from rakit.node.partition.producers import REMEMBERED_COUNT_MAX
from rakit.node.services.positions import POSITIONS_COUNT_MAX, RESPONSE_BYTES_MAX
from rakit.node.services.watch import TOPICS_COUNT_MAX

#: What a client listener takes: an oversized batch gets our error, not the transport's.
MESSAGE_BYTES_MAX: Final = 20 << 20
#: Of a request's headers.
METADATA_BYTES_MAX: Final = 16 << 10
#: Calls and streams of one client connection at once.
STREAMS_PER_CONNECTION_MAX: Final = 1024


def published() -> Limits:
    """The limits as clients are told."""
    return Limits(
        message_bytes_max=MESSAGE_BYTES_MAX,
        response_bytes_max=RESPONSE_BYTES_MAX,
        batch_bytes_max_default=BOUNDS["batch_bytes_max"].default,
        batch_bytes_max=BOUNDS["batch_bytes_max"].maximum,
        positions_count_max=POSITIONS_COUNT_MAX,
        producer_batches_in_flight_max=REMEMBERED_COUNT_MAX,
        partitions_per_topic_max=TOPIC_PARTITIONS_COUNT_MAX,
        metadata_bytes_max=METADATA_BYTES_MAX,
        streams_per_connection_max=STREAMS_PER_CONNECTION_MAX,
        members_per_group_max=MEMBERS_A_GROUP_COUNT_MAX,
        offsets_per_commit_max=COMMITS_COUNT_MAX,
        member_credit_bytes_max=OUTSTANDING_BYTES_MAX,
        watched_topics_max=TOPICS_COUNT_MAX,
    )
