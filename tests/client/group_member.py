"""A member of a group and its stream, for tests that play the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rakit.client import Client, GroupConfig, GroupConsumer, Hooks, Record, TopicPartition

from .fake_groups import FakeGroups, Line

P0, P1 = ("t", 0), ("t", 1)
BY_HAND = GroupConfig(auto_commit_ms=None)


@asynccontextmanager
async def member(
    groups: FakeGroups,
    client: Client,
    config: GroupConfig | None = None,
    hooks: Hooks | None = None,
) -> AsyncGenerator[tuple[GroupConsumer, Line]]:
    """A consumer and its stream; the server lets it go at the end."""
    consumer = client.group_consumer("g", ["t"], config=config, hooks=hooks)
    entering = asyncio.create_task(consumer.__aenter__())
    line = await groups.line()
    await line.next("join")
    line.joined()
    await entering
    try:
        yield consumer, line
    finally:
        consumer.drain()
        line.end()
        await consumer.__aexit__(RuntimeError, None, None)


async def all_heard(consumer: GroupConsumer, line: Line) -> None:
    """Returns when the consumer has taken in all that the server said: answers come in order."""
    name = TopicPartition("elsewhere", 0)
    committing = asyncio.create_task(consumer.commit(offsets={name: 1}))
    line.committed((await line.next("commit")).commit.tag)
    await committing


async def take(consumer: GroupConsumer, count: int) -> list[Record]:
    """The next records; the program is through with all but the last of them."""
    taken: list[Record] = []
    while len(taken) < count:
        record = await consumer.one()
        assert record is not None
        taken.append(record)
    return taken
