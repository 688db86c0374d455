"""Ticks in which nothing happens may pass at once: the same follows as when each is made."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import pytest

from rakit.raft import Message, MessageType, Role
from tests.raft.single import Single, of_kind

HEARTBEAT = MessageType.HEARTBEAT


def one_by_one(replica: Single, count: int) -> list[list[Message]]:
    """Makes every tick; returns what each of them sent."""
    sent: list[list[Message]] = []
    for _ in range(count):
        replica.node.tick()
        sent.append(replica.drain())
    return sent


def at_once(replica: Single, count: int) -> list[list[Message]]:
    """The same, making only the ticks that matter."""
    sent: list[list[Message]] = []
    while len(sent) < count:
        passing = min(replica.node.ticks_left() - 1, count - len(sent))
        replica.node.pass_ticks(passing)
        sent += [[] for _ in range(passing)]
        if len(sent) < count:
            replica.node.tick()
            sent.append(replica.drain())
    return sent


def leader(*, check_quorum: int = 1) -> Single:
    replica = Single([1], heartbeat_tick=3, election_tick=10, check_quorum=check_quorum)
    replica.win()
    replica.step(MessageType.APP_RESP, 2, index=2)
    return replica


@pytest.mark.parametrize("check_quorum", [0, 1])
def test_a_leaders_heartbeats_and_its_end_without_a_quorum_come_with_the_same_ticks(
    check_quorum: int,
) -> None:
    slow, quick = leader(check_quorum=check_quorum), leader(check_quorum=check_quorum)
    assert at_once(quick, 30) == one_by_one(slow, 30)
    assert quick.node.role is slow.node.role
    assert (quick.node.role is Role.LEADER) is not bool(check_quorum)


def test_a_follower_stands_with_the_same_tick() -> None:
    slow, quick = Single([1], election_tick=10), Single([1], election_tick=10)
    for replica in (slow, quick):
        replica.step(HEARTBEAT, 2, term=1)
        replica.node._raft.randomized_timeout = 13
    assert at_once(quick, 12) == one_by_one(slow, 12)
    assert [each.node.role for each in (slow, quick)] == [Role.FOLLOWER] * 2
    assert at_once(quick, 1) == one_by_one(slow, 1)
    assert [each.node.role for each in (slow, quick)] == [Role.PRE_CANDIDATE] * 2


def test_a_message_puts_the_tick_that_matters_off() -> None:
    replica = Single([1], election_tick=10)
    replica.node._raft.randomized_timeout = 13
    replica.node.pass_ticks(9)
    assert replica.node.ticks_left() == 4
    replica.step(HEARTBEAT, 2, term=1)
    assert replica.node.ticks_left() == 13


def test_to_a_replica_that_may_not_stand_no_tick_matters() -> None:
    replica = Single([1], replica_id=9, election_tick=10)
    replica.node.pass_ticks(100)
    assert replica.node.ticks_left() == 10
    assert not of_kind(replica.drain(), MessageType.PRE_VOTE)


def test_a_leader_is_level_when_every_member_holds_everything_and_it_is_applied() -> None:
    replica = leader()
    assert not replica.node.is_level(), "replica 3 has not answered"
    replica.step(MessageType.APP_RESP, 3, index=2)
    assert replica.node.is_level()
    replica.node.propose(b"x")
    assert not replica.node.is_level()
