"""Fetch over several partitions: one budget, one wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition import polling
from rakit.node.partition.partition import Partition
from rakit.node.partition.polling import Poller, Want
from rakit.node.partition.reader import Chunk
from tests.node.partition.fakes import MEMBERS, batch
from tests.node.partition.test_partition import Setting

LONG_MS = 60_000


def wants(settings: Sequence[Setting]) -> list[Want]:
    return [Want(setting.partition, 0) for setting in settings]


def filled(sizes: Sequence[int]) -> Setting:
    setting = Setting()
    for size in sizes:
        setting.partition.append(batch(1, content=bytes(size)), None, None)
    setting.host.commit()
    return setting


async def poll(
    asked: Sequence[Want], *, max_bytes: int = 1 << 20, min_bytes: int = 1, wait_ms: int = 0
) -> list[Chunk]:
    answers = await Poller().poll(
        asked, max_bytes=max_bytes, min_bytes=min_bytes, max_wait_ms=wait_ms
    )
    chunks = [answer for answer in answers if isinstance(answer, Chunk)]
    assert len(chunks) == len(asked)
    return chunks


async def test_what_is_there_is_returned_at_once_in_the_order_asked() -> None:
    settings = [filled([10, 20]), filled([]), filled([30])]
    chunks = await poll(wants(settings), wait_ms=LONG_MS)
    assert [chunk.size_bytes for chunk in chunks] == [30, 0, 30]
    assert [chunk.next_offset for chunk in chunks] == [2, 0, 1]


async def test_an_empty_poll_waits_until_something_is_committed() -> None:
    settings = [filled([]), filled([])]
    asked = asyncio.ensure_future(poll(wants(settings), wait_ms=LONG_MS))
    settings[1].partition.append(batch(1), None, None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done(), "nobody sees a record that is not committed (P4)"
    settings[1].host.commit()
    async with asyncio.timeout(5):
        chunks = await asked
    assert [chunk.next_offset for chunk in chunks] == [0, 1]
    assert settings[0].partition.subscriber_count == 0, "a poll leaves nothing behind"


async def test_a_poll_waits_for_its_least_bytes_and_keeps_what_it_has() -> None:
    setting = filled([10])
    asked = asyncio.ensure_future(poll(wants([setting]), min_bytes=25, wait_ms=LONG_MS))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not asked.done()
        setting.partition.append(batch(1, content=bytes(10)), None, None)
        setting.host.commit()
    async with asyncio.timeout(5):
        (chunk,) = await asked
    assert [each.base_offset for each in chunk.batches] == [0, 1, 2]


async def test_a_poll_does_not_wait_for_more_than_there_is_room_for() -> None:
    setting = filled([700] * 3)
    async with asyncio.timeout(5):
        (chunk,) = await poll(wants([setting]), max_bytes=1000, min_bytes=1000, wait_ms=LONG_MS)
    assert (chunk.next_offset, chunk.high_watermark) == (1, 3)


async def test_a_poll_waits_where_nothing_more_is_wanted_of_what_there_is() -> None:
    setting = filled([10, 10])
    asked = [Want(setting.partition, 0, end_offset=1), Want(setting.partition, 2)]
    assert [each.size_bytes for each in await poll(asked, min_bytes=100, wait_ms=30)] == [10, 0]
    waiting = asyncio.ensure_future(poll(asked, min_bytes=20, wait_ms=LONG_MS))
    await asyncio.sleep(0)
    assert not waiting.done()
    setting.append(1)
    async with asyncio.timeout(5):
        assert [each.size_bytes for each in await waiting] == [10, 10]


async def test_a_poll_ends_with_its_time() -> None:
    setting = filled([10])
    (chunk,) = await poll(wants([setting]), min_bytes=1000, wait_ms=30)
    assert chunk.size_bytes == 10


async def test_a_poll_ends_when_a_partition_is_led_elsewhere() -> None:
    settings = [filled([]), filled([])]
    asked = asyncio.ensure_future(
        Poller().poll(wants(settings), max_bytes=1000, min_bytes=1, max_wait_ms=LONG_MS)
    )
    await asyncio.sleep(0)
    settings[0].follow(MEMBERS[1])
    settings[0].partition.wake()
    async with asyncio.timeout(5):
        first, second = await asked
    assert isinstance(first, RakitError)
    assert first.reason == error_pb2.ERROR_REASON_NOT_LEADER
    assert isinstance(second, Chunk)


async def test_a_poll_that_has_reached_every_end_does_not_wait() -> None:
    setting = filled([10, 10])
    asked = [Want(setting.partition, 0, end_offset=1), Want(setting.partition, 2, end_offset=2)]
    chunks = await poll(asked, min_bytes=1000, wait_ms=LONG_MS)
    assert [chunk.next_offset for chunk in chunks] == [1, 2]


async def test_a_full_partition_does_not_starve_the_others() -> None:
    share = polling.SHARE_BYTES_MIN
    full, small = filled([share // 4] * 100), filled([share // 4] * 2)
    first, second = await poll(wants([full, small]), max_bytes=2 * share)
    assert second.size_bytes == share // 2
    assert first.size_bytes == 2 * share - second.size_bytes, "what one leaves, the other takes"


async def test_one_batch_over_the_budget_comes_alone() -> None:
    huge = [filled([100_000]), filled([100_000]), filled([10])]
    chunks = await poll(wants(huge[:2]), max_bytes=1000)
    assert sorted(chunk.size_bytes for chunk in chunks) == [0, 100_000]
    chunks = await poll(wants(huge), max_bytes=1000)
    assert [chunk.size_bytes for chunk in chunks] == [0, 0, 10], "not while there is something else"


async def test_a_caller_that_has_room_for_no_more_gets_no_more() -> None:
    huge = [filled([100_000]), filled([])]
    answers = await Poller().poll(
        wants(huge), max_bytes=1000, min_bytes=1, max_wait_ms=LONG_MS, at_least_one=False
    )
    chunks = [answer for answer in answers if isinstance(answer, Chunk)]
    assert [(chunk.size_bytes, chunk.next_offset) for chunk in chunks] == [(0, 0), (0, 0)]
    assert [chunk.high_watermark for chunk in chunks] == [1, 0], "and does not wait for it"


async def test_every_partition_gets_its_turn() -> None:
    huge = [filled([100_000]) for _ in range(3)]
    poller = Poller()
    served: list[int] = []
    for _ in range(3):
        answers = await poller.poll(wants(huge), max_bytes=1000, min_bytes=1, max_wait_ms=0)
        sizes = [answer.size_bytes for answer in answers if isinstance(answer, Chunk)]
        served.append(sizes.index(100_000))
    assert sorted(served) == [0, 1, 2]


async def test_a_failed_position_keeps_what_was_read_before() -> None:
    setting = filled([10])
    read: list[Partition] = [setting.partition]
    asked = asyncio.ensure_future(
        Poller().poll([Want(read[0], 0)], max_bytes=1000, min_bytes=500, max_wait_ms=LONG_MS)
    )
    await asyncio.sleep(0)
    setting.follow(MEMBERS[1])
    setting.partition.wake()
    async with asyncio.timeout(5):
        (answer,) = await asked
    assert isinstance(answer, Chunk)
    assert answer.size_bytes == 10


async def test_what_did_not_fit_is_looked_at_again_only_where_there_is_more_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms: list[int] = []
    read = Partition.read

    async def noted(
        partition: Partition, offset: int, max_bytes: int, end: int | None, *, at_least_one: bool
    ) -> Chunk:
        rooms.append(max_bytes)
        return await read(partition, offset, max_bytes, end, at_least_one=at_least_one)

    monkeypatch.setattr(Partition, "read", noted)
    share = polling.SHARE_BYTES_MIN
    (chunk,) = await poll(wants([filled([700] * 3)]), max_bytes=1000)
    assert (chunk.next_offset, rooms) == (1, [1000])
    rooms.clear()
    settings = [filled([share * 3 // 4] * 3), filled([])]
    first, _ = await poll(wants(settings), max_bytes=2 * share)
    assert first.next_offset == 2, "what the other one leaves holds one more"
    assert rooms == [share, share, 2 * share - share * 3 // 4, 2 * share - first.size_bytes]
