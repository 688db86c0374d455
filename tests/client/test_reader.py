"""The reader: every record once and in order, whatever happens to streams."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from rakit.api.v1.log_service_pb2 import PartitionData
from rakit.api.v1.record_pb2 import Records
from rakit.client import (
    Client,
    ClientConfig,
    NotFoundError,
    OffsetOutOfRangeError,
    Offsets,
    RakitError,
    ReaderConfig,
    UnavailableError,
)
from rakit.client.errors import make_error
from rakit.client.reading.progress import Progress, begin, time_of
from rakit.client.reading.reader import _Buffer
from rakit.client.records import fill_columns

from .fake_cluster import FakeCluster, Stored


def fill(fake: FakeCluster, partition: int, *counts: int) -> list[bytes]:
    """Stores batches of so many records; returns all values of the partition."""
    one = fake.topics["t"][partition]
    for count in counts:
        columns = Records()
        first = one.end_offset
        fill_columns(columns, [b"%d/%d" % (partition, first + at) for at in range(count)])
        one.batches.append(Stored(first, count, columns.SerializeToString()))
        one.end_offset += count
    return one.values()


async def test_everything_is_read_once_in_the_order_of_its_partition(
    fake: FakeCluster, client: Client
) -> None:
    expected = [fill(fake, partition, 3, 1, 5) for partition in range(3)]
    async with client.reader("t") as reader:
        records = [record async for record in reader]
        assert reader.positions() == {0: 9, 1: 9, 2: 9}
    for partition in range(3):
        mine = [record for record in records if record.partition == partition]
        assert [record.value for record in mine] == expected[partition]
        assert [record.offset for record in mine] == list(range(9))


async def test_each_partition_is_read_from_its_leader(fake: FakeCluster, client: Client) -> None:
    for partition in range(3):
        fill(fake, partition, 1)
    async with client.reader("t") as reader:
        assert len([record async for record in reader]) == 3
    assert [node.read_partitions for node in fake.nodes.values()] == [[0], [1], [2]]


async def test_reading_goes_on_behind_a_broken_stream(fake: FakeCluster, client: Client) -> None:
    expected = fill(fake, 0, *[2] * 20)
    fake.nodes[1].break_reads_after = 7
    async with client.reader("t", [0]) as reader:
        assert [record.value async for record in reader] == expected
    assert fake.nodes[1].break_reads_after == 0


@pytest.mark.parametrize("start", [0, 1, 4, 7, 8])
async def test_an_offset_inside_a_batch_is_met_exactly(
    fake: FakeCluster, client: Client, start: int
) -> None:
    expected = fill(fake, 0, 3, 5)
    async with client.reader("t", [0], from_=start) as reader:
        assert [record.value async for record in reader] == expected[start:]


async def test_every_partition_may_begin_at_its_own_offset(
    fake: FakeCluster, client: Client
) -> None:
    for partition in range(3):
        fill(fake, partition, 4)
    async with client.reader("t", from_={0: 3, 1: 1}) as reader:
        offsets = [(record.partition, record.offset) async for record in reader]
    assert sorted(offsets) == [(0, 3), (1, 1), (1, 2), (1, 3), *((2, at) for at in range(4))]


async def test_the_end_is_where_the_log_ended_when_reading_began(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, 4)
    async with client.reader("t", [0]) as reader:
        fill(fake, 0, 4)
        assert [record.value async for record in reader] == expected


async def test_a_slow_consumer_slows_the_stream_and_loses_nothing(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, *[1] * 50)
    config = ReaderConfig(buffer_bytes_max=1)
    async with client.reader("t", [0], config=config) as reader:
        seen: list[bytes | None] = []
        async for record in reader:
            seen.append(record.value)
            await asyncio.sleep(0)
    assert seen == expected


async def test_a_reader_that_resumes_at_the_positions_never_skips_a_record(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, 3, 5, 2)
    for count in range(1, 10):
        async with client.reader("t", [0]) as reader:
            assert reader.positions() == {0: 0}
            seen: list[bytes | None] = []
            async for record in reader:
                seen.append(record.value)
                assert reader.positions() == {0: len(seen)}
                if len(seen) == count:
                    break
        async with client.reader("t", from_=reader.positions()) as second:
            seen += [record.value async for record in second if record.partition == 0]
        assert seen == expected


async def test_a_batch_counts_as_read_when_the_next_one_is_asked_for(
    fake: FakeCluster, client: Client
) -> None:
    fill(fake, 0, 3, 5, 2)
    async with client.reader("t", [0]) as reader:
        stood = [(batch.base_offset, reader.positions()[0]) async for batch in reader.batches()]
        assert stood == [(0, 0), (3, 3), (8, 8)]
        assert reader.positions() == {0: 10}


async def test_an_iteration_goes_on_where_the_one_before_was_left(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, 3, 5, 2)
    async with client.reader("t", [0]) as reader:
        seen: list[bytes | None] = []
        while len(seen) < len(expected):
            async for record in reader:
                seen.append(record.value)
                if len(seen) % 2:
                    break
        assert seen == expected
        assert [record async for record in reader] == []
    async with client.reader("t", [0]) as reader:
        for _ in range(2):
            async for batch in reader.batches():
                assert batch.base_offset == 0
                break


async def test_the_buffer_makes_whoever_fills_it_wait() -> None:
    progress = Progress("t", 0, next_offset=0, end_offset=None)
    first, second, third = progress.take(data((0, 1), (1, 1), (2, 1)))
    buffer = _Buffer(2 * third.size_bytes)
    await buffer.put(first)
    await buffer.put(second)
    filling = asyncio.create_task(buffer.put(third))
    await asyncio.sleep(0.01)
    assert not filling.done()
    assert await buffer.get() is first
    await filling
    assert [await buffer.get(), await buffer.get()] == [second, third]
    # One that is larger than all room is taken when nothing else is there.
    small = _Buffer(1)
    await small.put(first)
    filling = asyncio.create_task(small.put(second))
    await asyncio.sleep(0.01)
    assert not filling.done()
    assert await small.get() is first
    await filling


async def test_an_unknown_topic_is_said_at_once(client: Client) -> None:
    with pytest.raises(RakitError):
        async with client.reader("nowhere"):
            pytest.fail("there is nothing to read")
    with pytest.raises(NotFoundError):
        await client.admin.get_topic("nowhere")


def data(*stored: tuple[int, int]) -> PartitionData:
    message = PartitionData(partition=0)
    for base, count in stored:
        batch = message.batches.add(base_offset=base, record_count=count)
        fill_columns(batch.records, [b"%d" % (base + at) for at in range(count)])
    return message


def test_progress_takes_what_is_new_and_nothing_else() -> None:
    progress = Progress("t", 0, next_offset=2, end_offset=7)
    taken = progress.take(data((0, 2), (0, 4), (4, 2), (4, 2), (6, 5)))
    assert [value for batch in taken for value in batch.values] == [b"2", b"3", b"4", b"5", b"6"]
    assert progress.is_at_end
    assert progress.take(data((6, 5), (11, 1))) == []


def test_progress_never_passes_over_a_hole() -> None:
    progress = Progress("t", 0, next_offset=2, end_offset=None)
    with pytest.raises(RakitError, match="t/0: offset 2 was skipped"):
        progress.take(data((3, 1)))


def test_a_start_becomes_an_offset_in_each_partition() -> None:
    ranges = [Offsets(0, 5, 9, 7, 0), Offsets(1, 0, 0, 0, 0)]

    def firsts(start: object) -> list[int]:
        found = begin("t", start, ranges, follow=True)  # type: ignore[arg-type]
        return [found[0].next_offset, found[1].next_offset]

    assert firsts("earliest") == [5, 0]
    assert firsts("latest") == [9, 0]
    assert firsts(6) == [6, 0]
    assert firsts(datetime(2026, 1, 1, tzinfo=UTC)) == [7, 0]
    assert firsts({0: 6}) == [6, 0]
    assert time_of(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1000
    with pytest.raises(ValueError, match="time zone"):
        time_of(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


RANGES = [Offsets(0, 5, 9, None, 0), Offsets(1, 0, 3, None, 0)]


@pytest.mark.parametrize(
    ("start", "follow", "expected"),
    [
        (5, True, [5, 3]),
        (9, True, [9, 3]),
        (2, True, [5, 2]),
        ({0: 9, 1: 3}, True, [9, 3]),
        ({0: 9, 1: 3}, False, [9, 3]),
        # Neither partition has it.
        (4, True, "offset 4 lies outside partition 0 of 't', whose log begins at 5 and ends bef"),
        (10, True, "offset 10 lies outside partition 0"),
        # To its end, each partition has to have it.
        (5, False, "offset 5 lies outside partition 1 of 't', .* begins at 0 and ends before 3"),
        (2, False, "offset 2 lies outside partition 0"),
        # A resumption is never moved.
        ({0: 9, 1: 4}, True, "offset 4 lies outside partition 1"),
        ({0: 4, 1: 3}, True, "offset 4 lies outside partition 0"),
    ],
)
def test_an_offset_outside_the_log_is_an_error_that_names_the_partition(
    start: int | dict[int, int], *, follow: bool, expected: list[int] | str
) -> None:
    if isinstance(expected, list):
        found = begin("t", start, RANGES, follow=follow)
        assert [each.next_offset for each in found.values()] == expected
        return
    with pytest.raises(OffsetOutOfRangeError, match=expected) as caught:
        begin("t", start, RANGES, follow=follow)
    assert not caught.value.maybe_applied
    assert caught.value.number("latest") in {9, 3}


async def test_reading_goes_on_at_another_node_when_the_leader_is_gone(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, 2, 2)
    # It stays the leader, as far as anybody knows.
    await fake.nodes[1].stop()
    async with asyncio.timeout(8), client.reader("t", [0]) as reader:
        assert [record.value async for record in reader] == expected


async def test_nothing_is_lost_when_the_leader_changes_within_an_answer_of_many_batches(
    fake: FakeCluster, client: Client
) -> None:
    expected = fill(fake, 0, *[2] * 5)
    for node in fake.nodes.values():
        node.answers_together = True
    moved = make_error(
        "NOT_LEADER",
        "another node leads",
        {"leader_address": fake.nodes[2].address, "leader_term": "99", "leader_node_id": "2"},
    )
    # So that the stream stands still between two batches of the answer.
    config = ReaderConfig(buffer_bytes_max=1)
    async with client.reader("t", [0], config=config) as reader:
        seen: list[bytes | None] = []
        async for record in reader:
            seen.append(record.value)
            if len(seen) == 1:
                assert reader._metadata.learn_leader(moved, "t", 0)
    assert seen == expected
    assert fake.nodes[1].read_partitions == [0]


async def test_between_two_attempts_there_is_a_pause(fake: FakeCluster) -> None:
    expected = fill(fake, 0, 2)
    for node in fake.nodes.values():
        node.refused_reads = 1
    config = ClientConfig(tuple(fake.bootstrap.split(",")), backoff_ms=400, backoff_ms_max=400)
    async with Client(config) as client, client.reader("t", [0]) as reader:
        began_s = asyncio.get_running_loop().time()
        assert [record.value async for record in reader] == expected
    # Three nodes failed once each; a pause is at least half as long as it is set to.
    assert asyncio.get_running_loop().time() - began_s >= 3 * 0.2


async def test_a_reader_with_a_limit_to_its_patience_ends_with_the_last_error(
    fake: FakeCluster, client: Client
) -> None:
    fill(fake, 0, 2)
    for node in fake.nodes.values():
        node.refused_reads = 1 << 60
    config = ReaderConfig(retry_timeout_ms=300)
    async with client.reader("t", [0], config=config) as reader, asyncio.timeout(8):
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError, match="the node is gone"):
            _ = [record async for record in reader]
        assert asyncio.get_running_loop().time() - began_s >= 0.3


async def test_patience_begins_anew_with_each_sign_of_life(fake: FakeCluster) -> None:
    expected = fill(fake, 0, *[1] * 20)
    for node in fake.nodes.values():
        node.breaks_every_read = True
    bootstrap = tuple(fake.bootstrap.split(","))
    patience = ReaderConfig(retry_timeout_ms=500)
    # Twenty broken streams with a pause of 0.1 s or more behind each.
    async with (
        Client(ClientConfig(bootstrap, backoff_ms=100, backoff_ms_max=200)) as client,
        client.reader("t", [0], config=patience) as reader,
    ):
        assert [record.value async for record in reader] == expected


async def test_a_batch_is_charged_with_the_size_in_which_it_travelled(
    fake: FakeCluster, client: Client
) -> None:
    fill(fake, 0, 1_000, 10)
    async with client.reader("t", [0]) as reader, aclosing(reader.batches()) as batches:
        read = [batch async for batch in batches]
    assert [len(batch) for batch in read] == [1_000, 10]
    for batch in read:
        # The answer around it names the topic and the partition.
        stored_bytes = batch._stored.ByteSize()
        assert stored_bytes < batch.size_bytes < stored_bytes + 64
