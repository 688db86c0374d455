"""What happens to a world that is at rest and that nobody asks for anything.

Groups go quiet then: no ticks, no heartbeats. One more thing happens to them, and they must come to
rest again by themselves, since who waits for a client to notice may wait for ever (S15, P7):

- A minority of the nodes is lost for good; often a leader is among them.
- A node is away while the others go quiet without it, and comes back; it has missed
  what was written meanwhile.
- A node restarts; where replicas are shut out, every node that has one (S9).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from rakit.multiraft.machine import node_of
from tests.sim import judgement
from tests.sim.plan import Topic

if TYPE_CHECKING:
    from tests.sim.world import World

QUIET_MS: Final = 4_000
#: Doubts end, and members change, only where everybody is there.
_ALL_ARE_NEEDED: Final = frozenset({Topic.CUTS, Topic.MEMBERS, Topic.DELETION})


def strike(world: World) -> None:
    """Waits until all is quiet, and does one thing."""
    if world.plan.topic is Topic.DAMAGE:
        for node_id in sorted({node_of(replica) for _, replica in world.damage.shut_out}):
            world.crash(node_id)
    elif world.plan.topic not in _ALL_ARE_NEEDED:
        _strike_the_quiet(world)


def _strike_the_quiet(world: World) -> None:
    rng = world.rng
    kind = rng.choice(["lose", "lose", "away", "restart"])
    leaders = sorted({node_id for node_id, _ in world.leaders()})
    victim = rng.choice(leaders if rng.random() < 0.7 else list(world.nodes))
    world.note("lull", kind, victim)
    if kind == "away":
        world.lost = {victim}
        world.crash(victim)
        for group_id in world.group_ids:
            for node_id in world.nodes:
                world.traffic.burst(node_id, group_id, 2)
    world.run_until(world.events.now_ms + QUIET_MS, partial(_is_quiet, world))
    if kind == "away":
        world.lost = set()
        world.start(victim)
        return
    if kind == "lose":
        world.lost = _minority(world, victim)
    for node_id in sorted(world.lost | {victim}):
        world.crash(node_id)


def _minority(world: World, victim: int) -> set[int]:
    """Nodes that every group can do without; the victim among them, if it is one."""
    others = [one for one in world.nodes if one != victim]
    more = world.rng.randint(0, (len(world.nodes) - 1) // 2 - 1)
    lost: set[int] = set()
    for one in (victim, *world.rng.sample(others, more)):
        if _can_do_without(world, lost | {one}):
            lost.add(one)
    return lost


def _can_do_without(world: World, lost: set[int]) -> bool:
    """Whether every group keeps a majority of its voters."""
    for node_id, group_id in world.leaders():
        driver = world.nodes[node_id].driver
        assert driver is not None, "it leads"
        voters = driver.groups[group_id].conf_state.voters
        left = [voter for voter in voters if node_of(voter) not in lost]
        if 2 * len(left) <= len(voters):
            return False
    return True


def _is_quiet(world: World) -> bool:
    return judgement.at_rest(world) and all(
        group.quiet
        for node in world.nodes.values()
        if node.driver is not None
        for group_id, group in node.driver.groups.items()
        if group_id in world.group_ids
    )
