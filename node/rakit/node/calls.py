"""Calls to other nodes that end because their channel was closed.

A channel is closed while calls are under way on it whenever a node is found at another address.
grpc.aio then raises `CancelledError` in whoever waits for an answer, as if the task had been
cancelled. Nobody cancelled it, so nobody catches it: the task would vanish without a word, and with
it the answer that somebody else waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class ChannelClosedError(Exception):
    """The channel was closed under the call; what it asked for may have been done or not."""


@contextmanager
def on_channel() -> Generator[None]:
    """Around each wait for a call: tells a closed channel from a task that is to end."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ChannelClosedError("the channel was closed while the call was under way") from error
