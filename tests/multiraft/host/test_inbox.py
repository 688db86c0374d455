"""The inbox: bounded, in order, and never a heartbeat behind megabytes."""

from __future__ import annotations

import asyncio

from rakit.multiraft.inbox import Arrival, Inbox
from tests.multiraft.host.support import append


def arrival(size_bytes: int, *, urgent: bool = False) -> Arrival:
    return Arrival([], size_bytes, urgent)


async def test_a_full_inbox_lets_the_reader_wait_and_drops_nothing() -> None:
    woken: list[int] = []
    inbox = Inbox(100, lambda: woken.append(1))
    first, second, third = arrival(60), arrival(60), arrival(60)
    await inbox.put(first)
    waiting = [asyncio.create_task(inbox.put(each)) for each in (second, third)]
    await asyncio.sleep(0)
    assert len(inbox) == 1
    assert inbox.take(1000, 1000) == [first]
    await waiting[0]
    assert not waiting[1].done()
    assert inbox.take(1000, 1000) == [second]
    await waiting[1]
    assert inbox.take(1000, 1000) == [third]
    assert len(woken) == 3


async def test_an_empty_inbox_takes_what_is_larger_than_itself() -> None:
    inbox = Inbox(10, lambda: None)
    await inbox.put(arrival(1000))
    assert len(inbox) == 1


async def test_s17_what_is_urgent_comes_first_and_has_room_of_its_own() -> None:
    inbox = Inbox(100, lambda: None)
    bulk, beat = arrival(100), arrival(10, urgent=True)
    await inbox.put(bulk)
    await inbox.put(beat)
    assert inbox.take(1000, 1000) == [beat, bulk]


async def test_many_small_messages_count_for_what_it_takes_to_step_them() -> None:
    inbox = Inbox(1 << 20, lambda: None)
    for _ in range(8):
        await inbox.put(Arrival([append(10)] * 270, 50_000, urgent=True))
    assert [len(inbox.take(8 << 20, 0)) for _ in range(4)] == [2, 2, 2, 2]
    await inbox.put(arrival(1 << 20, urgent=True))
    assert len(inbox) == 1, "what was taken leaves room by its bytes"


async def test_a_turn_takes_a_bounded_part() -> None:
    inbox = Inbox(1000, lambda: None)
    for _ in range(10):
        await inbox.put(arrival(100))
    assert [len(inbox.take(250, 250)) for _ in range(4)] == [3, 3, 3, 1]
