"""A bell is heard once for any number of rings, before or while somebody listens."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from rakit.multiraft.bell import Bell


async def test_it_is_heard_once_however_often_and_whenever_it_was_rung() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.heard()
    assert not bell.is_rung
    listening = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    assert not listening.done()
    bell.ring()
    bell.ring()
    await listening
    assert not bell.is_rung


async def test_a_listener_that_is_cancelled_takes_no_ring_with_it() -> None:
    bell = Bell()
    listening = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    bell.ring()
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    async with asyncio.timeout(5):
        await bell.heard()


async def test_two_listeners_are_a_bug() -> None:
    bell = Bell()
    first = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="heard by one task"):
        await bell.heard()
    bell.ring()
    await first
