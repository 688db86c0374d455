"""P5 at the edge: the checker of histories sees what it must, on planted bugs and by hand."""

from __future__ import annotations

from rakit.api.v1.group_service_pb2 import (
    Assigned,
    AssignedPartition,
    Committed,
    Delivery,
    PartitionError,
    Revoking,
    SubscribeResponse,
    TopicPartition,
)
from rakit.api.v1.log_service_pb2 import PartitionData
from rakit.api.v1.record_pb2 import Batch
from tests.node.groups.history import History
from tests.node.groups.world import Member, node

PLACE = ("t", 0)


def assigned(epoch: int, *added: int, owned: tuple[int, ...] = ()) -> SubscribeResponse:
    return SubscribeResponse(
        assigned=Assigned(
            member_epoch=epoch,
            added=[AssignedPartition(topic="t", partition=each) for each in added],
            owned=[TopicPartition(topic="t", partition=each) for each in {*added, *owned}],
        )
    )


def records(start: int, end: int) -> SubscribeResponse:
    batch = Batch(base_offset=start, record_count=end - start)
    data = PartitionData(topic="t", partition=0, next_offset=end, batches=[batch])
    return SubscribeResponse(records=Delivery(data=data))


def committed(tag: int, *, refused: bool = False) -> SubscribeResponse:
    errors = [PartitionError(topic="t", partition=0)] if refused else []
    return SubscribeResponse(committed=Committed(tag=tag, errors=errors))


def test_a_partition_that_moves_in_order_breaks_nothing() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    history.heard("a", records(0, 5))
    history.commits("a", 1, PLACE)
    history.heard("a", committed(1))
    history.heard("b", assigned(4, 0))
    # Read again from the last commit, and a late commit that was refused.
    history.heard("b", records(3, 9))
    history.commits("a", 2, PLACE)
    history.heard("a", committed(2, refused=True))
    history.heard("a", assigned(6, 0))
    history.commits("a", 3, PLACE)
    history.heard("a", committed(3))
    assert history.violations == []


def test_p5_a_partition_that_is_given_twice_in_one_epoch_is_seen() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    history.heard("b", assigned(2, 0))
    assert any("is given to b at 2" in each for each in history.violations)


def test_p5_a_partition_that_is_given_while_another_still_has_it_is_seen() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    history.heard("b", assigned(4, 0))
    history.heard("a", assigned(5, 1, owned=(0,)))
    assert any("belongs to a and to b" in each for each in history.violations)


def test_what_is_owned_and_cannot_be_opened_yet_is_no_second_owner() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    partitions = [TopicPartition(topic="t", partition=0)]
    history.heard("a", SubscribeResponse(revoking=Revoking(partitions=partitions)))
    history.heard("b", assigned(4, 0))
    # It comes back to the first one, before anybody could ask where it begins.
    history.heard("a", assigned(6, 1, owned=(0,)))
    history.heard("a", assigned(6, 0, owned=(1,)))
    assert history.violations == []
    history.heard("c", assigned(7, 1, owned=(0,)))
    history.heard("c", records(0, 5))
    assert any("gets records of" in each for each in history.violations)


def test_p5_an_offset_that_goes_to_two_members_in_one_ownership_is_seen() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    history.heard("b", assigned(2, 0))
    history.violations.clear()
    history.heard("a", records(0, 5))
    history.heard("b", records(5, 9))
    assert history.violations == []
    history.heard("b", records(4, 5))
    assert any("4 to 5 of" in each for each in history.violations)


def test_p5_a_commit_of_a_fenced_owner_that_succeeds_is_seen() -> None:
    history = History()
    history.heard("a", assigned(2, 0))
    history.commits("a", 1, PLACE)
    history.heard("b", assigned(4, 0))
    # It was sent before, and may have been made before.
    history.heard("a", committed(1))
    assert history.violations == []
    history.commits("a", 2, PLACE)
    history.heard("a", committed(2))
    assert any("belongs to somebody else" in each for each in history.violations)


async def history_of(members: list[Member], *, commits: bool) -> History:
    """What the members heard, and a commit of each at the end."""
    history = History()
    for member in members:
        for event in member.client.answers:
            history.heard(member.id, event)
    for tag, member in enumerate(members if commits else []):
        seen = len(member.client.answers)
        history.commits(member.id, tag, PLACE)
        member.client.commit(tag, (0, 1))
        await member.client.hears(f"committed {tag}")
        for event in member.client.answers[seen:]:
            history.heard(member.id, event)
    return history


async def test_p5_a_coordinator_with_two_owners_is_caught_by_what_the_members_hear() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        first = await it.join(0)
        await first.client.hears("0: 0-3")
        second = await it.join()
        # Planted: the partition stays with the first, and both have it since the same epoch.
        it.coordinator.give(second.id, 0)
        await second.client.hears("0: 0-3")
        history = await history_of([first, second], commits=False)
        assert any("is given to" in each for each in history.violations)
        assert any("0 to 3 of" in each for each in history.violations)


async def test_p5_a_coordinator_that_takes_commits_of_fenced_owners_is_caught() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        first = await it.join(0)
        await first.client.hears("0: 0-3")
        second = await it.join()
        it.coordinator.members[second.id].version = 8
        it.coordinator.give(second.id, 0)
        await second.client.hears("0: 0-3")
        history = await history_of([second, first], commits=True)
        assert [each for each in history.violations if "somebody else" in each]
