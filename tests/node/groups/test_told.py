"""What a member is told of its partitions fits into what clients take, however many they are."""

from __future__ import annotations

import pytest

from rakit.api.v1.group_service_pb2 import (
    REVOKE_REASON_REBALANCE,
    AssignedPartition,
    SubscribeResponse,
    TopicPartition,
)
from rakit.node.groups.names import NAME_CHARS_MAX
from rakit.node.groups.told import assigned_events, revoking_events
from rakit.node.services.positions import RESPONSE_BYTES_MAX
from tests.node.groups.world import node

LONG = "t" * NAME_CHARS_MAX
COUNT = 20_000


def test_contract_5_a_member_with_20_000_partitions_is_told_in_messages_below_3_mib() -> None:
    added = [
        AssignedPartition(
            topic=LONG, partition=at, offset=2**53 - 1, committed=True, topic_id=2**53 - 1
        )
        for at in range(COUNT)
    ]
    owned = [TopicPartition(topic=LONG, partition=at) for at in range(COUNT)]
    events = list(assigned_events(2**53 - 1, added, owned))
    sizes = [SubscribeResponse(assigned=each).ByteSize() for each in events]
    assert max(sizes) < RESPONSE_BYTES_MAX < sum(sizes)
    assert [each for event in events for each in event.added] == added
    assert [each for event in events for each in event.owned] == owned
    assert [each.more for each in events] == [True] * (len(events) - 1) + [False]
    revoking = list(revoking_events(owned, REVOKE_REASON_REBALANCE, 2**31 - 1))
    assert max(SubscribeResponse(revoking=each).ByteSize() for each in revoking) < sum(sizes) // 4
    assert [each for event in revoking for each in event.partitions] == owned


def test_what_is_owned_is_told_whole_also_where_little_or_nothing_is_added() -> None:
    owned = [TopicPartition(topic="t", partition=at) for at in range(COUNT)]
    events = list(assigned_events(7, [], owned))
    assert [each for event in events for each in event.owned] == owned
    assert not events[-1].more
    (nothing,) = assigned_events(7, [], [])
    assert (nothing.member_epoch, nothing.more) == (7, False)
    assert list(revoking_events([], REVOKE_REASON_REBALANCE, 1)) == []


async def test_a_stream_tells_what_is_owned_in_portions_and_the_records_after_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rakit.node.groups.told.PORTION_COUNT", 2)
    async with node() as it:
        it.logs.put(12, 1)
        member = await it.join(0, 1, 2)
        told = await member.client.until(lambda told: "2: 0-1" in told)
        assert told == ["joined", "assigned 0@0 1@0", "assigned 2@0", "2: 0-1"]
        first, second = [each.assigned for each in member.client.answers[1:3]]
        assert (first.more, second.more) == (True, False)
        assert [each.partition for each in (*first.owned, *second.owned)] == [0, 1, 2]
        it.coordinator.revoke(member.id, 0, 1, 2)
        told = await member.client.until(lambda told: len(told) == 6)
        assert told[4:] == ["revoking 0 1 1", "revoking 2 1"]
