"""Work on a disk that may hang, without waiting for it for ever (S13).

To close a store is to write out what is in memory, in a call of RocksDB that nobody can break off.
So it is made on a thread of its own, which ends with the process if the call does not come back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from rakit.multiraft.store.rocks import RocksStore

ResultT = TypeVar("ResultT")


async def in_time(call: Callable[[], ResultT], seconds: float) -> ResultT:
    """Returns or raises what the call does; ``TimeoutError`` when it does not end in time."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[ResultT] = loop.create_future()

    def settle(result: ResultT | None, error: Exception | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(cast("ResultT", result))

    def run() -> None:
        result: ResultT | None = None
        error: Exception | None = None
        try:
            result = call()
        except Exception as failed:  # raised where it is waited for
            error = failed
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="rakit-disk", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await ended


async def close_in_time(store: RocksStore, seconds: float) -> bool:
    """Closes the store and raises what that raises; False when it does not end in time."""
    try:
        await in_time(store.close, seconds)
    except TimeoutError:
        return False
    return True
