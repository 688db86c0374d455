"""The assignor: even, sticky, near where that costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.node.groups.assignor import Member, Topic, assign
from rakit.node.groups.state import Key

Plan = dict[str, tuple[Key, ...]]


def topics(*counts: int) -> dict[int, Topic]:
    return {at: Topic(at, f"t{at}", count) for at, count in enumerate(counts, start=1)}


def everybody(count: int, subscribed: Sequence[int], prefix: str = "m") -> list[Member]:
    return [Member(f"{prefix}{at:03}", frozenset(subscribed)) for at in range(count)]


def later(members: list[Member], plan: Plan) -> list[Member]:
    """The members when what was planned has come about."""
    return [
        replace(each, target=plan.get(each.member_id, ()), owned=plan.get(each.member_id, ()))
        for each in members
    ]


def moved(before: Plan, after: Plan) -> int:
    owners = {key: who for who, keys in before.items() for key in keys}
    return sum(owners.get(key) not in {None, who} for who, keys in after.items() for key in keys)


def counts(plan: Plan) -> list[int]:
    return sorted(len(keys) for keys in plan.values())


COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@given(COUNTS, st.integers(1, 9))
def test_equal_subscriptions_differ_by_one_partition_at_most(sizes: list[int], count: int) -> None:
    plan = assign(everybody(count, range(1, len(sizes) + 1)), topics(*sizes))
    assert sorted(key for keys in plan.values() for key in keys) == [
        (topic, at) for topic, size in enumerate(sizes, start=1) for at in range(size)
    ], "every partition once"
    assert counts(plan)[-1] - counts(plan)[0] <= 1


@given(COUNTS, st.integers(1, 8), st.integers(1, 4))
def test_a_join_moves_no_more_than_evenness_demands(
    sizes: list[int], count: int, more: int
) -> None:
    names = range(1, len(sizes) + 1)
    first = everybody(count, names)
    before = assign(first, topics(*sizes))
    after = assign([*later(first, before), *everybody(more, names, "new")], topics(*sizes))
    got = sum(len(keys) for who, keys in after.items() if who.startswith("new"))
    assert moved(before, after) == got, "nothing moved between those who were there"
    assert got <= more * -(-sum(sizes) // (count + more))
    assert counts(after)[-1] - counts(after)[0] <= 1


@given(COUNTS, st.integers(2, 8), st.data())
def test_a_leave_moves_only_what_the_leaver_had(
    sizes: list[int], count: int, data: st.DataObject
) -> None:
    names = range(1, len(sizes) + 1)
    first = everybody(count, names)
    before = assign(first, topics(*sizes))
    gone = data.draw(st.sampled_from(first)).member_id
    left = [each for each in later(first, before) if each.member_id != gone]
    after = assign(left, topics(*sizes))
    assert moved(before, after) == len(before[gone])
    assert counts(after)[-1] - counts(after)[0] <= 1


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Member], dict[int, Topic]]:
    """Members with different subscriptions, in racks, with whatever they had."""
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    racks = st.sampled_from(["", "a", "b"])
    known = {
        at: Topic(at, f"t{at}", size, tuple(frozenset({draw(racks)}) for _ in range(size)))
        for at, size in enumerate(sizes, start=1)
    }
    keys = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=6, unique=True)
    subscribed = st.frozensets(st.integers(1, len(sizes) + 1), max_size=4)
    members = [
        Member(f"m{at}", draw(subscribed), draw(racks), tuple(draw(keys)), tuple(draw(keys)))
        for at in range(draw(st.integers(0, 6)))
    ]
    return members, known


@settings(max_examples=300)
@given(worlds())
def test_different_subscriptions_nobody_could_be_relieved_by_one_who_has_two_less(
    world: tuple[list[Member], dict[int, Topic]],
) -> None:
    members, known = world
    plan = assign(members, known)
    subscribed = {each.member_id: each.subscribed for each in members}
    wanted = frozenset[int]().union(*subscribed.values()) & known.keys()
    assert sorted(key for keys in plan.values() for key in keys) == [
        (topic, at) for topic in sorted(wanted) for at in range(known[topic].partition_count)
    ], "everything that anybody may have, once"
    for who, keys in plan.items():
        assert {key[0] for key in keys} <= subscribed[who]
        # Everybody from whom a partition could come to this member, by way of whomever.
        reached, edge = {who}, [who]
        while edge:
            taker = edge.pop()
            for giver, has in plan.items():
                if giver not in reached and {key[0] for key in has} & subscribed[taker]:
                    reached.add(giver)
                    edge.append(giver)
        assert max(len(plan[each]) for each in reached) <= len(keys) + 1


@settings(max_examples=300)
@given(worlds(), st.randoms(use_true_random=False))
def test_asked_again_it_says_the_same_whatever_the_order(
    world: tuple[list[Member], dict[int, Topic]], random: object
) -> None:
    members, known = world
    plan = assign(members, known)
    assert assign(later(members, plan), known) == plan, "what is settled stays"
    turned = sorted(members, key=lambda each: hash((each.member_id, str(random))))
    assert assign(turned, known) == plan
    waiting = [replace(each, target=plan[each.member_id]) for each in members]
    assert assign(waiting, known) == plan, "also while partitions are on their way"


def test_a_partition_goes_to_a_member_in_a_rack_of_its_replicas() -> None:
    racks = tuple(frozenset({"a" if at % 2 else "b"}) for at in range(6))
    known = {1: Topic(1, "t", 6, racks)}
    members = [
        Member(name, frozenset({1}), rack) for name, rack in (("x", "a"), ("y", "b"), ("z", ""))
    ]
    plan = assign(members, known)
    assert counts(plan) == [2, 2, 2]
    assert all("a" in racks[at] for _, at in plan["x"])
    assert all("b" in racks[at] for _, at in plan["y"])


def test_nothing_moves_for_a_rack() -> None:
    known = {1: Topic(1, "t", 2, (frozenset({"a"}), frozenset({"b"})))}
    members = [
        Member("x", frozenset({1}), "a", ((1, 1),), ((1, 1),)),
        Member("y", frozenset({1}), "b", ((1, 0),), ((1, 0),)),
    ]
    assert assign(members, known) == {"x": ((1, 1),), "y": ((1, 0),)}


def test_what_moves_for_evenness_goes_where_it_is_near() -> None:
    racks = tuple(frozenset({each}) for each in "aabb")
    known = {1: Topic(1, "t", 4, racks)}
    had = tuple((1, at) for at in range(4))
    members = [Member("x", frozenset({1}), "a", had, had), Member("y", frozenset({1}), "b")]
    assert assign(members, known) == {"x": ((1, 0), (1, 1)), "y": ((1, 2), (1, 3))}


def test_two_topics_are_spread_each() -> None:
    plan = assign(everybody(2, [1, 2]), topics(2, 2))
    for keys in plan.values():
        assert [key[0] for key in keys] == [1, 2], "one of each"


@pytest.mark.parametrize("joins", [1, 50])
def test_a_large_group_is_assigned_in_a_moment(joins: int) -> None:
    known = topics(*[1_000] * 5)
    first = everybody(200, range(1, 6))
    before = assign(first, known)
    assert counts(before) == [25] * 200
    after = assign([*later(first, before), *everybody(joins, range(1, 6), "new")], known)
    assert counts(after)[-1] - counts(after)[0] <= 1


def looks(call: Callable[[], object]) -> int:
    """How often a call calls functions: what it does, whatever the pace of the machine."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(("members", "joins"), [(1_000, 0), (1_000, 1), (1, 1), (1, 99), (50, 50)])
def test_the_work_grows_with_partitions_and_moves_and_not_with_their_product(
    members: int, joins: int
) -> None:
    known = topics(3_000)
    first = everybody(members, [1])
    before = assign(first, known)
    group = [*later(first, before), *everybody(joins, [1], "new")]
    after = assign(group, known)
    assert counts(after)[-1] - counts(after)[0] <= 1
    assert looks(lambda: assign(group, known)) < 120 * (3_000 + moved(before, after))


def test_what_cannot_be_evened_out_is_looked_for_once() -> None:
    names = range(1, 41)
    known = topics(*[1] * 40, 2_000)
    poor = everybody(300, names)
    rich = everybody(20, [41], "rich")
    plan = assign([*poor, *rich], known)
    assert counts(plan)[-20:] == [100] * 20
    settled = later([*poor, *rich], plan)
    assert looks(lambda: assign(settled, known)) < 200_000
