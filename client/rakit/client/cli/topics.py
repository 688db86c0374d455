"""`rakit topic`: create, list, get, update, delete."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from rakit.client.cli.complaints import MisuseError, complain
from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, print_table, print_tree, tree_of
from rakit.client.model import Offsets, Topic, TopicConfig


async def create(
    bootstrap: str | None,
    output: Format,
    name: str,
    shape: tuple[int, int | None],
    config: TopicConfig,
) -> int:
    """Creates a topic of (partitions, replication factor) and shows it; warnings to stderr."""
    async with connect(bootstrap) as client:
        created = await client.admin.create_topic(name, *shape, config)
    for warning in created.warnings:
        complain(f"warning: {warning}")
    if output is Format.TABLE:
        topic = created.topic
        sys.stdout.write(
            f"created topic {topic.name} with {len(topic.partitions)} partitions and replication"
            f" factor {topic.replication_factor}\n"
        )
    else:
        print_tree(tree_of(created.topic), output)
    return 0


async def show_all(bootstrap: str | None, output: Format) -> int:
    """Lists topics."""
    async with connect(bootstrap) as client:
        topics = await client.admin.list_topics()
    if output is Format.TABLE:
        print_table(
            ("NAME", "PARTITIONS", "REPLICATION", "LEADERLESS"),
            [
                (each.name, len(each.partitions), each.replication_factor, _leaderless(each))
                for each in topics
            ],
        )
    else:
        print_tree([tree_of(each) for each in topics], output)
    return 0


def _leaderless(topic: Topic) -> int:
    return sum(not each.leader_node_id for each in topic.partitions)


async def show(bootstrap: str | None, output: Format, name: str) -> int:
    """Shows a topic."""
    async with connect(bootstrap) as client:
        topic = await client.admin.get_topic(name)
        if output is Format.TABLE:
            ranges = await client.admin.get_offsets(name)
            _print_topic(topic, ranges)
        else:
            print_tree(tree_of(topic), output)
    return 0


def _print_topic(topic: Topic, ranges: Sequence[Offsets]) -> None:
    sys.stdout.write(f"topic {topic.name}, replication factor {topic.replication_factor}\n")
    for field in dataclasses.fields(topic.config):
        value = getattr(topic.config, field.name)
        if value is not None:
            sys.stdout.write(f"{field.name} = {value}\n")
    by_partition = {each.partition: each for each in ranges}
    rows: list[tuple[object, ...]] = []
    for each in topic.partitions:
        offsets = by_partition[each.partition]
        nodes = ",".join(str(replica.node_id) for replica in each.replicas)
        leader = each.leader_node_id or None
        rows.append((each.partition, leader, nodes, offsets.earliest, offsets.latest))
    print_table(("PARTITION", "LEADER", "REPLICAS", "EARLIEST", "LATEST"), rows)


async def update(
    bootstrap: str | None, output: Format, name: str, config: TopicConfig, reset: Sequence[str]
) -> int:
    """Changes settings and shows the topic's settings."""
    known = {field.name for field in dataclasses.fields(TopicConfig)}
    unknown = [each for each in reset if each not in known]
    if unknown:
        raise MisuseError(f"no setting {unknown[0]!r}; there are {', '.join(sorted(known))}")
    if config == TopicConfig() and not reset:
        raise MisuseError("nothing to change: give at least one setting")
    async with connect(bootstrap) as client:
        topic = await client.admin.update_topic(name, config, reset)
    if output is Format.TABLE:
        sys.stdout.write(f"updated topic {name}\n")
    else:
        print_tree(tree_of(topic), output)
    return 0


async def delete(bootstrap: str | None, output: Format, name: str) -> int:
    """Deletes a topic."""
    async with connect(bootstrap) as client:
        await client.admin.delete_topic(name)
    if output is Format.TABLE:
        sys.stdout.write(f"deleted topic {name}\n")
    else:
        print_tree({"topic": name, "deleted": True}, output)
    return 0
