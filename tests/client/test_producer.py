"""The producer against nodes that refuse, move leaders, break streams, hang and forget."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.client import (
    Client,
    ClientConfig,
    ClosedError,
    DeliveryTimeoutError,
    InvalidRequestError,
    NotFoundError,
    Producer,
    ProducerConfig,
    ProducerFencedError,
    RakitError,
    UnavailableError,
    partition_for,
)
from rakit.client.errors import make_error
from rakit.client.producing.batch import Batch, Delivery
from rakit.client.producing.failures import KEPT_COUNT_MAX, Failures

from .fake_cluster import FakeCluster, Fault, RefusalError

CONFIG = ProducerConfig(delivery_timeout_ms=20_000)
Script = Callable[[int, ProduceRequest], Fault | RefusalError | None]


def script(faults: Iterable[Fault | RefusalError | None]) -> Script:
    """The given faults for the first requests, none for those that follow."""
    rest: Iterator[Fault | RefusalError | None] = iter(faults)
    return lambda _node, _request: next(rest, None)


async def send_numbers(producer: Producer, count: int, partition: int | None = 0) -> list[Delivery]:
    """Sends numbers as values, with a pause now and then, so that there are several batches."""
    deliveries: list[Delivery] = []
    for number in range(count):
        deliveries.append(await producer.send("t", b"%d" % number, partition=partition))
        if number % 7 == 0:
            await asyncio.sleep(0.001)
    return deliveries


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_a_receipt_names_the_place_of_its_record(fake: FakeCluster, client: Client) -> None:
    async with client.producer() as producer:
        first, second = [await producer.send("t", b"v", b"k") for _ in range(2)]
        receipt = await first
        partition = partition_for(b"k", 3)
        assert (receipt.topic, receipt.partition) == ("t", partition)
        assert (receipt.offset, receipt.end_offset) == (0, 1)
        assert (await second).offset == 1
        assert await first == receipt
        assert receipt.fsynced
    assert fake.topics["t"][partition].values() == [b"v", b"v"]
    # Straight to the leader, both in one batch.
    assert [(node, request.leader_only) for node, request in fake.seen] == [(partition + 1, True)]


@pytest.mark.parametrize(("size", "count"), [(10, 3), (100, 6000), (2000, 100), (300_000, 1)])
async def test_batches_of_every_size_arrive_as_they_were_also_when_they_are_sent_again(
    fake: FakeCluster, client: Client, size: int, count: int
) -> None:
    """However they are written: as a whole, in steps, or by hand."""
    values = [bytes([at % 251]) * (size - at % 2) for at in range(count)]
    fake.faults = script([None, Fault.BREAK_BEFORE])
    async with client.producer() as producer:
        for _ in range(2):
            await (await producer.send_batch("t", values, partition=0))
    assert fake.topics["t"][0].values() == values * 2


async def test_what_waits_goes_out_before_those_hear_whose_batch_was_acknowledged(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer() as producer:
        first = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        second = await producer.send("t", b"1", partition=0)
        (link,) = producer._engine._links.values()
        left: list[int] = []
        first.add_done_callback(lambda _: left.append(len(link._outgoing)))
        fake.may_answer.set()
        await asyncio.gather(first, second)
        assert left == [0], "the writer had its turn before"


async def test_what_is_sent_while_a_batch_travels_goes_out_together(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer() as producer:
        deliveries = [await producer.send("t", b"0", partition=0)]
        await fake.until_seen()
        deliveries += [await producer.send("t", b"%d" % n, partition=0) for n in range(1, 500)]
        fake.may_answer.set()
        await asyncio.gather(*deliveries)
    assert [len(request.columns.values) for _, request in fake.seen] == [1, 499]


async def test_records_without_a_key_fill_batches_and_come_everywhere(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer() as producer:
        for _ in range(600):
            await producer.send("t", b"x" * 10_000)
    counts = [len(partition.values()) for partition in fake.topics["t"]]
    assert min(counts) >= 100, counts
    assert len(fake.seen) < 100


@pytest.mark.parametrize(
    "faults",
    [
        [RefusalError("NO_LEADER")] * 4,
        [RefusalError("OUTCOME_UNKNOWN", outcome="UNKNOWN"), Fault.UNKNOWN_AFTER],
        [Fault.UNKNOWN_AFTER] * 3,
        [Fault.BREAK_BEFORE],
        [Fault.BREAK_AFTER],
        [None, Fault.BREAK_AFTER, None, Fault.BREAK_BEFORE, RefusalError("THROTTLED")],
    ],
    ids=["no-leader", "unknown", "unknown-stored", "broken", "broken-stored", "mixed"],
)
async def test_s24_retries_store_once_and_in_order(
    fake: FakeCluster, client: Client, faults: list[Fault | RefusalError | None]
) -> None:
    fake.faults = script(faults)
    async with client.producer(CONFIG) as producer:
        deliveries = await send_numbers(producer, 60)
        receipts = await asyncio.gather(*deliveries)
    assert [receipt.offset for receipt in receipts] == list(range(60))
    assert fake.topics["t"][0].values() == numbers(60)


async def test_a_moved_leader_is_followed_by_its_hint(fake: FakeCluster, client: Client) -> None:
    async with client.producer(CONFIG) as producer:
        await (await producer.send("t", b"0", partition=0))
        fake.move("t", 0, to_node=3)
        await (await producer.send("t", b"1", partition=0))
        await (await producer.send("t", b"2", partition=0))
    assert fake.topics["t"][0].values() == numbers(3)
    assert [node for node, _ in fake.seen] == [1, 1, 3, 3]


async def test_a_dead_leader_is_left_for_a_node_that_forwards(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer(CONFIG) as producer:
        await (await producer.send("t", b"0", partition=0))
        await fake.nodes[1].stop()
        delivery = await producer.send("t", b"1", partition=0)
        assert (await delivery).offset == 1
        assert not fake.seen[-1][1].leader_only
        fake.move("t", 0, to_node=2)
        # Once the new leader is known the detour ends.
        for number in range(2, 200):
            await (await producer.send("t", b"%d" % number, partition=0))
            node, request = fake.seen[-1]
            if node == 2 and request.leader_only:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the producer kept the detour")
    assert fake.topics["t"][0].values() == numbers(number + 1)


async def test_a_node_that_hangs_is_left_when_the_leader_has_moved(
    fake: FakeCluster, client: Client
) -> None:
    fake.faults = lambda node, _request: Fault.HANG if node == 1 else None
    async with client.producer(CONFIG) as producer:
        delivery = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        fake.move("t", 0, to_node=2)
        assert (await delivery).offset == 0


async def test_a_bad_batch_fails_alone(fake: FakeCluster, client: Client) -> None:
    fake.faults = script([None, RefusalError("BATCH_TOO_LARGE", "too large", limit="5")])
    async with client.producer(CONFIG) as producer:
        await (await producer.send("t", b"0", partition=0))
        bad = await producer.send_batch("t", [b"bad"], partition=0)
        good = [await producer.send_batch("t", [b"%d" % n], partition=0) for n in (1, 2)]
        with pytest.raises(InvalidRequestError, match="BATCH_TOO_LARGE: too large") as caught:
            await bad
        assert not caught.value.maybe_applied
        assert caught.value.metadata["limit"] == "5"
        await asyncio.gather(*good)
    assert fake.topics["t"][0].values() == numbers(3)


async def test_flush_raises_what_nobody_awaited(fake: FakeCluster, client: Client) -> None:
    fake.faults = script([RefusalError("BATCH_TOO_LARGE")])
    async with client.producer(CONFIG) as producer:
        await producer.send("t", b"0", partition=0)
        with pytest.raises(InvalidRequestError):
            await producer.flush()
        await producer.flush()


async def test_flush_raises_a_failure_although_its_neighbour_was_awaited(
    fake: FakeCluster, client: Client
) -> None:
    fake.faults = script([RefusalError("BATCH_TOO_LARGE")])
    async with client.producer(CONFIG) as producer:
        awaited, _ = [await producer.send("t", b"%d" % n, partition=0) for n in range(2)]
        with pytest.raises(InvalidRequestError):
            await awaited
        assert len(fake.seen) == 1, "both stood in one batch"
        with pytest.raises(InvalidRequestError):
            await producer.flush()


async def test_flush_waits_for_a_batch_in_flight_that_outlives_a_younger_one(
    fake: FakeCluster, client: Client
) -> None:
    """Nobody else hears of its failure: what is in flight is given up later than what waits."""
    fake.faults = lambda _node, _request: Fault.HANG
    async with client.producer(replace(CONFIG, delivery_timeout_ms=500)) as producer:
        older = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        younger = await producer.send("t", b"1", partition=0)
        heard = asyncio.ensure_future(younger.batch.wait())
        younger.add_done_callback(lambda _: None)
        with pytest.raises(DeliveryTimeoutError):
            await producer.flush()
        assert heard.done()
        assert older.done()


async def test_flush_says_nothing_of_what_was_handled(fake: FakeCluster, client: Client) -> None:
    fake.faults = lambda _node, _request: RefusalError("BATCH_TOO_LARGE")
    heard: list[Delivery] = []
    async with client.producer(CONFIG) as producer:
        called = await producer.send("t", b"0", partition=0)
        called.add_done_callback(heard.append)
        # Nobody waits for these two while they fail.
        late = await producer.send("t", b"1", partition=1)
        whole = await producer.send_batch("t", numbers(3), partition=2)
        for delivery in (called, late, whole):
            await delivery.batch.wait()
        for delivery in (late, whole):
            with pytest.raises(InvalidRequestError):
                await delivery
        await producer.flush()


async def test_waiting_that_was_given_up_has_heard_nothing(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer:
        delivery = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await delivery
        fake.topics["t"][0].producers[1] = (9, 0, {})
        fake.may_answer.set()
        with pytest.raises(ProducerFencedError):
            await producer.flush()


async def test_a_failure_is_told_when_it_happens(fake: FakeCluster, client: Client) -> None:
    fake.faults = script([None, RefusalError("BATCH_TOO_LARGE")])
    async with client.producer(CONFIG) as producer:
        failing = asyncio.ensure_future(producer.failure())
        await (await producer.send("t", b"0", partition=0))
        assert not failing.done()
        await producer.send("t", b"1", partition=0)
        assert (await failing).reason == "BATCH_TOO_LARGE"
        with pytest.raises(InvalidRequestError):
            await producer.flush()
        failing = asyncio.ensure_future(producer.failure())
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with pytest.raises(ClosedError):
            await failing


def failed(*, heard: bool) -> Batch:
    batch = Batch(0.0, None)
    batch.values, batch.keys = [b"v"], [None]
    batch.seal()
    batch.finish(make_error("INTERNAL", "heard" if heard else "unheard"))
    if heard:
        with pytest.raises(RakitError):
            Delivery.of(batch, 0).result()
    return batch


def test_failures_that_nobody_asks_for_are_kept_within_a_bound() -> None:
    failures = Failures()
    for number in range(3 * KEPT_COUNT_MAX):
        failures.add(failed(heard=number != 5))
    assert len(failures._batches) == KEPT_COUNT_MAX
    error = failures.first_unheard()
    assert error is not None
    assert error.message == "unheard"
    failures.forget()
    assert failures.first_unheard() is None


async def test_s24_a_fenced_producer_stops(fake: FakeCluster, client: Client) -> None:
    config = replace(CONFIG, name="orders-writer")
    async with client.producer(config) as old:
        await (await old.send("t", b"0", partition=0))
        async with client.producer(config) as new:
            # The numbering goes on where the older instance stopped.
            await (await new.send("t", b"1", partition=0))
            assert fake.seen[-1][1].producer.sequence == 2
            with pytest.raises(ProducerFencedError):
                await (await old.send("t", b"2", partition=0))
            with pytest.raises(ProducerFencedError):
                await (await old.send("t", b"3", partition=1))
    assert fake.topics["t"][0].values() == numbers(2)


async def test_s24_a_producer_that_opens_a_topic_fences_the_older_one_in_every_partition(
    fake: FakeCluster, client: Client
) -> None:
    config = replace(CONFIG, name="orders-writer")
    async with client.producer(config) as old, client.producer(config) as new:
        await (await old.send("t", b"0", partition=0))
        # It has sent nothing to the partition of the older one.
        await (await new.send("t", b"1", partition=1))
        with pytest.raises(ProducerFencedError):
            await (await old.send("t", b"2", partition=0))
    assert fake.topics["t"][0].values() == [b"0"]


async def test_s24_a_fenced_producer_is_at_its_end_everywhere(
    fake: FakeCluster, client: Client
) -> None:
    fake.create("u", [1])
    async with client.producer(replace(CONFIG, name="orders-writer")) as producer:
        await (await producer.send("u", b"0"))
        fake.topics["t"][0].producers[1] = (9, 0, {})
        with pytest.raises(ProducerFencedError):
            await (await producer.send("t", b"1", partition=0))
        # Nobody has told the partitions of the other topic.
        seen = len(fake.seen)
        for topic in ("u", "t"):
            with pytest.raises(ProducerFencedError):
                await (await producer.send(topic, b"2"))
        with pytest.raises(ProducerFencedError):
            await producer.send("another", b"2")
        assert len(fake.seen) == seen
    assert fake.topics["u"][0].values() == [b"0"]


async def test_s24_only_what_was_sent_is_in_doubt_after_a_fence(
    fake: FakeCluster, client: Client
) -> None:
    fake.faults = script([RefusalError("PRODUCER_FENCED", outcome="UNKNOWN")])
    async with client.producer(CONFIG) as producer:
        sent = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        waiting = await producer.send("t", b"1", partition=0)
        for delivery, is_in_doubt in ((sent, True), (waiting, False)):
            with pytest.raises(ProducerFencedError) as caught:
                await delivery
            assert caught.value.maybe_applied is is_in_doubt
        with pytest.raises(ProducerFencedError) as caught:
            await (await producer.send("t", b"2", partition=1))
        assert not caught.value.maybe_applied


async def test_a_producer_without_a_name_leaves_no_name_behind(
    fake: FakeCluster, client: Client
) -> None:
    """The cluster remembers each name for ever; a client that lives once must not use one up."""
    for number in range(2):
        async with client.producer(CONFIG) as producer:
            await (await producer.send("t", b"%d" % number, partition=0))
        stamp = fake.seen[-1][1].producer
        assert (stamp.producer_id, stamp.epoch, stamp.sequence) == (number + 1, 1, 1)
    assert list(fake.epochs) == ["nameless 0", "nameless 1"]


async def test_what_is_never_acknowledged_times_out_with_its_outcome(
    fake: FakeCluster, client: Client
) -> None:
    config = replace(CONFIG, delivery_timeout_ms=300)
    fake.faults = lambda _node, _request: RefusalError("NO_LEADER")
    async with client.producer(config) as producer:
        with pytest.raises(DeliveryTimeoutError) as sure:
            await (await producer.send("t", b"0", partition=0))
        assert not sure.value.maybe_applied
        fake.faults = lambda _node, _request: RefusalError("OUTCOME_UNKNOWN", outcome="UNKNOWN")
        with pytest.raises(DeliveryTimeoutError, match=r"ms: as scripted .OUTCOME_UN") as unsure:
            await (await producer.send("t", b"1", partition=0))
        assert unsure.value.maybe_applied
        fake.faults = lambda _node, _request: None
        await (await producer.send("t", b"2", partition=0))
    assert fake.topics["t"][0].values() == [b"2"]


async def test_a_partition_without_a_leader_is_not_asked_without_a_pause(
    fake: FakeCluster,
) -> None:
    fake.faults = lambda _node, _request: RefusalError("NO_LEADER")
    config = ClientConfig(tuple(fake.bootstrap.split(",")), backoff_ms=100)
    async with (
        Client(config) as client,
        client.producer(replace(CONFIG, delivery_timeout_ms=1_000)) as producer,
    ):
        with pytest.raises(DeliveryTimeoutError):
            await (await producer.send("t", b"0", partition=0))
    # A few at once, then one each 0.1 s (a tenth of the timeout, at most) in 1 to 1.25 s.
    assert 3 < len(fake.seen) < 40


async def test_a_delivery_times_out_at_nodes_that_hang(fake: FakeCluster, client: Client) -> None:
    fake.faults = lambda _node, _request: Fault.HANG
    async with client.producer(replace(CONFIG, delivery_timeout_ms=300)) as producer:
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(DeliveryTimeoutError, match=r"300 ms: .* it does not answer") as caught:
            await (await producer.send("t", b"0", partition=0))
        assert caught.value.maybe_applied
        assert caught.value.metadata["cause"] == "UNREACHABLE"
        assert asyncio.get_running_loop().time() - began_s < 5
        # It was not sent again after its time.
        assert len(fake.seen) == 1
        fake.faults = lambda _node, _request: None
        await (await producer.send("t", b"1", partition=0))
    assert fake.topics["t"][0].values() == [b"1"]


async def test_without_numbers_doubt_is_an_error_and_nothing_is_doubled(
    fake: FakeCluster, client: Client
) -> None:
    fake.faults = script([RefusalError("NO_LEADER"), Fault.BREAK_AFTER])
    async with client.producer(replace(CONFIG, idempotent=False)) as producer:
        with pytest.raises(UnavailableError) as caught:
            await (await producer.send("t", b"0", partition=0))
        assert caught.value.maybe_applied
        await (await producer.send("t", b"1", partition=0))
    assert fake.topics["t"][0].values() == numbers(2)


async def test_send_waits_for_room(fake: FakeCluster, client: Client) -> None:
    fake.may_answer.clear()
    config = replace(CONFIG, batch_bytes_max=1_000, unacknowledged_bytes_max=2_000)
    async with client.producer(config) as producer:
        for _ in range(4):
            await producer.send("t", b"x" * 450, partition=0)
        waiting = [
            asyncio.create_task(producer.send("t", b"%d" % n, partition=0)) for n in range(300)
        ]
        waiting[0].cancel()
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting[200:])
        fake.may_answer.set()
        await asyncio.gather(*waiting[1:])
    assert fake.topics["t"][0].values()[4:] == numbers(300)[1:]


async def test_a_closed_producer_says_so_and_leaves_nothing_waiting(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    producer = client.producer(CONFIG)
    with pytest.raises(ClosedError):
        await producer.send("t", b"0")
    async with producer:
        delivery = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        later = await producer.send("t", b"1", partition=0)
        await producer.abort()
        with pytest.raises(ClosedError) as caught:
            await delivery
        assert caught.value.maybe_applied
        with pytest.raises(ClosedError) as caught:
            await later
        assert not caught.value.maybe_applied
        with pytest.raises(ClosedError):
            await producer.send("t", b"2")


async def test_bad_calls_are_refused_before_anything_is_sent(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer() as producer:
        with pytest.raises(NotFoundError, match="UNKNOWN_TOPIC"):
            await producer.send("nowhere", b"v")
        with pytest.raises(NotFoundError, match="partitions 0 to 2, not 3"):
            await producer.send("t", b"v", partition=3)
        with pytest.raises(ValueError, match="at least one"):
            await producer.send_batch("t", [])
        with pytest.raises(InvalidRequestError, match="200,001 records are to be stored"):
            await producer.send_batch("t", [b""] * 200_001)
        with pytest.raises(ValueError, match="2 values but 1 keys"):
            await producer.send_batch("t", [b"a", b"b"], [b"k"], partition=0)
        with pytest.raises(ValueError, match="needs the partition"):
            await producer.send_batch("t", [b"a"], [b"k"])
    assert not fake.seen


async def test_callbacks_go_on_after_one_that_ends_the_program() -> None:
    loop = asyncio.get_running_loop()
    heard: list[str] = []

    posted: list[Callable[[], None]] = []

    def leave(_delivery: Delivery) -> None:
        raise SystemExit(3)

    def hear(_delivery: Delivery) -> None:
        heard.append("later")

    def call_soon(call: Callable[[object], None], argument: object) -> None:
        posted.append(partial(call, argument))

    batch = Batch(0.0, None)
    for index, callback in enumerate((leave, hear)):
        Delivery.of(batch, index).add_done_callback(callback)
    with pytest.MonkeyPatch.context() as planted:
        planted.setattr(loop, "call_soon", call_soon)
        batch.finish(make_error("CLOSED", "closed"))
        with pytest.raises(SystemExit):
            posted.pop()()
        posted.pop()()
    assert heard == ["later"]


async def test_a_callback_hears_every_end(fake: FakeCluster, client: Client) -> None:
    heard: list[Delivery] = []
    async with client.producer(replace(CONFIG, compression="zstd")) as producer:
        delivery = await producer.send_batch("t", numbers(100), partition=1)
        delivery.add_done_callback(heard.append)
        receipt = await delivery
        assert (receipt.offset, receipt.end_offset) == (0, 100)
    delivery.add_done_callback(heard.append)
    assert heard == [delivery, delivery]
    assert fake.topics["t"][1].values() == numbers(100)


async def test_chaos_nothing_acknowledged_is_lost_doubled_or_swapped(
    fake: FakeCluster, client: Client
) -> None:
    rng = random.Random(5)
    choices: list[Fault | RefusalError | None] = [
        Fault.BREAK_BEFORE,
        Fault.BREAK_AFTER,
        Fault.UNKNOWN_AFTER,
        RefusalError("NO_LEADER"),
        RefusalError("NOT_LEADER"),
    ]

    def faults(_node: int, request: ProduceRequest) -> Fault | RefusalError | None:
        if rng.random() < 0.03:
            fake.move("t", request.partition, rng.choice([1, 2, 3]))
        return rng.choice(choices) if rng.random() < 0.1 else None

    fake.faults = faults
    async with client.producer(CONFIG) as producer:
        sent = 0
        deliveries: list[Delivery] = []
        for _ in range(150):
            for _ in range(rng.randrange(40)):
                deliveries.append(await producer.send("t", b"%d" % sent, b"%d" % (sent % 10)))
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*deliveries)
    stored = [value for partition in fake.topics["t"] for value in partition.values()]
    assert sorted(map(int, stored)) == list(range(sent))
    for partition in fake.topics["t"]:
        assert partition.values() == sorted(partition.values(), key=int)


async def test_an_unknown_error_ends_only_its_delivery(fake: FakeCluster, client: Client) -> None:
    fake.faults = script([RefusalError("INVENTED_LATER")])
    async with client.producer(CONFIG) as producer:
        with pytest.raises(RakitError, match="INVENTED_LATER"):
            await (await producer.send("t", b"0", partition=0))
        await (await producer.send("t", b"1", partition=0))


async def test_a_node_that_answers_what_nobody_asked_is_left(
    fake: FakeCluster, client: Client
) -> None:
    fake.tag_shift = 5
    async with client.producer(CONFIG) as producer:
        delivery = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        fake.tag_shift = 0
        assert (await delivery).duplicate
    assert fake.topics["t"][0].values() == numbers(1)


BAD_RECORDS: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"value": "text"}, TypeError, "value of a record is bytes or None, not str"),
    ({"value": bytearray(b"v")}, TypeError, "value of a record is bytes or None, not bytearray"),
    ({"value": b"v", "key": "k"}, TypeError, "key of a record is bytes or None, not str"),
    ({"value": b"v", "headers": [("a", "b")]}, TypeError, r"not str and str"),
    ({"value": b"v", "headers": [(b"a", b"b")]}, TypeError, r"not bytes and bytes"),
    ({"value": b"v", "headers": [("\ud800", b"b")]}, ValueError, "surrogates not allowed"),
    ({"value": b"v", "timestamp_ms": 2**63}, ValueError, "from 0 to 9007199254740991, not 922"),
    ({"value": b"v", "timestamp_ms": -1}, ValueError, "from 0 to 9007199254740991, not -1"),
    ({"value": b"v", "timestamp_ms": 1.5}, TypeError, "in milliseconds .int., not 1.5"),
    ({"value": bytes(16 << 20)}, InvalidRequestError, "BATCH_TOO_LARGE: 16,777,224 bytes"),
]

COLUMN_OF = {
    "value": "values",
    "key": "keys",
    "headers": "headers",
    "timestamp_ms": "timestamps_ms",
}


@pytest.mark.parametrize(("record", "kind", "text"), BAD_RECORDS, ids=range(len(BAD_RECORDS)))
async def test_a_bad_record_is_refused_at_the_call_and_disturbs_no_other(
    fake: FakeCluster,
    client: Client,
    record: dict[str, object],
    kind: type[Exception],
    text: str,
) -> None:
    async with client.producer(replace(CONFIG, unacknowledged_count_max=4)) as producer:
        good = [await producer.send("t", b"0", partition=0)]
        for _ in range(10):
            with pytest.raises(kind, match=text):
                await producer.send("t", partition=0, **record)  # type: ignore[arg-type]
            columns = {COLUMN_OF[name]: [value] for name, value in record.items()}
            with pytest.raises(kind):
                await producer.send_batch("t", partition=0, **columns)  # type: ignore[arg-type]
        good.append(await producer.send("t", b"1", partition=0))
        await asyncio.gather(*good)
    assert fake.topics["t"][0].values() == numbers(2)
    assert producer._room.used_bytes == producer._room.count == 0
