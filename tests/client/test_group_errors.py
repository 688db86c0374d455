"""What a program that consumes in a group meets most: type, reason, outcome and text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest

from rakit.client import (
    AlreadyExistsError,
    Client,
    ClientConfig,
    GroupConfig,
    GroupConsumer,
    Hooks,
    InvalidRequestError,
    NotFoundError,
    NotOwnerError,
    OffsetOutOfRangeError,
    RakitError,
    TopicPartition,
)
from rakit.testing import Broker

from .fake_cluster import RefusalError
from .fake_groups import FakeGroups
from .group_member import BY_HAND, P0, member, take

T0 = TopicPartition("t", 0)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
async def client(broker: Broker) -> AsyncIterator[Client]:
    async with Client(broker.bootstrap) as client:
        yield client


async def check(
    work: Awaitable[object],
    kind: type[RakitError],
    reason: str,
    text: str,
    *,
    retriable: bool = False,
) -> RakitError:
    """The error that some work fails with, which changed nothing."""
    with pytest.raises(kind) as caught:
        await work
    error = caught.value
    assert (error.reason, error.maybe_applied, error.retriable) == (reason, False, retriable)
    assert text in error.message
    return error


async def topic(client: Client, name: str, values: int = 0) -> TopicPartition:
    await client.admin.create_topic(name)
    async with client.producer() as producer:
        for at in range(values):
            await producer.send(name, b"%d" % at)
    return TopicPartition(name, 0)


async def enter(consumer: GroupConsumer) -> None:
    async with consumer:
        pytest.fail("it has joined")


async def test_an_unknown_group(client: Client) -> None:
    await topic(client, "unknown-group")
    admin = client.admin
    for work in (
        admin.get_group("gone"),
        admin.delete_group("gone"),
        admin.reset_offsets("gone", "unknown-group", to="latest"),
    ):
        await check(work, NotFoundError, "UNKNOWN_GROUP", "There is no group 'gone'.")


async def test_a_stale_epoch(groups: FakeGroups) -> None:
    config = ClientConfig((groups.address,), request_timeout_ms=2_000, attempt_timeout_ms=1_000)
    async with Client(config) as client, member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"])
        await take(consumer, 1)
        committing = asyncio.create_task(consumer.commit())
        commit = (await line.next("commit")).commit
        line.committed(commit.tag, {P0: RefusalError("STALE_MEMBER_EPOCH")})
        await check(committing, NotOwnerError, "STALE_MEMBER_EPOCH", "")


async def test_p5_a_partition_that_is_not_owned(client: Client) -> None:
    await topic(client, "owned", 1)
    other = await topic(client, "not-owned", 1)
    async with client.group_consumer("not-owned", ["owned"], config=BY_HAND) as consumer:
        text = "does not own partition 0 of topic 'not-owned': nothing was committed for it."
        commit = consumer.commit(offsets={other: 1})
        await check(commit, NotOwnerError, "PARTITION_NOT_OWNED", text)
        text = "this member does not own partition 0 of 'not-owned'"
        await check(consumer.seek("not-owned", 0, 0), NotOwnerError, "PARTITION_NOT_OWNED", text)
        with pytest.raises(NotOwnerError, match=text):
            consumer.pause(other)


async def test_an_offset_outside_of_the_log(client: Client) -> None:
    name = await topic(client, "outside", 2)
    text = "of partition 0 of topic 'outside', which holds 0 up to, not including, 2."
    whole = f"Offset 3 lies outside {text}"
    setting = client.admin.commit_offsets("outside-admin", {name: 3})
    await check(setting, OffsetOutOfRangeError, "COMMIT_OUT_OF_RANGE", whole)
    await client.admin.commit_offsets("outside-admin", {name: 2})
    resetting = client.admin.reset_offsets("outside-admin", "outside", to=3)
    await check(resetting, OffsetOutOfRangeError, "COMMIT_OUT_OF_RANGE", whole)
    async with client.group_consumer("outside", ["outside"], config=BY_HAND) as consumer:
        await take(consumer, 2)
        commit = consumer.commit(offsets={name: 3})
        error = await check(commit, OffsetOutOfRangeError, "COMMIT_OUT_OF_RANGE", text)
        assert (error.number("earliest"), error.number("latest")) == (0, 2)
        with pytest.raises(OffsetOutOfRangeError, match="Offset 3") as caught:
            await consumer.seek("outside", 0, 3)
        assert (caught.value.reason, caught.value.number("latest")) == ("OFFSET_OUT_OF_RANGE", 2)


async def test_two_static_members_with_one_name(client: Client) -> None:
    await topic(client, "named")
    named = GroupConfig(instance_id="pod-0", session_grace_ms=1_000)
    # The other one may be about to end: it is waited for, here not for long.
    hasty = GroupConfig(instance_id="pod-0", session_grace_ms=1_000, retry_timeout_ms=1)
    async with client.group_consumer("named", ["named"], config=named) as first:
        await check(
            enter(client.group_consumer("named", ["named"], config=hasty)),
            AlreadyExistsError,
            "INSTANCE_IN_USE",
            "Another process is instance 'pod-0' of group 'named'",
            retriable=True,
        )
        await first.commit()


async def test_more_credit_than_a_member_may_have(groups: FakeGroups) -> None:
    with pytest.raises(ValueError, match="buffer_bytes_max must be from 1 to 64 MiB"):
        GroupConfig(buffer_bytes_max=(64 << 20) + 1)
    async with Client(groups.address) as client, member(groups, client) as (consumer, line):
        line.fail("CREDIT_EXCEEDED", limit="67108864")
        error = await check(consumer.one(), InvalidRequestError, "CREDIT_EXCEEDED", "")
        assert error.number("limit") == 64 << 20


async def test_a_malformed_pattern(client: Client) -> None:
    await check(
        enter(client.group_consumer("pattern", patterns=["[a-z]"])),
        InvalidRequestError,
        "INVALID_TOPIC_PATTERN",
        "[a-z]",
    )


async def test_a_topic_that_is_deleted_while_it_is_subscribed_to(client: Client) -> None:
    name = await topic(client, "deleted", 1)
    gone = asyncio.Event()

    async def revoking(_partitions: object) -> None:
        gone.set()

    async with client.group_consumer(
        "deleted", ["deleted"], config=BY_HAND, hooks=Hooks(revoking=revoking)
    ) as consumer:
        await take(consumer, 1)
        await client.admin.delete_topic("deleted")
        asking = asyncio.create_task(consumer.one())
        await asyncio.wait_for(gone.wait(), 20)
        commit = consumer.commit(offsets={name: 1})
        await check(commit, NotFoundError, "UNKNOWN_TOPIC", "'deleted'")
        assert consumer.assignment == ()
        asking.cancel()
