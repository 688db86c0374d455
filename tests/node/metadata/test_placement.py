from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.node.metadata.placement import Candidate, place


def counts(placed: list[tuple[int, ...]], nodes: list[int]) -> tuple[list[int], list[int]]:
    replicas = Counter(node for one in placed for node in one)
    leaders = Counter(one[0] for one in placed)
    return [replicas[node] for node in nodes], [leaders[node] for node in nodes]


def spread(numbers: list[int]) -> int:
    return max(numbers) - min(numbers)


@st.composite
def any_cluster(draw: st.DrawFn) -> tuple[list[Candidate], int, int]:
    """Nodes of all kinds of load, in all kinds of racks, some of them down."""
    load = st.integers(0, 40)
    nodes = [
        Candidate(
            node_id=node_id,
            rack=draw(st.sampled_from(["", "a", "b", "c"])),
            replica_count=draw(load),
            preferred_count=draw(load),
            avoided=draw(st.booleans()),
        )
        for node_id in range(1, draw(st.integers(1, 8)) + 1)
    ]
    return nodes, draw(st.integers(1, 30)), draw(st.integers(1, len(nodes)))


@given(any_cluster())
@settings(max_examples=150, deadline=None)
def test_no_node_ever_holds_two_replicas_of_a_partition(
    cluster: tuple[list[Candidate], int, int],
) -> None:
    nodes, partitions, factor = cluster
    placed = place(nodes, partitions, factor)
    assert len(placed) == partitions
    known = {node.node_id for node in nodes}
    for one in placed:
        assert len(one) == len(set(one)) == factor
        assert set(one) <= known


@given(any_cluster())
@settings(max_examples=150, deadline=None)
def test_replicas_are_spread_over_as_many_racks_as_there_are(
    cluster: tuple[list[Candidate], int, int],
) -> None:
    nodes, partitions, factor = cluster
    # Every node is up: an avoided node is worse than a shared rack.
    nodes = [Candidate(n.node_id, n.rack, n.replica_count, n.preferred_count) for n in nodes]
    racks = {node.node_id: node.rack for node in nodes}
    for one in place(nodes, partitions, factor):
        used = Counter(racks[node] for node in one)
        assert len(used) == min(factor, len(set(racks.values())))


@given(any_cluster())
@settings(max_examples=150, deadline=None)
def test_a_dead_node_gets_a_replica_only_where_there_are_too_few_others(
    cluster: tuple[list[Candidate], int, int],
) -> None:
    nodes, partitions, factor = cluster
    alive = {node.node_id for node in nodes if not node.avoided}
    for one in place(nodes, partitions, factor):
        assert len(set(one) & alive) == min(factor, len(alive))
        assert one[0] in alive or not alive


@given(st.integers(1, 12), st.integers(1, 60), st.data())
@settings(max_examples=150, deadline=None)
def test_equal_nodes_get_equal_shares(
    node_count: int, partitions: int, data: st.DataObject
) -> None:
    factor = data.draw(st.integers(1, min(node_count, 5)))
    nodes = list(range(1, node_count + 1))
    placed = place([Candidate(node) for node in nodes], partitions, factor)
    replicas, leaders = counts(placed, nodes)
    assert spread(replicas) <= 1
    assert spread(leaders) <= 1


@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_equal_racks_get_equal_shares(
    racks: int, nodes_per_rack: int, partitions: int, data: st.DataObject
) -> None:
    factor = data.draw(st.integers(1, racks))
    nodes = list(range(1, racks * nodes_per_rack + 1))
    candidates = [Candidate(node, rack=f"r{node % racks}") for node in nodes]
    replicas, leaders = counts(place(candidates, partitions, factor), nodes)
    assert spread(replicas) <= 1
    assert spread(leaders) <= 1


def test_a_new_node_gets_more_of_the_next_topic() -> None:
    old = [Candidate(node, replica_count=12, preferred_count=4) for node in (1, 2, 3)]
    replicas, leaders = counts(place([*old, Candidate(4)], 4, 3), [1, 2, 3, 4])
    assert replicas == [2, 3, 3, 4] or (replicas[3] == 4 and sum(replicas) == 12)
    assert leaders[3] == max(leaders)


def test_the_load_of_a_dead_node_falls_on_many() -> None:
    placed = place([Candidate(node) for node in range(1, 7)], 30, 2)
    for dead in range(1, 7):
        partners = {node for one in placed if dead in one for node in one} - {dead}
        assert len(partners) >= 4


@given(any_cluster())
@settings(max_examples=50, deadline=None)
def test_placement_depends_on_nothing_but_its_input(
    cluster: tuple[list[Candidate], int, int],
) -> None:
    nodes, partitions, factor = cluster
    assert place(nodes, partitions, factor) == place(reversed(nodes), partitions, factor)


def test_more_replicas_than_nodes_is_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="at most one on each node"):
        place([Candidate(1)], 1, 2)
