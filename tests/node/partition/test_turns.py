"""Which partitions are due, and when."""

from __future__ import annotations

from rakit.node.partition.turns import Turns


def test_who_was_stirred_is_due_once_in_the_order_in_which_it_was() -> None:
    turns = Turns()
    for group_id in (5, 3, 5):
        turns.stir(group_id)
    turns.stir_all((9, 3))
    assert turns.take(0) == [5, 3, 9]
    assert turns.take(10**15) == []


def test_who_was_planned_is_due_from_that_time_on_and_not_before() -> None:
    turns = Turns()
    turns.plan(5, 2_000)
    turns.plan(3, 1_000)
    assert turns.take(999) == []
    assert turns.take(1_000) == [3]
    assert turns.take(5_000) == [5]
    assert turns.take(10**15) == []


def test_the_earliest_plan_holds() -> None:
    turns = Turns()
    for time_ms in (2_000, 1_000, 3_000):
        turns.plan(5, time_ms)
    assert turns.take(1_000) == [5]
    turns.plan(5, 4_000)
    assert turns.take(3_999) == [], "what was replaced is no turn of its own"
    assert turns.take(4_000) == [5]
    assert turns.take(10**15) == []


def test_who_is_gone_has_no_turn() -> None:
    turns = Turns()
    turns.plan(5, 1_000)
    turns.stir(5)
    turns.forget(5)
    assert turns.take(10**15) == []


def test_partitions_that_come_and_go_leave_nothing_behind() -> None:
    turns = Turns()
    for group_id in range(10_000):
        turns.plan(group_id, 10**15)
        turns.forget(group_id)
        assert turns.planned_count <= 66
    for time_ms in range(10_000, 0, -1):
        turns.plan(5, time_ms)
        assert turns.planned_count <= 66
    assert turns.take(1) == [5]


def test_turns_come_in_their_order_after_many_have_gone() -> None:
    turns = Turns()
    times_ms = {group_id: 1_000 + group_id * 7_919 % 1_000 for group_id in range(1_000)}
    for group_id, time_ms in times_ms.items():
        turns.plan(group_id, time_ms)
        if group_id % 10:
            turns.forget(group_id)
    for now_ms in range(1_000, 2_000):
        due = [one for one, each_ms in times_ms.items() if each_ms == now_ms and one % 10 == 0]
        assert turns.take(now_ms) == due
