"""Follows what the cluster says of some topics, so that a moved leader is known at once.

A short cut and not a need: whatever is stale here costs a detour, because every node serves every
call. So nothing that goes wrong with a watch is an error of the client; it is begun anew, on
another node, after a pause. It works through a load balancer like any other call.

Changes apply to topics that are known already; `metadata` decides which statement is newer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import grpc.aio

from rakit.api.v1.cluster_service_pb2 import WatchClusterRequest, WatchClusterResponse
from rakit.client.connections import Connections
from rakit.client.errors import RakitError, from_rpc_error

#: A watch names at most so many topics; who uses more watches them all.
TOPICS_COUNT_MAX: Final = 256
PAUSE_S: Final = 1.0
#: Something between us and the cluster does not know the call.
PAUSE_S_MAX: Final = 30.0


class Watch:
    """One stream at a time, for as long as the client lives."""

    def __init__(
        self, connections: Connections, take: Callable[[WatchClusterResponse], None]
    ) -> None:
        self._connections = connections
        self._take = take
        self._names: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def follow(self, name: str) -> None:
        """Watches one more topic."""
        if name in self._names:
            return
        self._names.add(name)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause_s = PAUSE_S
        while True:
            self._changed.clear()
            streaming = asyncio.create_task(self._stream())
            changing = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({streaming, changing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (streaming, changing):
                    task.cancel()
                ended, _ = await asyncio.gather(streaming, changing, return_exceptions=True)
            if isinstance(ended, asyncio.CancelledError):
                # There is one more topic to watch.
                continue
            if isinstance(ended, BaseException):
                raise ended
            pause_s = PAUSE_S if ended else min(2 * pause_s, PAUSE_S_MAX)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _stream(self) -> bool:
        """One stream, until it breaks. Tells whether anything came."""
        names = sorted(self._names) if len(self._names) <= TOPICS_COUNT_MAX else ()
        came = False
        try:
            stubs = self._connections.stubs(self._connections.pick())
            call = stubs.cluster.WatchCluster(WatchClusterRequest(topics=names))
            try:
                async for answer in call:
                    came = True
                    self._take(answer)
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure, stubs.address) from failure
            finally:
                call.cancel()
        except RakitError:
            # Whoever sends or reads meets the same trouble, and reports it.
            return came
        return came
