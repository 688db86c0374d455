"""Order, refusal after a failure, and changes of the leader, for one partition of a stream."""

from __future__ import annotations

import asyncio

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.forwarding.lanes import Parking
from rakit.node.produce import ProducePath
from tests.node.forwarding.world import ME, OTHER, THIRD, World, appended, batch

INVALID = error_pb2.ERROR_REASON_INVALID_BATCH
NOT_LEADER = error_pb2.ERROR_REASON_NOT_LEADER
EARLIER = error_pb2.ERROR_REASON_EARLIER_REQUEST_FAILED


async def test_requests_are_sent_without_waiting_and_answered_in_their_order() -> None:
    world = World()
    world.lead(ME)
    lane = world.lane()
    for tag in (1, 2, 3):
        lane.submit(world.request(tag))
    assert [each.content for each in world.sent] == [b"1", b"2", b"3"]
    for each in reversed(world.sent):
        each.succeed()
    await world.settle()
    assert world.outcomes == [(1, "ok"), (2, "ok"), (3, "ok")]


async def test_nothing_passes_a_failure_until_a_restart() -> None:
    world = World()
    world.lead(ME)
    lane = world.lane()
    lane.submit(world.request(1))
    lane.refuse(world.request(2), RakitError(INVALID, "bad"))
    lane.submit(world.request(3))
    lane.restart(world.request(4))
    lane.submit(world.request(5))
    assert [each.content for each in world.sent] == [b"1", b"5"]
    for each in world.sent:
        each.succeed()
    await world.settle()
    assert world.outcomes == [
        (1, "ok"),
        (2, "INVALID_BATCH"),
        (3, "EARLIER_REQUEST_FAILED"),
        (4, "restarted"),
        (5, "ok"),
    ]


async def test_an_unknown_outcome_refuses_what_follows() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    world.sent[0].fail(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN)
    await world.settle()
    lane.submit(world.request(2))
    assert world.outcomes == [(1, "OUTCOME_UNKNOWN"), (2, "EARLIER_REQUEST_FAILED")]
    lane.restart(world.request(3))
    lane.submit(world.request(4))
    assert world.sent[-1].restart, "the receiver is told that the lane goes on"
    lane.submit(world.request(5))
    assert not world.sent[-1].restart


async def test_what_follows_a_doomed_request_waits_for_its_failure() -> None:
    """Contract 10: the refusal is certain, only the answer takes a while."""
    world = World()
    world.lead(ME)
    lane = world.lane()
    lane.submit(world.request(1))
    world.doom = True
    lane.submit(world.request(2))
    world.doom = False
    for tag in (3, 4):
        lane.submit(world.request(tag))
    await world.settle()
    assert [each.content for each in world.sent] == [b"1", b"2"]
    world.sent[0].succeed()
    await world.settle()
    assert len(world.sent) == 2, "nothing passes it, however long it takes"
    world.sent[1].fail(error_pb2.ERROR_REASON_OFFSET_MISMATCH)
    await world.until_answered(4)
    assert world.outcomes == [
        (1, "ok"),
        (2, "OFFSET_MISMATCH"),
        (3, "EARLIER_REQUEST_FAILED"),
        (4, "EARLIER_REQUEST_FAILED"),
    ]
    assert len(world.sent) == 2
    assert world.parking.count == 0


async def test_a_doomed_request_of_a_leader_that_was_none_goes_to_the_new_one() -> None:
    world = World()
    world.lead(ME)
    lane = world.lane()
    world.doom = True
    lane.submit(world.request(1))
    lane.submit(world.request(2))
    world.doom = False
    world.lead(OTHER)
    world.sent[0].fail(error_pb2.ERROR_REASON_NO_LEADER)
    await world.until_sent(3)
    assert [(each.node_id, each.content) for each in world.sent[1:]] == [
        (OTHER, b"1"),
        (OTHER, b"2"),
    ]
    for each in world.sent[1:]:
        each.succeed()
    await world.until_answered(2)
    assert world.outcomes == [(1, "ok"), (2, "ok")]


async def test_a_leadership_that_comes_back_finds_no_old_failure() -> None:
    """Where the lane had failed once the receiver still has it broken."""
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    world.sent[0].fail(NOT_LEADER)
    world.lead(ME)
    await world.until_sent(2)
    world.sent[1].succeed()
    await world.until_answered(1)
    world.lead(OTHER)
    lane.submit(world.request(2))
    lane.submit(world.request(3))
    assert [(each.node_id, each.restart) for each in world.sent[2:]] == [
        (OTHER, True),
        (OTHER, False),
    ]


async def test_what_an_old_leader_refused_goes_to_the_new_one_in_order() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    for tag in (1, 2):
        lane.submit(world.request(tag))
    world.lead(THIRD)
    lane.submit(world.request(3))
    assert [each.node_id for each in world.sent] == [OTHER, OTHER], "3 waits for the others"
    world.sent[0].fail(NOT_LEADER)
    world.sent[1].fail(EARLIER)
    await world.until_sent(5)
    assert [(each.node_id, each.content) for each in world.sent[2:]] == [
        (THIRD, b"1"),
        (THIRD, b"2"),
        (THIRD, b"3"),
    ]
    assert world.sent[2].restart
    for each in world.sent[2:]:
        each.succeed()
    await world.until_answered(3)
    assert world.outcomes == [(1, "ok"), (2, "ok"), (3, "ok")]


async def test_the_leader_is_not_changed_while_something_is_in_flight() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    world.lead(ME)
    lane.submit(world.request(2))
    await world.settle()
    assert len(world.sent) == 1
    world.sent[0].succeed()
    await world.until_sent(2)
    assert world.sent[1].node_id == ME


async def test_an_unknown_outcome_behind_a_returned_request_fails_both() -> None:
    """Sending the first again would store it behind the second, which may be stored."""
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    lane.submit(world.request(2))
    world.sent[0].fail(NOT_LEADER)
    world.sent[1].fail(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN)
    await world.until_answered(2)
    assert world.outcomes == [(1, "NO_LEADER"), (2, "OUTCOME_UNKNOWN")]
    assert len(world.sent) == 2


async def test_requests_wait_for_a_leader() -> None:
    world = World()
    lane = world.lane()
    lane.submit(world.request(1))
    lane.submit(world.request(2))
    await world.settle()
    assert world.sent == []
    world.lead(ME)
    await world.until_sent(2)
    assert [each.content for each in world.sent] == [b"1", b"2"]
    assert world.parking.count == 0


async def test_a_leaderless_lane_gives_up_and_holds_nobody_else_up() -> None:
    world = World()
    leaderless, other = world.lane(), world.lane()
    leaderless.submit(world.request(1, wait_s=0.05))
    leaderless.submit(world.request(2, wait_s=30))
    await world.until_answered(2)
    assert world.outcomes == [(1, "NO_LEADER"), (2, "EARLIER_REQUEST_FAILED")]
    world.lead(ME)
    other.submit(world.request(3))
    assert [each.content for each in world.sent] == [b"3"]


async def test_what_waits_for_a_leader_is_bounded() -> None:
    world = World()
    world.parking = Parking(bytes_max=250, count_max=10)
    lane = world.lane()
    for tag in (1, 2, 3, 4):
        lane.submit(world.request(tag))
    assert world.parking.size_bytes == 200
    world.lead(ME)
    await world.until_sent(2)
    for each in world.sent:
        each.succeed()
    await world.until_answered(4)
    assert world.outcomes == [
        (1, "ok"),
        (2, "ok"),
        (3, "NO_LEADER"),
        (4, "EARLIER_REQUEST_FAILED"),
    ]
    assert world.parking.count == 0


async def test_leader_only_is_told_where_the_leader_is() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    request = world.request(1)
    request.leader_only_listener = "default"
    lane.submit(request)
    assert world.outcomes == [(1, "NOT_LEADER")]
    assert isinstance(request.outcome, RakitError)
    assert request.outcome.metadata["leader_node_id"] == str(OTHER)
    assert request.outcome.metadata["leader_address"] == "other:1"
    assert world.sent == []


async def test_who_may_be_forwarded_is_never_told_that_it_asked_the_wrong_node() -> None:
    """A leader that moves for longer than a request waits is NO_LEADER, which clients repeat."""
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1, wait_s=0))
    world.sent[0].fail(NOT_LEADER)
    await world.until_answered(1)
    assert world.outcomes == [(1, "NO_LEADER")]
    path = ProducePath(world.router, world.dispatch)
    now = asyncio.get_running_loop().time()
    appending = asyncio.ensure_future(path.append("t", 0, batch(), None, None, deadline=now + 0.01))
    await world.until_sent(2)
    world.sent[1].fail(NOT_LEADER)
    with pytest.raises(RakitError, match="could not be asked in time") as caught:
        await appending
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_LEADER


async def test_a_closed_lane_is_forgotten_where_it_was_used() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    lane.close()
    assert world.ended_lanes == [(OTHER, world.sent[0].lane)]


async def test_a_refusal_of_the_own_node_is_tried_again_when_it_leads() -> None:
    world = World()
    world.lead(ME)
    lane = world.lane()
    world.refuse = NOT_LEADER
    lane.submit(world.request(1))
    lane.submit(world.request(2))
    assert world.answers == []
    world.refuse = None
    await world.until_sent(2)
    assert [each.content for each in world.sent] == [b"1", b"2"]
    world.sent[0].answer.set_result(appended(5))
    world.sent[1].answer.set_result(appended(6))
    await world.until_answered(2)
    await asyncio.gather(*world.tasks)
