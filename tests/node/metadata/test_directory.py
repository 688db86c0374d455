from __future__ import annotations

import pytest

from rakit.node.metadata.directory import CANDIDATES_COUNT_MAX, AddressBook, check_strangers
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import NodeInfo
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_command_pb2 import NODE_REFUSAL_IDENTITY_MISMATCH
from tests.node.metadata.support import describe


def node(node_id: int, address: str) -> NodeInfo:
    return NodeInfo.described(describe(f"n{node_id}", address=address), node_id, node_id, 0)


def member(node_id: int, advertised: str, cluster_id: str = "c") -> wire.Standing:
    return wire.Standing(
        node=describe(f"n{node_id}", address=advertised),
        state=wire.FORMATION_STATE_MEMBER,
        cluster_id=cluster_id,
        node_id=node_id,
    )


def book() -> AddressBook:
    made = AddressBook("c", 1)
    assert made.registry_says({1: node(1, "me"), 2: node(2, "old")}) == {2: "old"}
    return made


def test_the_registry_is_followed_when_it_says_something_new() -> None:
    made = book()
    assert made.registry_says({2: node(2, "old")}) == {}
    assert made.registry_says({2: node(2, "new")}) == {2: "new"}
    assert made.current == {2: "new"}


def test_a_node_is_moved_to_where_it_answers() -> None:
    made = book()
    assert made.answered({"seed": member(2, "elsewhere")}) == {2: "seed"}
    assert made.current[2] == "seed"
    # What the registry said before is not news: it must not undo this.
    assert made.registry_says({2: node(2, "old")}) == {}


def test_the_address_that_a_node_gives_for_itself_is_preferred_if_it_answers_there() -> None:
    answers = {
        "10.0.0.2:7071": member(2, "n2.pods:7071"),
        "n2.pods:7071": member(2, "n2.pods:7071"),
    }
    assert book().answered(answers) == {2: "n2.pods:7071"}


def test_an_address_that_answers_is_not_given_up_for_another() -> None:
    answers = {"old": member(2, "old"), "another": member(2, "old")}
    assert book().answered(answers) == {}


def test_answers_of_other_clusters_of_itself_and_of_empty_nodes_count_for_nothing() -> None:
    made = book()
    empty = wire.Standing(node=describe("n2"), state=wire.FORMATION_STATE_EMPTY)
    answers = {"a": member(2, "a", "other"), "b": member(1, "b"), "c": empty}
    assert made.answered(answers) == {}


def test_a_directory_of_another_cluster_is_told_by_the_seeds() -> None:
    with pytest.raises(NodeRefusedError, match="belongs to cluster c, but the seeds") as error:
        check_strangers("c", [member(2, "a", "other")])
    assert error.value.refusal == NODE_REFUSAL_IDENTITY_MISMATCH
    assert "correct --seeds or --data-dir" in error.value.message


def test_seeds_that_are_empty_silent_or_partly_strangers_are_no_reason_to_stop() -> None:
    empty = wire.Standing(node=describe("n2"), state=wire.FORMATION_STATE_EMPTY)
    check_strangers("c", [])
    check_strangers("c", [empty])
    check_strangers("c", [member(2, "a", "other"), member(3, "b", "c")])


def test_candidates_are_bounded() -> None:
    made = book()
    assert made.heard("x")
    assert not made.heard("x")
    assert not made.heard("")
    for number in range(2 * CANDIDATES_COUNT_MAX):
        made.heard(f"a{number}")
    assert len(made.heard_of) == CANDIDATES_COUNT_MAX
    assert {"seed", "old"} <= set(made.candidates(["seed"]))
