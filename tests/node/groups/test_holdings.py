"""What a member has, as its gateway has it."""

from __future__ import annotations

from rakit.api.v1.log_service_pb2 import EDGE_EARLIEST, EDGE_LATEST
from rakit.node.groups.holdings import Held, Holdings
from rakit.peer.v1.coordinator_service_pb2 import MemberAnswer, MemberPartition
from rakit.peer.v1.group_command_pb2 import OwnedPartition


def owned(partition: int, since: int = 1, topic_id: int = 1) -> OwnedPartition:
    return OwnedPartition(topic_id=topic_id, partition=partition, since_epoch=since)


def answer(
    *partitions: OwnedPartition,
    revoking: list[OwnedPartition] | None = None,
    committed: dict[int, int] | None = None,
) -> MemberAnswer:
    known = committed or {}
    return MemberAnswer(
        owned=[
            MemberPartition(partition=each, topic="t", committed_offset=known.get(each.partition))
            for each in partitions
        ],
        revoking=revoking or [],
    )


def opened(holdings: Holdings) -> list[Held]:
    """As the stream does it once it has told the client."""
    for each in holdings.all():
        each.is_open = each.is_told = True
    return holdings.all()


def numbers(held: list[Held]) -> list[int]:
    return sorted(each.position.partition for each in held)


def test_a_partition_begins_at_its_commit_else_where_the_member_begins() -> None:
    holdings = Holdings(EDGE_LATEST)
    change = holdings.apply(answer(owned(0), owned(1), committed={1: 7}))
    assert numbers(change.added) == [0, 1]
    first, second = holdings.all()
    assert (first.position.edge, first.from_commit) == (EDGE_LATEST, False)
    assert (second.position.offset, second.from_commit) == (7, True)


def test_an_answer_that_says_the_same_changes_nothing() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    opened(holdings)
    change = holdings.apply(answer(owned(0)))
    assert (change.added, change.revoked, change.unseen) == ([], [], [])


def test_a_revoked_partition_is_told_once_and_stays_until_the_coordinator_knows() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0), owned(1)))
    held = opened(holdings)[0]
    turn = held.turn
    telling = answer(owned(0), owned(1), revoking=[owned(0)])
    assert numbers(holdings.apply(telling).revoked) == [0]
    assert holdings.apply(telling).revoked == []
    assert held.turn > turn
    assert not held.is_readable(0.0)
    holdings.let_go(held)
    assert [each.partition for each in holdings.owned()] == [1]
    # Heard again before the coordinator has the word.
    assert holdings.apply(telling).added == []
    holdings.apply(answer(owned(1)))
    assert numbers(holdings.all()) == [1]


def test_what_the_client_was_never_told_is_let_go_of_without_asking_it() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    change = holdings.apply(answer(owned(0), owned(1), revoking=[owned(0), owned(1)]))
    assert change.revoked == []
    assert sorted(each.partition for each in change.unseen) == [0, 1]
    assert holdings.all() == []


def test_p5_what_is_revoked_while_the_stream_was_down_is_asked_back_from_the_client() -> None:
    holdings = Holdings(EDGE_EARLIEST, resumed=True)
    change = holdings.apply(answer(owned(0), owned(1), revoking=[owned(0)]))
    assert (numbers(change.revoked), change.unseen) == ([0], [])
    assert numbers(change.added) == [1]
    assert [each.partition for each in holdings.owned()] == [0, 1]
    # Also where the leader was away, so that the client was not told on this stream.
    change = holdings.apply(answer(owned(0), owned(1), revoking=[owned(0), owned(1)]))
    assert (numbers(change.revoked), change.unseen) == ([1], [])
    # What came later it cannot know.
    holdings.apply(answer(owned(0), owned(1), owned(2)))
    change = holdings.apply(answer(owned(0), owned(1), owned(2), revoking=[owned(2)]))
    assert (change.revoked, change.unseen) == ([], [owned(2)])


def test_of_two_topics_of_one_name_a_client_that_resumes_lets_go_of_the_earlier_first() -> None:
    old, new = owned(0, topic_id=1), owned(0, topic_id=2)
    holdings = Holdings(EDGE_EARLIEST, resumed=True)
    change = holdings.apply(answer(new, old, revoking=[old]))
    assert ([each.owned for each in change.revoked], change.added) == ([old], [])
    holdings.let_go(change.revoked[0])
    assert [each.owned for each in holdings.apply(answer(new)).added] == [new]


def test_what_is_let_go_of_unasked_is_left_alone_until_the_coordinator_knows() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    revoked = answer(owned(0), revoking=[owned(0)])
    assert holdings.apply(revoked).unseen == [owned(0)]
    # The revocation is undone, and done again, while the word is on its way.
    assert holdings.apply(answer(owned(0))).added == []
    assert holdings.apply(revoked).unseen == []
    holdings.apply(answer())
    assert numbers(holdings.apply(answer(owned(0, since=5))).added) == [0]
    assert numbers(holdings.apply(answer(owned(0, since=5))).added) == []


def test_a_partition_that_vanishes_is_told_as_revoked() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    opened(holdings)
    assert numbers(holdings.apply(answer()).revoked) == [0]
    assert holdings.apply(answer()).revoked == []


def test_a_partition_that_comes_back_comes_anew_when_the_old_one_is_gone() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0, since=1)))
    held = opened(holdings)[0]
    again = answer(owned(0, since=5))
    change = holdings.apply(again)
    assert (numbers(change.revoked), change.added) == ([0], [])
    holdings.let_go(held)
    (anew,) = holdings.apply(again).added
    assert anew.owned.since_epoch == 5
    assert not anew.is_told


def test_of_two_topics_of_one_name_the_later_comes_when_the_earlier_is_gone() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    old, new = owned(0, topic_id=1), owned(0, topic_id=2)
    holdings.apply(answer(old))
    held = opened(holdings)[0]
    both = answer(old, new, revoking=[old])
    change = holdings.apply(both)
    assert (numbers(change.revoked), change.added) == ([0], [])
    holdings.let_go(held)
    assert [each.owned.topic_id for each in holdings.apply(answer(new)).added] == [2]


def test_a_withdrawn_revocation_still_ends_with_the_client_letting_go() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    (held,) = opened(holdings)
    holdings.apply(answer(owned(0), revoking=[owned(0)]))
    assert holdings.apply(answer(owned(0))).added == []
    assert held.revoking


def test_an_offset_within_what_was_seen_needs_no_question() -> None:
    holdings = Holdings(EDGE_EARLIEST)
    holdings.apply(answer(owned(0)))
    (held,) = holdings.all()
    held.earliest, held.latest, held.sent_to = 5, 10, 12
    assert [each for each in range(20) if held.contains(each)] == list(range(5, 13))
