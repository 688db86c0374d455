"""An answer of ours comes before the caller's own timer, whatever hangs (contract 17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import GetProducerStateRequest
from rakit.multiraft.leaders import Leaders
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.partition.partition import Partition
from rakit.node.partitions import Partitions
from rakit.node.peers import Peers, unreachable
from rakit.node.routing import Router, answer_by
from rakit.node.services.offsets import OffsetLookup
from rakit.peer.v1.node_service_pb2 import Destination
from tests.node.partition.fakes import MEMBERS
from tests.node.partition.test_partition import Setting
from tests.node.reading.test_fetcher import ME, OTHER, TOPIC
from tests.node.reading.test_fetcher import World as Nodes

WAIT_S = 0.4
LEADERS = {"on this node": ME, "on another node": OTHER}


class Hanging:
    """A leader, here or elsewhere, that gets no answer from its majority, and so gives none."""

    def __init__(self, leader: int) -> None:
        self.setting = Setting()
        self.setting.host.hangs = True
        leaders = Leaders(ME, lambda _node: True)
        groups = [(each.group_id, 1) for each in TOPIC.partitions]
        leaders.announced(leader, groups, [], complete=False)
        router = Router(ME, cast("MetadataClient", Nodes()), leaders)
        self.lookup = OffsetLookup(router, cast("Partitions", self), cast("Peers", self))

    def get(self, _group_id: int) -> Partition:
        return self.setting.partition

    def destination(self, node_id: int) -> Destination:
        return Destination(node_id=node_id)

    async def call(
        self, node_id: int, *_request: object, timeout_s: float, mutates: bool = False
    ) -> object:
        await asyncio.sleep(timeout_s)
        raise broken(node_id, mutates=mutates)


def broken(node_id: int, *, mutates: bool) -> RakitError:
    """What a call to another node says when its time is up."""
    if mutates:
        return RakitError(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN, "it may have got there")
    return unreachable(node_id)


UNCONFIRMED = {error_pb2.ERROR_REASON_NO_QUORUM, error_pb2.ERROR_REASON_NO_LEADER}


async def reason(answer: Awaitable[object]) -> error_pb2.ErrorReason.ValueType:
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(RakitError) as caught:
            await answer
    return caught.value.reason


def deadline() -> float:
    return asyncio.get_running_loop().time() + WAIT_S


@pytest.mark.parametrize("where", LEADERS)
async def test_contract_17_offsets_that_nobody_confirms_are_answered_in_time(where: str) -> None:
    lookup = Hanging(LEADERS[where]).lookup
    asked = lookup.offsets("t", 0, None, deadline())
    assert await reason(asked) in UNCONFIRMED
    asked_all = lookup.all_offsets(TOPIC, [0, 1], None, deadline())
    assert await reason(asked_all) in UNCONFIRMED


@pytest.mark.parametrize("where", LEADERS)
@pytest.mark.parametrize(
    ("fence_epoch", "expected"),
    [
        (None, UNCONFIRMED),
        (5, {error_pb2.ERROR_REASON_OUTCOME_UNKNOWN}),
    ],
)
async def test_contract_17_a_fence_that_is_not_committed_is_unknown_in_time(
    where: str, fence_epoch: int | None, expected: set[error_pb2.ErrorReason.ValueType]
) -> None:
    lookup = Hanging(LEADERS[where]).lookup
    request = GetProducerStateRequest(topic="t", producer_id=7, sequence=1, fence_epoch=fence_epoch)
    assert await reason(lookup.producer_state(request, deadline())) in expected


async def test_a_leader_that_has_just_moved_is_not_the_fault_of_the_caller() -> None:
    hanging = Hanging(ME)
    hanging.setting.follow(MEMBERS[1])
    state = GetProducerStateRequest(topic="t", producer_id=7, sequence=1)
    for asked in (
        hanging.lookup.offsets("t", 0, None, deadline()),
        hanging.lookup.all_offsets(TOPIC, [0], None, deadline()),
        hanging.lookup.producer_state(state, deadline()),
    ):
        assert await reason(asked) == error_pb2.ERROR_REASON_NO_LEADER


async def test_a_short_deadline_leaves_some_time_for_the_work() -> None:
    now = asyncio.get_running_loop().time()
    assert answer_by(now + 10) == now + 10 - 0.1
    assert now < answer_by(now + 0.05) < now + 0.05
