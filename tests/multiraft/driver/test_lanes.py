"""Who is held where there is no room, and that all of them go on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from rakit.multiraft.group import Group
from rakit.multiraft.lanes import Lanes
from rakit.multiraft.machine import replica_id


def leading(group_id: int, *replicas: int) -> Group:
    def hold(is_shut: Callable[[int], bool]) -> list[int]:
        return [each for each in replicas if is_shut(each)]

    made = SimpleNamespace(raw=SimpleNamespace(hold=hold), meta=SimpleNamespace(group_id=group_id))
    return cast("Group", made)


def test_s17_both_replicas_of_a_group_on_one_node_go_on_when_it_has_room() -> None:
    lanes = Lanes()
    dead, successor, elsewhere = replica_id(2, 1), replica_id(2, 2), replica_id(3, 1)
    lanes.shut(2)
    lanes.hold(leading(7, dead, successor, elsewhere))
    lanes.hold(leading(8, dead))
    assert lanes.open(2) == [(7, dead), (7, successor), (8, dead)]
    assert lanes.open(2) == []
    lanes.hold(leading(7, dead))
    assert not lanes.waiting
