"""Nobody waits for ever: whatever ends a task of the SDK, those who wait on it hear of it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from rakit.api.v1.topic_service_pb2 import GetTopicRequest
from rakit.client import (
    Client,
    ClosedError,
    Producer,
    ProducerConfig,
    RakitError,
    ReaderConfig,
    ServerError,
)
from rakit.client.metadata import Metadata
from rakit.client.model import Receipt
from rakit.client.producing.batch import Delivery
from rakit.client.producing.lane import Lane
from rakit.client.reading.progress import Progress

from .fake_cluster import FakeCluster, Fault, RefusalError
from .test_reader import fill

CONFIG = ProducerConfig(delivery_timeout_ms=20_000)
#: Far below the timeouts of the SDK and far above what a loaded machine needs.
SOON_S = 8.0


@pytest.fixture
def complaints() -> list[str]:
    """What the loop's exception handler hears; a bug must be visible beside the error."""
    heard: list[str] = []

    def handler(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        heard.append(repr(context.get("exception")))

    asyncio.get_event_loop().set_exception_handler(handler)
    return heard


def bug(*_arguments: object, **_named: object) -> None:
    raise ZeroDivisionError("planted")


async def errors_of_two_deliveries(producer: Producer) -> list[RakitError]:
    """Of one that is under way when it happens, and of one that comes later."""
    errors: list[RakitError] = []
    async with asyncio.timeout(SOON_S):
        for _ in range(2):
            with pytest.raises(RakitError) as caught:
                await (await producer.send("t", b"v", partition=0))
            errors.append(caught.value)
    return errors


async def test_an_error_that_cannot_be_decoded_ends_its_delivery(
    fake: FakeCluster, client: Client
) -> None:
    refusal = RefusalError("BATCH_TOO_LARGE", "a text")
    status = refusal.status()
    status.details[0].value = b"\xff\xff"
    refusal.status = lambda: status  # type: ignore[method-assign]
    fake.faults = lambda _node, _request: refusal
    async with client.producer(CONFIG) as producer, asyncio.timeout(SOON_S):
        with pytest.raises(ServerError, match="FOREIGN_ERROR: a text") as caught:
            await (await producer.send("t", b"v", partition=0))
        assert caught.value.maybe_applied


async def test_an_answer_that_breaks_the_reader_of_a_stream_breaks_the_stream(
    fake: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Receipt.from_message
    async with client.producer(CONFIG) as producer, asyncio.timeout(SOON_S):
        monkeypatch.setattr(Receipt, "from_message", bug)
        delivery = await producer.send("t", b"v", partition=0)
        await fake.until_seen(2)
        monkeypatch.setattr(Receipt, "from_message", read)
        assert (await delivery).duplicate


async def test_a_bug_in_the_writer_of_a_stream_breaks_the_stream(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer, asyncio.timeout(SOON_S):
        delivery = await producer.send("t", b"v", partition=0)
        await fake.until_seen()
        (link,) = producer._engine._links.values()
        link._outgoing = [None]  # type: ignore[assignment]  # nothing that has a first element
        link._wake.set()
        fake.may_answer.set()
        await link._reader
        await delivery
        assert link not in producer._engine._links.values()


async def test_a_callback_that_raises_is_reported_and_disturbs_nobody(
    fake: FakeCluster, client: Client, complaints: list[str]
) -> None:
    heard: list[Delivery] = []

    def fail(_delivery: Delivery) -> None:
        raise ValueError("the caller's own bug")

    fake.may_answer.clear()
    async with client.producer(CONFIG) as producer:
        first = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        others = [await producer.send("t", b"1", partition=0) for _ in range(3)]
        others[0].add_done_callback(heard.append)
        others[1].add_done_callback(fail)
        others[2].add_done_callback(heard.append)
        fake.may_answer.set()
        await asyncio.gather(first, *others)
    assert heard == [others[0], others[2]]
    assert complaints == [repr(ValueError("the caller's own bug"))]


@pytest.mark.parametrize(
    "where", [(Lane, "expire"), (Lane, "next_batch"), (Metadata, "forget_leader")], ids=str
)
async def test_a_bug_in_a_task_ends_the_producer(
    fake: FakeCluster,
    client: Client,
    complaints: list[str],
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[type, str],
) -> None:
    async with client.producer(CONFIG) as producer:
        await (await producer.send("t", b"v", partition=0))
        fake.faults = lambda _node, _request: (
            Fault.BREAK_BEFORE if where[1] == "forget_leader" else Fault.HANG
        )
        with monkeypatch.context() as planted:
            planted.setattr(*where, bug)
            errors = await errors_of_two_deliveries(producer)
    assert {error.reason for error in errors} == {"CLIENT_FAILED"}
    assert all("planted" in error.message for error in errors)
    assert any("planted" in complaint for complaint in complaints)


async def test_a_bug_in_a_reader_is_raised_to_its_consumer(
    fake: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fake, 0, 3)
    monkeypatch.setattr(Progress, "take", bug)
    async with client.reader("t", follow=True) as reader, asyncio.timeout(SOON_S):
        with pytest.raises(ZeroDivisionError, match="planted"):
            _ = [record async for record in reader]


@pytest.mark.parametrize("follow", [False, True])
async def test_reading_does_not_end_well_because_the_client_is_closed(
    fake: FakeCluster, client: Client, *, follow: bool
) -> None:
    fill(fake, 0, *[1] * 50)
    config = ReaderConfig(buffer_bytes_max=1)
    async with (
        client.reader("t", [0], follow=follow, config=config) as reader,
        asyncio.timeout(SOON_S),
    ):
        records = aiter(reader)
        for _ in range(6):
            await anext(records)
        await client.close()
        with pytest.raises(ClosedError):
            _ = [record async for record in records]


async def test_whoever_waits_for_records_hears_that_the_reader_was_closed(
    fake: FakeCluster, client: Client
) -> None:
    fill(fake, 0, 1)
    async with client.reader("t", follow=True) as reader:
        records = aiter(reader)
        await anext(records)
        waiting = asyncio.ensure_future(anext(records, None))
        await asyncio.sleep(0)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ClosedError):
            await waiting


async def test_a_question_under_way_hears_that_the_client_was_closed(
    fake: FakeCluster, client: Client
) -> None:
    for node in fake.nodes.values():
        node.is_hung = True
    ask = partial(client._connections.call, lambda stubs: stubs.topic.GetTopic)
    asking = [
        asyncio.create_task(client.admin.get_topic("t")),
        asyncio.create_task(ask(GetTopicRequest(name="t"))),
    ]
    await fake.is_asked.wait()
    await client.close()
    async with asyncio.timeout(SOON_S):
        for question in asking:
            with pytest.raises(ClosedError):
                await question


async def test_a_producer_ends_with_its_client(fake: FakeCluster, client: Client) -> None:
    fake.may_answer.clear()
    producer = client.producer(CONFIG)
    async with producer:
        delivery = await producer.send("t", b"v", partition=0)
        await fake.until_seen()
        await client.close()
        async with asyncio.timeout(SOON_S):
            with pytest.raises(ClosedError) as caught:
                await delivery
            assert caught.value.maybe_applied
            with pytest.raises(ClosedError):
                await (await producer.send("t", b"v", partition=0))


async def test_a_task_that_is_cancelled_is_cancelled(fake: FakeCluster, client: Client) -> None:
    for node in fake.nodes.values():
        node.is_hung = True
    asking = asyncio.create_task(client.admin.get_topic("t"))
    await fake.is_asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
