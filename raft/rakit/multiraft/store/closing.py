"""Closing a store without waiting for a disk that hangs (S13).

To close is to write out what is in memory, in a call of RocksDB that nobody can break off. So it is
made on a thread of its own, which ends with the process if the call does not come back.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from rakit.multiraft.store.rocks import RocksStore


async def close_in_time(store: RocksStore, seconds: float) -> bool:
    """Closes the store and raises what that raises; False when it does not end in time."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Exception | None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not ended.done():
            ended.set_result(error)

    def close() -> None:
        error: Exception | None = None
        try:
            store.close()
        except Exception as failed:  # raised where it is waited for
            error = failed
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=close, name="rakit-close", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            error = await ended
    except TimeoutError:
        return False
    if error is not None:
        raise error
    return True
