"""The table of leaders: who is given out, who replaces whom, who is told."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio

import pytest

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.leaders import LeaderInfo, Leaders
from rakit.multiraft.machine import replica_id
from rakit.raft import Role


class Table:
    """A table of node 1 among nodes that are up or not, with its changes."""

    def __init__(self) -> None:
        self.up = {2, 3}
        self.leaders = Leaders(1, self.up.__contains__)
        self.seen: list[tuple[int, LeaderInfo | None]] = []
        self.leaders.on_change(lambda group_id, info: self.seen.append((group_id, info)))


def leads(group_id: int, term: int, *, ready: bool = True) -> RoleChange:
    return RoleChange(group_id, Role.LEADER, replica_id(1, 1), term, ready)


def follows(group_id: int, node_id: int, term: int) -> RoleChange:
    leader = replica_id(node_id, 1) if node_id else 0
    return RoleChange(group_id, Role.FOLLOWER, leader, term, ready=False)


def test_s14_a_leader_is_announced_when_it_may_serve_and_not_before() -> None:
    table = Table()
    assert table.leaders.role_changed(leads(7, 3, ready=False)) is None
    assert table.leaders.get(7) is None
    assert table.leaders.role_changed(leads(7, 3)) == 3
    assert table.leaders.get(7) == LeaderInfo(1, 3)
    assert table.leaders.led_here() == {7: 3}
    assert table.leaders.role_changed(leads(7, 3)) is None, "no news"


def test_a_lost_leadership_is_announced() -> None:
    table = Table()
    table.leaders.role_changed(leads(7, 3))
    assert table.leaders.role_changed(follows(7, 2, 4)) == 0
    assert table.leaders.get(7) == LeaderInfo(2, 4)
    assert table.leaders.led_here() == {}
    assert table.leaders.role_changed(follows(7, 0, 5)) is None
    assert table.leaders.get(7) is None


def test_a_lower_term_never_replaces_a_higher_one() -> None:
    table = Table()
    table.leaders.announced(2, [(7, 5)], [], complete=True)
    table.leaders.announced(3, [(7, 4)], [], complete=True)
    table.leaders.role_changed(follows(7, 0, 4))
    assert table.leaders.get(7) == LeaderInfo(2, 5)


def test_a_complete_list_ends_what_it_does_not_name() -> None:
    table = Table()
    table.leaders.announced(2, [(7, 5), (8, 1)], [], complete=True)
    table.leaders.announced(3, [(9, 2)], [], complete=True)
    table.leaders.announced(2, [(8, 1)], [], complete=True)
    assert [table.leaders.get(each) for each in (7, 8, 9)] == [
        None,
        LeaderInfo(2, 1),
        LeaderInfo(3, 2),
    ]


def test_what_changed_is_enough_after_that() -> None:
    table = Table()
    table.leaders.announced(2, [(7, 5), (8, 1)], [], complete=True)
    table.leaders.announced(2, [(9, 4)], [8], complete=False)
    assert [table.leaders.get(each) for each in (7, 8, 9)] == [
        LeaderInfo(2, 5),
        None,
        LeaderInfo(2, 4),
    ]


def test_the_end_of_an_old_leadership_does_not_end_a_new_one() -> None:
    table = Table()
    table.leaders.announced(2, [(7, 5)], [], complete=True)
    table.leaders.announced(3, [(7, 6)], [], complete=False)
    table.leaders.announced(2, [], [7], complete=False)
    assert table.leaders.get(7) == LeaderInfo(3, 6)


def test_a_leader_on_a_dead_node_is_not_given_out_but_kept() -> None:
    table = Table()
    table.leaders.announced(2, [(7, 5)], [], complete=True)
    table.up.remove(2)
    table.leaders.node_changed(2)
    assert table.leaders.get(7) is None
    table.up.add(2)
    table.leaders.node_changed(2)
    assert table.leaders.get(7) == LeaderInfo(2, 5)
    assert table.seen == [(7, LeaderInfo(2, 5)), (7, None), (7, LeaderInfo(2, 5))]


def test_a_removed_group_is_led_no_more() -> None:
    table = Table()
    table.leaders.role_changed(leads(7, 3))
    assert table.leaders.group_removed(7) == 0
    assert table.leaders.group_removed(7) is None


async def test_waiters_are_told_as_soon_as_a_leader_is_known() -> None:
    table = Table()
    table.up.clear()
    waiting = [asyncio.create_task(table.leaders.wait(7, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    table.leaders.announced(2, [(7, 5)], [], complete=True)
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting), "its node is down"
    table.up.add(2)
    table.leaders.node_changed(2)
    assert await asyncio.gather(*waiting) == [LeaderInfo(2, 5)] * 3
    assert await table.leaders.wait(7, 5) == LeaderInfo(2, 5)


async def test_waiting_ends_in_time_and_leaves_nothing_behind() -> None:
    table = Table()
    with pytest.raises(TimeoutError):
        await table.leaders.wait(7, 0.01)
    given_up = asyncio.create_task(table.leaders.wait(7, 5))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert not table.leaders._waiters


def test_a_listener_can_leave() -> None:
    table = Table()
    heard: list[int] = []
    end = table.leaders.on_change(lambda group_id, _info: heard.append(group_id))
    table.leaders.role_changed(leads(7, 3))
    end()
    table.leaders.role_changed(leads(8, 3))
    assert heard == [7]


def test_s15_it_is_told_which_groups_a_peer_leads_no_longer() -> None:
    table = Table()
    assert table.leaders.announced(2, [(7, 5), (8, 1), (9, 1)], [], complete=True) == []
    assert table.leaders.announced(2, [], [8], complete=False) == [8]
    assert table.leaders.announced(3, [(9, 2)], [], complete=True) == []
    assert table.leaders.announced(2, [], [], complete=True) == [7], "9 is led by another node"
