"""What an administrator asks of a group."""

from __future__ import annotations

from rakit.api.v1 import group_service_pb2 as wire
from rakit.client import Client

from .fake_groups import FakeGroups


async def test_a_shift_of_many_partitions_is_asked_for_in_portions(groups: FakeGroups) -> None:
    groups.partition_count = 2_500
    async with Client(groups.address) as client:
        changes = await client.admin.reset_offsets("g", "t", shift=-3)
    seen, *moved = groups.resets
    assert (seen.dry_run, [len(each.targets) for each in moved]) == (True, [1_024, 1_024, 452])
    assert not any(each.dry_run for each in moved)
    assert [each.partition for each in changes] == list(range(2_500))
    assert {target.offset for each in moved for target in each.targets} == {7}


async def test_offsets_of_many_partitions_are_set_in_portions(groups: FakeGroups) -> None:
    offsets = {("t", at): at + 1 for at in range(2_049)}
    async with Client(groups.address) as client:
        await client.admin.commit_offsets("g", offsets)
        await client.admin.commit_offsets("g", {})
    assert [len(each.offsets) for each in groups.commits] == [1_024, 1_024, 1]
    assert {each.group for each in groups.commits} == {"g"}
    asked = [one for each in groups.commits for one in each.offsets]
    assert {(one.topic, one.partition): one.offset for one in asked} == offsets


async def test_a_group_on_several_pages_is_one(groups: FakeGroups) -> None:
    def part(number: int) -> wire.TopicPartition:
        return wire.TopicPartition(topic="t", partition=number)

    def row(number: int) -> wire.GroupPartition:
        return wire.GroupPartition(topic="t", partition=number, latest=5, lag_records=5)

    described = wire.GroupMember(
        member_id="m", client_id="me", gateway_node_id=2, owned=[part(0)], target=[part(0)]
    )
    rest = wire.GroupMember(member_id="m", owned=[part(1)], target=[part(1), part(2)])
    other = wire.GroupMember(member_id="n", owned=[part(2)])
    stable = wire.GROUP_STATE_STABLE
    groups.pages = [
        wire.Group(name="g", state=stable, epoch=3, members=[described], partitions=[row(0)]),
        wire.Group(name="g", state=stable, epoch=3, members=[rest, other], partitions=[row(1)]),
        wire.Group(name="g", state=stable, epoch=4, partitions=[row(2)]),
    ]
    async with Client(groups.address) as client:
        group = await client.admin.get_group("g")
    assert groups.page_tokens == ["", "page 1", "page 2"]
    assert (group.name, group.state, group.epoch) == ("g", "STABLE", 4)
    assert [each.partition for each in group.partitions] == [0, 1, 2]
    assert group.lag_records == 15
    mine, theirs = group.members
    assert (mine.client_id, mine.gateway_node_id) == ("me", 2)
    assert mine.owned == (("t", 0), ("t", 1))
    assert mine.target == (("t", 0), ("t", 1), ("t", 2))
    assert theirs.owned == (("t", 2),)
