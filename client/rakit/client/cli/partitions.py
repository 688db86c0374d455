"""`rakit partition list`: where every partition is, and who leads it."""

from __future__ import annotations

from dataclasses import dataclass

from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, print_table, print_tree, tree_of
from rakit.client.model import Offsets, Partition, Topic


async def show_all(
    bootstrap: str | None, output: Format, topic: str | None, *, leaderless: bool
) -> int:
    """Lists the partitions of a topic, or of all."""
    async with connect(bootstrap) as client:
        admin = client.admin
        topics = [await admin.get_topic(topic)] if topic else await admin.list_topics()
        rows: list[_Row] = []
        for each in topics:
            wanted = [one for one in each.partitions if not (leaderless and one.leader_node_id)]
            # The offsets of a partition without a leader are known to nobody.
            led = [one.partition for one in wanted if one.leader_node_id]
            ranges = await admin.get_offsets(each.name, led) if led else []
            known = {one.partition: one for one in ranges}
            rows.extend(_row(each, one, known.get(one.partition)) for one in wanted)
    if output is Format.TABLE:
        print_table(
            ("TOPIC", "PARTITION", "LEADER", "REPLICAS", "EARLIEST", "LATEST", "BYTES"),
            [
                (
                    row.topic,
                    row.partition,
                    row.leader_node_id or None,
                    ",".join(map(str, row.replica_node_ids)),
                    row.earliest,
                    row.latest,
                    row.size_bytes,
                )
                for row in rows
            ],
        )
    else:
        print_tree([tree_of(each) for each in rows], output)
    return 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A partition as it is shown; what only its leader knows is None without one."""

    topic: str
    partition: int
    group_id: int
    leader_node_id: int
    leader_term: int
    replica_node_ids: tuple[int, ...]
    earliest: int | None
    latest: int | None
    size_bytes: int | None


def _row(topic: Topic, partition: Partition, offsets: Offsets | None) -> _Row:
    return _Row(
        topic.name,
        partition.partition,
        partition.group_id,
        partition.leader_node_id,
        partition.leader_term,
        tuple(each.node_id for each in partition.replicas),
        None if offsets is None else offsets.earliest,
        None if offsets is None else offsets.latest,
        None if offsets is None else offsets.size_bytes,
    )
