"""`rakit group`: list, get, delete, reset."""

from __future__ import annotations

import sys

from rakit.client.cli.complaints import MisuseError
from rakit.client.cli.connect import connect
from rakit.client.cli.consume import parse_start
from rakit.client.cli.output import Format, Tree, print_table, print_tree, tree_of
from rakit.client.groups import Group, OffsetChange


async def show_all(bootstrap: str | None, output: Format) -> int:
    """Lists groups."""
    async with connect(bootstrap) as client:
        groups = await client.admin.list_groups()
    if output is Format.TABLE:
        print_table(
            ("NAME", "STATE", "MEMBERS", "COORDINATOR"),
            [
                (each.name, each.state.lower(), each.member_count, each.coordinator_node_id)
                for each in groups
            ],
        )
    else:
        print_tree([tree_of(each) for each in groups], output)
    return 0


async def show(bootstrap: str | None, output: Format, name: str) -> int:
    """Shows a group, its members and its lag."""
    async with connect(bootstrap) as client:
        group = await client.admin.get_group(name)
    if output is Format.TABLE:
        _print(group)
    else:
        print_tree(tree_of(group), output)
    return 0


def _print(group: Group) -> None:
    sys.stdout.write(
        f"group {group.name}: {group.state.lower()}, {len(group.members)} members, epoch"
        f" {group.epoch}, {group.lag_records:,} records behind; node {group.coordinator_node_id}"
        " coordinates\n"
    )
    names = {each.member_id: each.instance_id or each.member_id for each in group.members}
    rows: list[tuple[object, ...]] = []
    for each in group.partitions:
        lag = (each.lag_records, None if each.lag_ms is None else each.lag_ms / 1000)
        owner = names.get(each.member_id)
        rows.append((each.topic, each.partition, each.committed_offset, each.latest, *lag, owner))
    print_table(("TOPIC", "PARTITION", "COMMITTED", "LATEST", "LAG", "LAG SECONDS", "MEMBER"), rows)
    if group.members:
        print_table(
            ("MEMBER", "CLIENT", "RACK", "GATEWAY", "PARTITIONS", "TO HAVE"),
            [
                (
                    names[each.member_id],
                    each.client_id,
                    each.rack,
                    each.gateway_node_id or None,
                    len(each.owned),
                    len(each.target),
                )
                for each in group.members
            ],
        )


async def delete(bootstrap: str | None, output: Format, name: str) -> int:
    """Deletes a group."""
    async with connect(bootstrap) as client:
        await client.admin.delete_group(name)
    if output is Format.TABLE:
        sys.stdout.write(f"deleted group {name}\n")
    else:
        print_tree({"group": name, "deleted": True}, output)
    return 0


async def reset(
    bootstrap: str | None,
    output: Format,
    name: str,
    place: tuple[str, int | None],
    move: tuple[str | None, int | None],
    *,
    execute: bool,
) -> int:
    """Moves the offsets of (topic, partition) to a place or by a shift, or shows what that does."""
    to, shift = move
    if (to is None) == (shift is None):
        raise MisuseError("say where to: either --to WHERE or --shift N")
    start = None if to is None else parse_start(to, "--to")
    async with connect(bootstrap) as client:
        changes = await client.admin.reset_offsets(
            name, *place, to=start, shift=shift, dry_run=not execute
        )
    if output is Format.TABLE:
        _print_changes(changes, execute=execute)
    else:
        tree: Tree = {"executed": execute, "changes": [tree_of(each) for each in changes]}
        print_tree(tree, output)
    return 0


def _print_changes(changes: list[OffsetChange], *, execute: bool) -> None:
    print_table(
        ("TOPIC", "PARTITION", "BEFORE", "AFTER"),
        [(each.topic, each.partition, each.before, each.after) for each in changes],
    )
    if not execute:
        sys.stdout.write("nothing was changed; --execute does it\n")
