"""`rakit cluster status`."""

from __future__ import annotations

import sys

from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, print_table, print_tree, tree_of
from rakit.client.model import Cluster


async def show(bootstrap: str | None, output: Format) -> int:
    """Shows the cluster as one of its nodes sees it."""
    async with connect(bootstrap) as client:
        cluster = await client.admin.get_cluster()
    if output is Format.TABLE:
        _print(cluster)
    else:
        print_tree(tree_of(cluster), output)
    return 0


def _print(cluster: Cluster) -> None:
    leaderless = cluster.leaderless_partition_count
    sys.stdout.write(
        f"cluster {cluster.cluster_id}: {sum(node.is_up for node in cluster.nodes)} of"
        f" {len(cluster.nodes)} nodes up, {cluster.topic_count} topics,"
        f" {cluster.partition_count} partitions, {leaderless} without a leader\n"
    )
    rows: list[tuple[object, ...]] = []
    for node in cluster.nodes:
        addresses = ",".join(
            address if listener == "default" else f"{listener}={address}"
            for listener, address in node.addresses
        )
        role = "leader" if node.node_id == cluster.metadata_leader_node_id else ""
        state = "up" if node.is_up else "down"
        counts = (node.leader_count, node.replica_count, node.shut_out_replica_count)
        rows.append((node.node_id, node.name, state, addresses, node.rack, *counts, role))
    heads = (
        "ID",
        "NAME",
        "STATE",
        "ADDRESS",
        "RACK",
        "LEADERS",
        "REPLICAS",
        "SHUT OUT",
        "METADATA",
    )
    print_table(heads, rows)
