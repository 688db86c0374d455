"""What every disk must do, whoever implements ``KeyValue``: the store, the simulator's, a test's.

A suite for a disk is a subclass with a fixture ``disk``:

    class TestSimDisk(KeyValueConformance):
        @pytest.fixture
        def disk(self) -> Iterator[WritableDisk]:
            yield ...

The pure half of the host is tested on disks of memory and runs on RocksDB, so the two must agree on
every corner that it relies on: half-open ranges, order within a batch, reads of unsynced writes.
"""

from __future__ import annotations

import random
from typing import Protocol

from rakit.multiraft import keys
from rakit.multiraft.kv import KeyValue, WriteBatch

#: Whose entries they are.
GROUP = 1


class WritableDisk(KeyValue, Protocol):
    """A disk that takes batches; what ``write`` returns is its own affair."""

    def write(self, batch: WriteBatch) -> object: ...


def key(number: int) -> bytes:
    """The key of a log entry: byte order is numeric order."""
    return keys.entry(GROUP, number)


def put(disk: WritableDisk, *numbers: int, value: bytes = b"v") -> None:
    batch = WriteBatch()
    for number in numbers:
        batch.put(key(number), value)
    disk.write(batch)


def numbers_in(disk: WritableDisk, lo: int, hi: int) -> list[int]:
    return [keys.number_of(k) for k, _ in disk.scan(key(lo), key(hi))]


class KeyValueConformance:
    def test_a_written_value_is_read_at_once(self, disk: WritableDisk) -> None:
        put(disk, 1, value=b"one")
        assert disk.get(key(1)) == b"one"

    def test_a_key_that_was_never_written_is_none(self, disk: WritableDisk) -> None:
        assert disk.get(key(1)) is None

    def test_an_empty_value_is_not_a_missing_one(self, disk: WritableDisk) -> None:
        put(disk, 1, value=b"")
        assert disk.get(key(1)) == b""
        assert list(disk.scan(key(0), key(9))) == [(key(1), b"")]

    def test_the_newest_value_wins(self, disk: WritableDisk) -> None:
        put(disk, 1, value=b"old")
        put(disk, 1, value=b"new")
        assert disk.get(key(1)) == b"new"
        assert list(disk.scan(key(0), key(9))) == [(key(1), b"new")]

    def test_within_a_batch_the_later_operation_wins(self, disk: WritableDisk) -> None:
        batch = WriteBatch()
        batch.put(key(1), b"first")
        batch.put(key(1), b"second")
        batch.put(key(2), b"gone")
        batch.delete(key(2))
        batch.delete(key(3))
        batch.put(key(3), b"back")
        disk.write(batch)
        assert list(disk.scan(key(0), key(9))) == [(key(1), b"second"), (key(3), b"back")]

    def test_deleting_a_range_and_writing_into_it_in_one_batch(self, disk: WritableDisk) -> None:
        """How a follower replaces a conflicting tail (S4, Raft 5.3)."""
        put(disk, 1, 2, 3, 4, 5)
        batch = WriteBatch()
        batch.delete_range(key(3), key(6))
        batch.put(key(3), b"new")
        disk.write(batch)
        assert list(disk.scan(key(2), key(9))) == [(key(2), b"v"), (key(3), b"new")]

    def test_a_deleted_range_is_half_open(self, disk: WritableDisk) -> None:
        put(disk, 1, 2, 3, 4)
        batch = WriteBatch()
        batch.delete_range(key(2), key(4))
        disk.write(batch)
        assert numbers_in(disk, 0, 9) == [1, 4]

    def test_an_empty_range_deletes_nothing(self, disk: WritableDisk) -> None:
        put(disk, 2)
        batch = WriteBatch()
        batch.delete_range(key(2), key(2))
        disk.write(batch)
        assert numbers_in(disk, 0, 9) == [2]

    def test_a_deleted_range_stays_deleted_for_scans_over_it(self, disk: WritableDisk) -> None:
        put(disk, *range(20))
        batch = WriteBatch()
        batch.delete_range(key(5), key(15))
        disk.write(batch)
        assert numbers_in(disk, 3, 17) == [3, 4, 15, 16]
        assert disk.last_below(key(0), key(15)) == (key(4), b"v")

    def test_a_batch_can_be_written_twice(self, disk: WritableDisk) -> None:
        """After a stall the identical batch is written again (S12)."""
        batch = WriteBatch()
        batch.put(key(1), b"one")
        disk.write(batch)
        disk.write(batch)
        assert list(disk.scan(key(0), key(9))) == [(key(1), b"one")]

    def test_a_scan_is_ascending_and_half_open(self, disk: WritableDisk) -> None:
        put(disk, 7, 3, 5, 1)
        assert numbers_in(disk, 0, 100) == [1, 3, 5, 7]
        assert numbers_in(disk, 3, 7) == [3, 5]
        assert numbers_in(disk, 4, 8) == [5, 7]
        assert numbers_in(disk, 8, 9) == []

    def test_a_scan_of_an_empty_or_upside_down_range_is_empty(self, disk: WritableDisk) -> None:
        put(disk, 1, 2)
        assert numbers_in(disk, 1, 1) == []
        assert numbers_in(disk, 2, 1) == []

    def test_a_scan_can_be_left_half_way(self, disk: WritableDisk) -> None:
        put(disk, *range(50))
        walk = disk.scan(key(0), key(50))
        assert next(walk) == (key(0), b"v")
        del walk
        put(disk, 50)
        assert disk.get(key(50)) == b"v"

    def test_a_scan_gives_every_key_however_much_there_is(self, disk: WritableDisk) -> None:
        """More than any implementation would fetch at once."""
        for start in range(0, 600, 100):
            put(disk, *range(start, start + 100), value=bytes(1000))
        assert numbers_in(disk, 0, 1000) == list(range(600))

    def test_the_last_key_below_a_bound(self, disk: WritableDisk) -> None:
        put(disk, 2, 4)
        assert disk.last_below(key(0), key(9)) == (key(4), b"v")
        assert disk.last_below(key(0), key(4)) == (key(2), b"v"), "the bound itself is outside"
        assert disk.last_below(key(0), key(2)) is None
        assert disk.last_below(key(3), key(4)) is None, "below the range does not count"
        assert disk.last_below(key(2), key(3)) == (key(2), b"v"), "the lower end is inside"

    def test_a_long_random_history_reads_like_a_sorted_dict(self, disk: WritableDisk) -> None:
        rng = random.Random(7)
        model: dict[bytes, bytes] = {}
        for step in range(300):
            batch = WriteBatch()
            for _ in range(rng.randint(1, 6)):
                number, action = rng.randrange(40), rng.random()
                if action < 0.6:
                    batch.put(key(number), b"%d" % step)
                    model[key(number)] = b"%d" % step
                elif action < 0.8:
                    batch.delete(key(number))
                    model.pop(key(number), None)
                else:
                    end = number + rng.randrange(8)
                    batch.delete_range(key(number), key(end))
                    for gone in range(number, end):
                        model.pop(key(gone), None)
            disk.write(batch)
            lo, hi = sorted((rng.randrange(42), rng.randrange(42)))
            expected = sorted(item for item in model.items() if key(lo) <= item[0] < key(hi))
            assert list(disk.scan(key(lo), key(hi))) == expected
            assert disk.last_below(key(lo), key(hi)) == (expected[-1] if expected else None)
            probe = key(rng.randrange(42))
            assert disk.get(probe) == model.get(probe)
