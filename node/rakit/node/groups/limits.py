"""How much of each kind there may be in groups.

Those of the state are part of the state machine: a replica that knew another limit would keep
another state, so they change only with a feature level.
"""

from __future__ import annotations

from typing import Final

#: Of one internal partition: a group that would be one more is GROUP_FULL. 160,000 in a cluster.
GROUPS_A_PARTITION_COUNT_MAX: Final = 10_000
#: A member that would be one more is GROUP_FULL.
MEMBERS_A_GROUP_COUNT_MAX: Final = 1_000
#: Partitions with a committed offset: a commit of one more is GROUP_FULL.
OFFSETS_A_GROUP_COUNT_MAX: Final = 100_000
#: Of all metadata of a group's offsets: a commit with more is GROUP_FULL. A kilobyte and a half for
#: each of 10,000 partitions; it is in memory on every replica and in every checkpoint.
METADATA_A_GROUP_BYTES_MAX: Final = 16 << 20

#: Of one entry: what waits beyond it goes into the next one. One change or commit is taken whole.
ENTRY_BYTES_MAX: Final = 512 << 10
#: Changes and commits that wait at one coordinator: beyond either the caller is THROTTLED.
WAITING_COUNT_MAX: Final = 8_192
WAITING_BYTES_MAX: Final = 8 << 20

#: A group without members is forgotten so long after its last member or commit.
RETENTION_MS: Final = 7 * 24 * 3_600_000
#: For so long after it sent a renewal a gateway may serve its members.
LEASE_MS: Final = 4_000
#: For so long a member on a gateway is not given up, whatever its grace: the gateway may still
#: serve it by its lease, which began before.
SERVED_S: Final = 6.0
#: The longest that a renewal waits for news; the lease must outlast it by far.
SYNC_WAIT_MS_MAX: Final = 2_000
