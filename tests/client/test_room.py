"""Room and credit: limits hold to the byte, nobody waits for what is lent, and nobody passes."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest

from rakit.client import Client, ClosedError, ProducerConfig
from rakit.client.producing.batch import Delivery
from rakit.client.producing.intake import RECORD_OVERHEAD_BYTES
from rakit.client.producing.lane import GATHER_BYTES, Lane
from rakit.client.producing.producer import Producer
from rakit.client.producing.room import YIELD_EVERY_BYTES, Room

from .fake_cluster import FakeCluster, RefusalError

CONFIG = ProducerConfig(delivery_timeout_ms=20_000)
SOON_S = 8.0


def spend(room: Room, size_bytes: int) -> bool:
    """What `send()` does for a record that stays within the credit."""
    if size_bytes >= room.credit_bytes:
        return False
    room.credit_bytes -= size_bytes
    room.count += 1
    return True


def lent(room: Room) -> int:
    """What `send()` may use from here on."""
    room.lend()
    return room.credit_bytes


def test_what_is_lent_is_nobody_elses_until_it_is_wanted() -> None:
    room = Room(bytes_max=1_000, count_max=100)
    assert room.take(100, 1)
    room.lend()
    assert spend(room, 300)
    assert room.used_bytes == 400
    assert not room.take(601, 1)
    assert not room.credit_bytes, "somebody is about to wait"
    assert room.take(600, 1)
    assert room.used_bytes == 1_000


def test_a_credit_in_bytes_lends_no_more_records_than_there_may_be() -> None:
    room = Room(bytes_max=1 << 30, count_max=10)
    assert room.take(1_000, 3)
    room.lend()
    while spend(room, RECORD_OVERHEAD_BYTES):
        assert room.count <= 10
    assert room.count >= 9


def test_others_run_each_time_that_so_much_more_is_unacknowledged() -> None:
    room = Room(bytes_max=1 << 30, count_max=1 << 30)
    sent_bytes, runs = 0, [0]
    for number in range(20_000):
        if not spend(room, 100):
            assert room.take(100, 1)
            if room.lend():
                runs.append(sent_bytes)
        sent_bytes += 100
        if number % 7 == 0:
            # What is acknowledged meanwhile neither hastens nor delays it.
            room.give_back(100, 1)
    distances = [later - run for run, later in pairwise(runs)]
    assert len(distances) > 40
    assert max(distances) <= YIELD_EVERY_BYTES + 100
    assert min(distances) >= YIELD_EVERY_BYTES - 100


@pytest.mark.parametrize("seed", range(20))
def test_a_record_is_taken_exactly_if_it_fits(seed: int) -> None:
    rng = random.Random(seed)
    bytes_max, count_max = rng.randrange(500, 100_000), rng.randrange(1, 200)
    room = Room(bytes_max, count_max)
    held: list[tuple[int, int]] = []
    refusals = spent = 0
    for _ in range(5_000):
        size_bytes = RECORD_OVERHEAD_BYTES + rng.choice([0, 0, 50, 400])
        count = rng.choice([1, 1, 1, 2])
        used_bytes = sum(size for size, _ in held)
        used_count = sum(each for _, each in held)
        fits = used_bytes + size_bytes * count <= bytes_max and used_count + count <= count_max
        if count == 1 and spend(room, size_bytes):
            assert fits
            spent += 1
            held.append((size_bytes, 1))
        elif room.take(size_bytes * count, count):
            assert fits or not held
            held.append((size_bytes * count, count))
            room.lend()
        else:
            assert not fits
            refusals += 1
            for _ in range(rng.randrange(len(held)) + 1):
                room.give_back(*held.pop(rng.randrange(len(held))))
        assert room.used_bytes == sum(size for size, _ in held)
        assert room.count == sum(each for _, each in held)
    assert refusals
    assert spent


async def test_nothing_is_lent_while_somebody_waits_or_has_not_run_since() -> None:
    room = Room(bytes_max=1_000, count_max=100)
    assert room.take(900, 1)
    assert not room.take(500, 1)
    waiting = asyncio.create_task(room.wait(500, 1))
    await asyncio.sleep(0)
    assert lent(room) == 0
    assert not room.take(10, 1)
    room.give_back(900, 1)
    assert lent(room) == 0, "it was served and has not run"
    await waiting
    assert lent(room) == 500


async def test_one_that_gives_up_lets_those_behind_it_have_the_room() -> None:
    room = Room(bytes_max=1_000, count_max=100)
    assert room.take(900, 1)
    large = asyncio.create_task(room.wait(500, 1))
    small = asyncio.create_task(room.wait(50, 1))
    await asyncio.sleep(0)
    large.cancel()
    async with asyncio.timeout(SOON_S):
        await small
    assert large.cancelled()
    assert room.used_bytes == 950


async def test_all_who_wait_for_room_hear_of_the_end(fake: FakeCluster, client: Client) -> None:
    fake.may_answer.clear()
    config = replace(CONFIG, batch_bytes_max=1_000, unacknowledged_bytes_max=1_000)
    async with client.producer(config) as producer:
        await producer.send("t", bytes(900), partition=0)
        waiting = [
            asyncio.create_task(producer.send("t", bytes(900), partition=0)) for _ in range(20)
        ]
        await fake.until_seen()
        await producer.abort()
        async with asyncio.timeout(SOON_S):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ClosedError}
    assert producer._room.used_bytes == producer._room.count == 0


async def test_a_small_record_does_not_pass_a_large_one_that_waits(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    config = replace(CONFIG, batch_bytes_max=1_000, unacknowledged_bytes_max=1_000)
    async with client.producer(config) as producer:
        await producer.send("t", b"0" * 400, partition=0)
        large = asyncio.create_task(producer.send("t", b"1" * 700, partition=0))
        await asyncio.sleep(0)
        small = asyncio.create_task(producer.send("t", b"2", partition=0))
        await fake.until_seen()
        assert not large.done()
        assert not small.done()
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(large, small)
    assert [value[:1] for value in fake.topics["t"][0].values()] == [b"0", b"1", b"2"]


async def test_one_that_was_served_first_does_not_pass_the_next_with_its_second_record(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    config = replace(CONFIG, batch_bytes_max=1_000, unacknowledged_bytes_max=1_000)

    async def two(producer: Producer) -> None:
        await producer.send("t", b"1" * 500, partition=0)
        await producer.send("t", b"3", partition=0)

    async with client.producer(config) as producer:
        await producer.send("t", b"0" * 900, partition=0)
        first = asyncio.create_task(two(producer))
        await asyncio.sleep(0)
        second = asyncio.create_task(producer.send("t", b"2", partition=0))
        await fake.until_seen()
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(first, second)
    assert [value[:1] for value in fake.topics["t"][0].values()] == [b"0", b"1", b"2", b"3"]


async def test_the_limits_hold_when_a_producer_is_opened_again(
    fake: FakeCluster, client: Client
) -> None:
    config = replace(CONFIG, batch_bytes_max=1_000, unacknowledged_bytes_max=1_000)
    producer = client.producer(config)
    async with producer:
        await producer.send("t", b"", partition=0)
    fake.may_answer.clear()
    async with producer:
        await producer.send("t", bytes(600), partition=0)
        given_up = asyncio.create_task(producer.send("t", bytes(600), partition=0))
        waiting = asyncio.create_task(producer.send("t", bytes(600), partition=0))
        await asyncio.sleep(0)
        # Who leaves the queue has those looked at who stand behind.
        given_up.cancel()
        await asyncio.wait([given_up])
        assert unacknowledged(producer)[1] == 1
        assert producer._room.used_bytes <= 1_000
        await fake.until_seen()
        assert not waiting.done()
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            await waiting


async def test_room_is_not_kept_by_partitions_that_do_not_use_it(
    fake: FakeCluster, client: Client
) -> None:
    count = 300
    fake.create("wide", [1] * count)
    fake.may_answer.clear()
    size_bytes = 100 + RECORD_OVERHEAD_BYTES
    config = replace(
        CONFIG,
        batch_bytes_max=size_bytes * count,
        unacknowledged_bytes_max=size_bytes * count,
        unacknowledged_count_max=count,
    )
    async with client.producer(config) as producer:
        async with asyncio.timeout(SOON_S):
            sent = [await producer.send("wide", bytes(100), partition=n) for n in range(count)]
        one_more = asyncio.create_task(producer.send("wide", b"", partition=0))
        await fake.until_seen()
        assert not one_more.done()
        fake.may_answer.set()
        await asyncio.gather(*sent, await one_more)


def unacknowledged(producer: Producer) -> tuple[int, int]:
    """Bytes and records in the batches that have not ended."""
    batches = [
        batch
        for lane in producer._engine.lanes
        for batch in [*lane.sealed, lane.open]
        if batch is not None
    ]
    sizes = [batch.size_bytes for batch in batches]
    return sum(sizes), sum(batch.record_count or len(batch.values) for batch in batches)


@pytest.mark.parametrize("seed", range(6))
async def test_limits_and_order_hold_among_many_tasks_and_partitions(
    fake: FakeCluster, client: Client, seed: int
) -> None:
    rng = random.Random(seed)
    partitions = rng.choice([1, 4, 100])
    fake.create("many", [1 + n % 3 for n in range(partitions)])
    bytes_max, count_max = rng.choice([(20_000, 1_000), (1 << 20, 50), (40_000, 100)])
    config = replace(
        CONFIG,
        batch_bytes_max=rng.choice([500, 10_000]),
        batch_count_max=rng.choice([3, 1_000]),
        unacknowledged_bytes_max=bytes_max,
        unacknowledged_count_max=count_max,
        linger_ms=rng.choice([0, 1]),
    )
    called: dict[int, list[bytes]] = defaultdict(list)
    most_bytes = most_count = call_count = 0

    async def send_some(producer: Producer) -> None:
        nonlocal most_bytes, most_count, call_count
        for _ in range(100):
            partition = rng.randrange(partitions)
            value = b"%d:" % call_count + bytes(rng.choice([0, 0, 100, 450]))
            call_count += 1
            called[partition].append(value)
            await producer.send("many", value, partition=partition)
            used = unacknowledged(producer)
            most_bytes, most_count = max(most_bytes, used[0]), max(most_count, used[1])

    async with client.producer(config) as producer:
        await (await producer.send("many", b"", partition=0))
        await asyncio.gather(*(send_some(producer) for _ in range(20)))
        await producer.flush()
        assert unacknowledged(producer) == (0, 0)
        assert producer._room.used_bytes == producer._room.count == 0
    assert most_bytes <= bytes_max
    assert most_count <= count_max
    assert most_bytes > bytes_max - 500 or most_count == count_max, "the limits were reached"
    stored = {n: one.values() for n, one in enumerate(fake.topics["many"])}
    stored[0].pop(0)
    assert {n: values for n, values in stored.items() if values} == called


async def test_small_records_join_what_is_in_flight_when_together_they_are_worth_it(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer:
        await producer.send("t", b"", partition=0)
        await fake.until_seen()
        lane = producer._engine.lanes[0]
        record_bytes = 100 + RECORD_OVERHEAD_BYTES
        for _ in range(GATHER_BYTES // record_bytes):
            await producer.send("t", bytes(100), partition=0)
        await asyncio.sleep(0)
        assert len(lane.in_flight) == 1
        await producer.send("t", bytes(100), partition=0)
        await asyncio.sleep(0)
        assert len(lane.in_flight) == 2
        fake.may_answer.set()


async def test_small_records_do_not_linger_when_together_they_are_worth_it(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer(replace(CONFIG, linger_ms=15_000)) as producer:
        record_bytes = 100 + RECORD_OVERHEAD_BYTES
        for _ in range(GATHER_BYTES // record_bytes):
            await producer.send("t", bytes(100), partition=0)
        assert not producer._engine.lanes[0].in_flight
        delivery = await producer.send("t", bytes(100), partition=0)
        async with asyncio.timeout(SOON_S):
            await delivery
        assert len(fake.seen) == 1


async def test_a_full_batch_does_not_linger(client: Client) -> None:
    config = replace(CONFIG, linger_ms=15_000, batch_bytes_max=10_000)
    async with client.producer(config) as producer:
        full = await producer.send("t", bytes(9_000), partition=0)
        assert not producer._engine.lanes[0].in_flight
        await producer.send("t", bytes(9_000), partition=0)
        async with asyncio.timeout(SOON_S):
            await full


async def test_a_small_full_batch_joins_what_is_in_flight(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(replace(CONFIG, batch_bytes_max=10_000)) as producer:
        await producer.send("t", b"", partition=0)
        await fake.until_seen()
        lane = producer._engine.lanes[0]
        await producer.send("t", bytes(9_000), partition=0)
        await asyncio.sleep(0)
        assert len(lane.in_flight) == 1
        await producer.send("t", bytes(9_000), partition=0)
        await asyncio.sleep(0)
        assert len(lane.in_flight) == 2
        fake.may_answer.set()


async def test_a_record_that_reaches_no_limit_loses_nothing(
    fake: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...], int]] = [
        (b"v", b"k", (("a", b"1"), ("a", b"2")), 5_000),
        (None, b"k", (), 4_000),
        (b"", None, (("b", b""),), 0),
        (None, None, (), 3_000),
        (b"w", b"", (("c", b"3"),), 2_000),
    ]
    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer:
        await producer.send("t", b"on its way", partition=0)
        await fake.until_seen()
        await producer.send("t", b"opens a batch", partition=0)
        with monkeypatch.context() as patch:
            # The long way is closed.
            patch.delattr(Lane, "append")
            sent = [
                await producer.send(
                    "t", value, key, headers=headers, timestamp_ms=time_ms, partition=0
                )
                for value, key, headers, time_ms in given
            ]
            with pytest.raises(TypeError):
                await producer.send("t", bytearray(b"v"), partition=0)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        fake.may_answer.set()
        assert [(await delivery).offset for delivery in sent] == [2, 3, 4, 5, 6]
    async with client.reader("t", [0]) as reader:
        records = [record async for record in reader][2:]
    assert [(one.value, one.key, one.headers) for one in records] == [row[:3] for row in given]
    times_ms = [one.timestamp_ms for one in records]
    assert times_ms == [time_ms or records[2].append_time_ms for _, _, _, time_ms in given]


async def test_only_records_that_reach_a_limit_go_the_long_way(
    fake: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ways = 0
    append = Lane.append

    def counted(lane: Lane, value: bytes | None, key: bytes | None, size_bytes: int) -> Delivery:
        nonlocal long_ways
        long_ways += 1
        return append(lane, value, key, size_bytes)

    monkeypatch.setattr(Lane, "append", counted)
    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer:
        for _ in range(3_000):
            await producer.send("t", bytes(100), b"key")
        fake.may_answer.set()
    # 10 credits, and what is in flight grows twice.
    assert 0 < long_ways < 30


async def test_what_comes_during_a_pause_goes_out_after_it(
    fake: FakeCluster, client: Client
) -> None:
    # From the fourth refusal on there are pauses.
    refusals = iter([RefusalError("NO_LEADER")] * 6)
    fake.faults = lambda _node, _request: next(refusals, None)
    async with client.producer(CONFIG) as producer:
        sent = [await producer.send("t", b"0", partition=0)]
        await fake.until_seen(5)
        sent += [await producer.send("t", b"%d" % n, partition=0) for n in range(1, 50)]
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(*sent)
    assert fake.topics["t"][0].values() == [b"%d" % n for n in range(50)]
