"""The client for programs without asyncio: the same objects, waited for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rakit.client import ClosedError, NotFoundError, TopicPartition
from rakit.client.sync import Client

from .fake_cluster import FakeCluster
from .fake_groups import FakeGroups


async def test_records_go_there_and_back(fake: FakeCluster) -> None:
    def program() -> None:
        with Client(fake.bootstrap) as client:
            with client.producer() as producer:
                first = producer.send("t", b"a", partition=0)
                batch = producer.send_batch("t", [b"b", b"c"], partition=0)
                assert first.result().offset == 0
                assert (batch.result().offset, batch.result().end_offset) == (1, 3)
            with client.reader("t", [0]) as reader:
                assert [(each.offset, each.value) for each in reader] == [
                    (0, b"a"),
                    (1, b"b"),
                    (2, b"c"),
                ]
                assert reader.positions() == {0: 3}

    await asyncio.to_thread(program)


async def test_errors_are_raised_where_the_call_was_made(fake: FakeCluster) -> None:
    def program() -> None:
        with Client(fake.bootstrap) as client, pytest.raises(NotFoundError):
            client.admin.get_topic("nowhere")

    await asyncio.to_thread(program)


async def test_a_closed_client_leaves_no_thread(fake: FakeCluster) -> None:
    def program() -> None:
        client = Client(fake.bootstrap)
        assert client.admin.get_cluster().nodes
        client.close()
        assert all(each.name != "rakit client" for each in threading.enumerate())

    await asyncio.to_thread(program)


@pytest.mark.parametrize("kind", ["consumer", "reader"])
async def test_closing_the_client_ends_the_waits_of_other_threads(
    fake: FakeCluster, groups: FakeGroups, kind: str
) -> None:
    bootstrap = fake.bootstrap if kind == "reader" else groups.address
    client = await asyncio.to_thread(Client, bootstrap)
    iterating = threading.Event()

    def iterate() -> None:
        inner = (
            client.reader("t", [0], "latest", follow=True)
            if kind == "reader"
            else client.group_consumer("g", ["t"])
        )
        with inner as opened:
            iterating.set()
            for _ in opened:
                pass

    running = asyncio.create_task(asyncio.to_thread(iterate))
    if kind == "consumer":
        (await groups.line()).joined()
    await asyncio.to_thread(iterating.wait)
    await asyncio.to_thread(client.close)
    with pytest.raises(ClosedError):
        await asyncio.wait_for(running, 5)


async def test_a_closed_client_says_so(fake: FakeCluster) -> None:
    def program() -> None:
        client = Client(fake.bootstrap)
        client.close()
        with pytest.raises(ClosedError):
            client.admin.list_topics()
        client.close()

    await asyncio.to_thread(program)


def test_bad_settings_leave_no_thread() -> None:
    with pytest.raises(ValueError, match="host:port"):
        Client("nowhere")
    assert all(each.name != "rakit client" for each in threading.enumerate())


async def test_a_member_of_a_group_reads_commits_and_leaves(groups: FakeGroups) -> None:
    values: list[bytes | None] = []

    def program() -> None:
        with Client(groups.address) as client, client.group_consumer("g", ["t"]) as consumer:
            for record in consumer:
                values.append(record.value)
                if record.value == b"b":
                    consumer.commit(record)
                    assert consumer.assignment == (TopicPartition("t", 0),)
                if record.value == b"c":
                    consumer.drain()

    running = asyncio.create_task(asyncio.to_thread(program))
    line = await groups.line()
    line.joined()
    line.assigned({("t", 0): 0})
    line.records("t", 0, 0, [b"a", b"b", b"c", b"d"])
    offsets: list[int] = []
    while not offsets or offsets[-1] != 3:
        commit = (await line.next("commit")).commit
        offsets.append(commit.offsets[0].offset)
        line.committed(commit.tag)
    await line.next("leave")
    line.end()
    await running
    assert values == [b"a", b"b", b"c"]
    assert 2 in offsets, "what the program asked for"
