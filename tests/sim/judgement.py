"""The end of a run: when a healed world is at rest, and what is judged then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rakit.multiraft import keys
from rakit.multiraft.group import Group
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.partition.machine import PartitionMachine
from tests.sim.node import SimNode
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World


def at_rest(world: World) -> bool:
    """Every client is answered, and every group has one leader and equal members."""
    if world.traffic.busy() or any(
        not node.up for node_id, node in world.nodes.items() if node_id not in world.lost
    ):
        return False
    drivers = [node.driver for node in world.nodes.values() if node.driver]
    if any(each.bases_under_way_count or each.holds_writes for each in drivers):
        return False
    if any(
        node.driver.group(group_id) is not None
        for node in world.nodes.values()
        for group_id in world.members.deleted
        if node.driver is not None
    ):
        return False
    return all(_group_at_rest(world, group_id) for group_id in world.members.groups)


def _group_at_rest(world: World, group_id: int) -> bool:
    groups = _members(world, group_id)
    first = groups[0]
    applied, term = first.applied, first.term
    return (
        len(groups) == len(_nodes_of(world, group_id))
        and sum(group.ready for group in groups) == 1
        and all(
            group.applied == applied == group.storage.last_index()
            and group.term == term
            and not group.doubtful
            and group.draft is None
            and world.members.is_settled(group_id, group)
            for group in groups
        )
    )


def _nodes_of(world: World, group_id: int) -> list[int]:
    """The nodes that should have a working voter of the group, but for those that are lost."""
    return [one for one in world.members.members_of(group_id) if one not in world.lost]


def _members(world: World, group_id: int) -> list[Group]:
    """The replicas that belong to the group, on nodes that are up."""
    drivers = [world.nodes[node_id].driver for node_id in _nodes_of(world, group_id)]
    found = [driver.group(group_id) for driver in drivers if driver is not None]
    return [group for group in found if group is not None]


def judge_rest(world: World) -> None:
    """Raises unless the world came to rest, and everybody who wanted it is served."""
    if world.traffic.unserved:
        raise ViolationError(
            Invariant.SERVICE,
            f"{world.plan.heal_ms} ms after healing nobody serves {world.traffic.unserved}:"
            f" {_describe(world)}",
        )
    if world.traffic.reading.behind():
        raise ViolationError(
            Invariant.SERVICE,
            f"{world.plan.heal_ms} ms after healing readers have not come to the end of"
            f" {world.traffic.reading.behind()}: {_describe(world)}",
        )
    if not at_rest(world):
        raise ViolationError(
            Invariant.REST, f"no rest {world.plan.heal_ms} ms after healing: {_describe(world)}"
        )
    for node_id, node in world.nodes.items():
        if node_id not in world.lost:  # that one would clear away at its next start
            _judge_leftovers(node_id, node)


def judge(world: World) -> None:
    """Raises unless replicas at rest are equal, and clients were told the truth."""
    world.graves.judge()
    for group_id in world.members.groups:
        groups = _members(world, group_id)
        if len({group.machine.snapshot() for group in groups}) != 1:
            raise ViolationError(
                Invariant.SAME_STATE, f"group {group_id}: replicas at one index differ in state"
            )
        if group_id == METADATA_GROUP_ID:
            machine = groups[0].machine
            assert isinstance(machine, MetadataMachine), "group 1 is the registry"
            world.traffic.registrars.judge(machine)
        else:
            _judge_partition(world, groups)


def _judge_leftovers(node_id: int, node: SimNode) -> None:
    """Every part of a base belongs to a checkpoint; a replica that is shut out stays as it is."""
    rows = node.disk.live.rows
    for key in rows:
        group_id = keys.group_of(key) if key[0] == keys.BASE_PART else 0
        if not group_id or (node.driver is not None and group_id in node.driver.quarantined):
            continue
        index = int.from_bytes(key[9:17], "big")
        if keys.checkpoint(group_id, index) not in rows:
            raise ViolationError(
                Invariant.NO_LEFTOVERS,
                f"node {node_id} keeps parts of a base of group {group_id} as of {index}",
            )


def _judge_partition(world: World, groups: list[Group]) -> None:
    group_id, machine = groups[0].meta.group_id, groups[0].machine
    assert isinstance(machine, PartitionMachine), "the simulated groups are partitions"
    page = world.traffic.oracle.ledger.page(group_id)
    if (machine.state.next_offset, machine.state.start_offset) != (
        page.next_offset,
        page.start_offset,
    ):
        raise ViolationError(
            Invariant.ACKNOWLEDGED,
            f"group {group_id} holds [{machine.state.start_offset}, {machine.state.next_offset}),"
            f" applied was [{page.start_offset}, {page.next_offset})",
        )
    world.traffic.oracle.judge(group_id)


def _describe(world: World) -> list[str]:
    return [
        f"node {node_id} group {group_id}: {group.role.name} term {group.term}"
        f" leader {group.leader_replica:x} commit {group.commit} applied {group.applied}"
        f" last {group.storage.last_index()} quiet {group.quiet} doubtful {group.doubtful}"
        f" voters {[f'{one:x}' for one in group.conf_state.voters]}"
        for node_id, node in sorted(world.nodes.items())
        for group_id, group in sorted(node.driver.groups.items() if node.driver else ())
    ]
