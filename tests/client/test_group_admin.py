"""What an administrator asks of a group."""

from __future__ import annotations

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
