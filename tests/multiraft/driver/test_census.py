"""The census of a store costs by the groups that there are, not by the rows that they have."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.loading import Census, take_census
from tests.multiraft.driver.memory_disk import MemoryDisk


class CountingDisk(MemoryDisk):
    """Counts the walks that were begun and the rows that were taken; one key cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.walks = 0
        self.rows = 0
        self.damaged = b""

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.walks += 1
        for key, value in super().scan(lo, hi):
            if key == self.damaged:
                raise StoreCorruptError("a bad block")
            self.rows += 1
            yield key, value


def disk_with(group_ids: range, entries: int, entry: bytes = b"") -> CountingDisk:
    disk, batch = CountingDisk(), WriteBatch()
    for group_id in group_ids:
        batch.put(keys.birth(group_id), b"")
        batch.put(keys.hard_state(group_id), b"")
        for index in range(1, entries + 1):
            batch.put(keys.entry(group_id, index), entry)
    disk.write(batch)
    return disk


def census(disk: MemoryDisk) -> tuple[Census, int]:
    """Returns it, and how many steps it took."""

    def run() -> Generator[None, None, None]:
        found.append((yield from take_census(disk)))

    found: list[Census] = []
    steps = sum(1 for _ in run())
    return found[0], steps


def test_groups_with_few_rows_are_found_in_one_walk_for_each_kind() -> None:
    disk = disk_with(range(2, 1002), entries=2)
    found, steps = census(disk)
    assert found.whole
    assert found.group_ids == list(range(2, 1002))
    assert disk.walks == 6
    assert disk.rows == 4000
    assert steps > 20, "others have their turn meanwhile"


def test_the_rows_of_a_long_log_are_passed_over() -> None:
    disk = disk_with(range(2, 12), entries=1000)
    found, _ = census(disk)
    assert found.group_ids == list(range(2, 12))
    assert disk.rows < 200


def test_of_a_log_of_large_entries_one_is_read() -> None:
    disk = disk_with(range(2, 12), entries=5, entry=bytes(20_000))
    found, _ = census(disk)
    assert found.whole
    assert found.group_ids == list(range(2, 12))
    assert disk.rows == 3 * 10, "a birth record, a vote record and an entry of each group"


def test_s9_a_row_that_cannot_be_read_within_a_log_hides_no_group() -> None:
    disk = disk_with(range(2, 12), entries=1000)
    disk.damaged = keys.entry(5, 3)
    found, _ = census(disk)
    assert found.whole
    assert found.group_ids == list(range(2, 12))


def test_s9_a_census_that_may_have_missed_a_group_says_so() -> None:
    disk = disk_with(range(2, 12), entries=1)
    disk.damaged = keys.entry(5, 1)
    found, _ = census(disk)
    assert not found.whole
    assert found.group_ids == list(range(2, 12)), "the other kinds of rows tell of it"
