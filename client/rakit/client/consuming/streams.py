"""The streams of a membership, one after the other: opened, written, read, and opened anew.

One task reads the stream and hands on what it says at once, a second one writes. What is said, and
what is to be sent, is the session's; here is only how it travels.

Rules:

- A stream that breaks is opened anew, on another node where that may help, after a pause that grows
  with the failures in a row. A sign of life ends the row.
- A fence ends the session and not the membership: the next stream begins a new one. Where another
  process has taken the place of this one, or somebody has ended it, that is an error.
- Requests go out in the order in which they were put here, before commits and grants, which gather.
- What was put here for one stream does not go out on the next one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import grpc.aio

from rakit.api.v1.group_service_pb2 import SubscribeRequest, SubscribeResponse
from rakit.client.config import ClientConfig, GroupConfig
from rakit.client.connections import Connections, is_cancelled, is_nodes_fault
from rakit.client.errors import (
    LocalReason,
    MemberFencedError,
    RakitError,
    from_rpc_error,
    make_error,
)

if TYPE_CHECKING:
    SubscribeCall: TypeAlias = grpc.aio.StreamStreamCall[SubscribeRequest, SubscribeResponse]

#: The pause between attempts doubles up to this power.
_BACKOFF_STEPS_MAX: Final = 10
#: Fences after which another process, or a person, has decided that this member is no more.
_FINAL_FENCES: Final = frozenset({"INSTANCE_REPLACED", "LEFT", "GROUP_DELETED"})


class Member(Protocol):
    """Whose streams these are."""

    @property
    def is_leaving(self) -> bool:
        """The membership is to end: a stream's end is no failure any more."""
        ...

    def begun(self) -> Iterable[SubscribeRequest]:
        """A stream begins; returns its first requests."""
        ...

    def take(self, event: SubscribeResponse) -> None:
        """The stream has said something."""
        ...

    def gathered(self) -> SubscribeRequest | None:
        """Returns what else is to be sent now."""
        ...

    def broken(self) -> None:
        """The stream is over."""
        ...

    def fenced(self, error: RakitError) -> None:
        """The session is over, and a new one is about to begin."""
        ...


class _FencedError(Exception):
    """The session is over, and a new one may begin."""

    def __init__(self, error: RakitError) -> None:
        super().__init__(str(error))
        self.error = error


class Streams:
    """See the module. `run` lives from join to leave."""

    def __init__(
        self, connections: Connections, configs: tuple[ClientConfig, GroupConfig], member: Member
    ) -> None:
        self._connections = connections
        self._client_config, self._config = configs
        self._member = member
        self._outbox: deque[SubscribeRequest] = deque()
        self._bell = asyncio.Event()
        #: Attempts without a sign of life, in a row.
        self._failures = 0

    def send(self, request: SubscribeRequest) -> None:
        """Has a request sent on the stream of now."""
        self._outbox.append(request)
        self.wake()

    def wake(self) -> None:
        """There may be something gathered."""
        self._bell.set()

    async def run(self) -> None:
        """Keeps a stream open until the member has left, or raises what ended it."""
        now_s = asyncio.get_running_loop().time
        failing_since_s = 0.0
        while True:
            address = self._connections.pick()
            try:
                await self._stream(address)
            except _FencedError as fenced:
                self._member.fenced(fenced.error)
            except RakitError as error:
                if self._member.is_leaving:
                    # The session ends by itself, when its grace is over.
                    return
                self._failures += 1
                failing_since_s = now_s() if self._failures == 1 else failing_since_s
                if not error.retriable or self._is_too_long(now_s() - failing_since_s):
                    raise
                if is_nodes_fault(error):
                    self._connections.failed(address)
                await self.rest(self._failures)
            else:
                return

    def _is_too_long(self, failing_s: float) -> bool:
        timeout_ms = self._config.retry_timeout_ms
        return timeout_ms is not None and failing_s * 1000 >= timeout_ms

    async def rest(self, failures: int) -> None:
        """The pause after so many failures in a row."""
        config = self._client_config
        pause_ms = config.backoff_ms * 2 ** min(failures, _BACKOFF_STEPS_MAX)
        await asyncio.sleep(min(pause_ms, config.backoff_ms_max) / 1000 * random.uniform(0.5, 1))

    async def _stream(self, address: str) -> None:
        """One stream, from its join to its end; returns when the member has left."""
        stubs = self._connections.stubs(address)
        call = stubs.group.Subscribe()
        self._outbox.clear()
        self._outbox.extend(self._member.begun())
        self.wake()
        writer = asyncio.create_task(self._write(call))
        has_served = False
        try:
            while (event := await call.read()) is not grpc.aio.EOF:
                if not has_served:
                    has_served = True
                    self._connections.served(address)
                self._failures = 0
                assert isinstance(event, SubscribeResponse), "nothing else comes on this stream"
                self._member.take(event)
            if not self._member.is_leaving:
                raise make_error(LocalReason.UNREACHABLE, f"{address} ended the stream early")
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure, address)
            if isinstance(error, MemberFencedError) and error.fence_reason not in _FINAL_FENCES:
                raise _FencedError(error) from failure
            raise error from failure
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise make_error(LocalReason.CLOSED, "the client was closed") from None
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self._outbox.clear()
            self._member.broken()

    async def _write(self, call: SubscribeCall) -> None:
        """Sends what there is; a stream that is broken is noticed by whoever reads it."""
        try:
            while True:
                while self._outbox:
                    await call.write(self._outbox.popleft())
                if (request := self._member.gathered()) is not None:
                    await call.write(request)
                else:
                    self._bell.clear()
                    await self._bell.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
