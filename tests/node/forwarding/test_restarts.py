"""A restart in the middle of a pipeline: late failures of what came before it stay behind it."""

from __future__ import annotations

from rakit.api.v1 import error_pb2
from tests.node.forwarding.world import OTHER, World

UNKNOWN = error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
EARLIER = error_pb2.ERROR_REASON_EARLIER_REQUEST_FAILED
NOT_LEADER = error_pb2.ERROR_REASON_NOT_LEADER


async def test_what_fails_late_does_not_break_a_lane_that_was_restarted() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    for tag in (1, 2):
        lane.submit(world.request(tag))
    world.sent[0].fail(UNKNOWN)
    await world.settle()
    # The client has the first failure and restarts; the second is still on its way back.
    lane.restart(world.request(3))
    lane.submit(world.request(4))
    assert world.sent[2].restart, "the leader's node has to take the lane up again"
    world.sent[1].fail(EARLIER)
    await world.settle()
    lane.submit(world.request(5))
    assert [each.content for each in world.sent] == [b"1", b"2", b"4", b"5"]
    assert not world.sent[3].restart, "or a failure of 4 could be passed by 5"
    for each in world.sent[2:]:
        each.succeed()
    await world.settle()
    assert world.outcomes == [
        (1, "OUTCOME_UNKNOWN"),
        (2, "EARLIER_REQUEST_FAILED"),
        (3, "restarted"),
        (4, "ok"),
        (5, "ok"),
    ]


async def test_a_late_failure_refuses_what_was_returned_before_the_restart_only() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    for tag in (1, 2):
        lane.submit(world.request(tag))
    lane.restart(world.request(3))
    lane.submit(world.request(4))
    world.sent[1].fail(NOT_LEADER)
    world.sent[2].fail(NOT_LEADER)
    world.sent[0].fail(UNKNOWN)
    await world.until_sent(4)
    assert world.sent[3].content == b"4"
    world.sent[3].succeed()
    await world.until_answered(4)
    assert world.outcomes == [
        (1, "OUTCOME_UNKNOWN"),
        (2, "NO_LEADER"),
        (3, "restarted"),
        (4, "ok"),
    ]


async def test_a_stream_that_has_ended_sends_nothing_again() -> None:
    world = World()
    world.lead(OTHER)
    lane = world.lane()
    lane.submit(world.request(1))
    lane.close()
    world.sent[0].fail(NOT_LEADER)
    await world.settle()
    assert not world.tasks
    assert world.outcomes == [(1, "NO_LEADER")]
