"""Every gRPC method of the node: raw bytes in, one place where errors become statuses (S23).

The methods are registered without deserializers. A request that cannot be decoded would otherwise
be answered by the transport, with a bare UNKNOWN that tells a client nothing and promises nothing;
here it becomes INVALID_REQUEST like any other bad input.

Rules for what runs below:

- It raises `RakitError` for operating errors. Anything else is a bug: it is logged with its
  traceback and the client gets INTERNAL, whose outcome is UNKNOWN.
- `CancelledError` is never swallowed: the client has gone, there is nobody to answer.
- A call that arrives, or a stream that is open, while the node drains gets NODE_UNAVAILABLE, and
  the address of another node that is up.

Left out: authorisation, which will stand exactly here, before a request is parsed any further.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError, abort

logger = logging.getLogger(__name__)

RequestT = TypeVar("RequestT", bound=Message)
ResultT = TypeVar("ResultT")

#: A call without a deadline is treated as if it had this one: nothing waits for ever on the server.
DEFAULT_DEADLINE_S: Final = 60.0
#: An open stream may finish what it has taken when the node drains.
STREAM_GRACE_S: Final = 3.0
_TRANSPORT_ERRORS: Final = (
    grpc.aio.AbortError,
    grpc.aio.UsageError,
    # An operation on a call whose client has gone.
    grpc.aio.InternalError,
    asyncio.InvalidStateError,
)


class Context(Protocol):
    """What the node uses of a call in grpc.aio."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None when there is none."""
        ...

    async def abort(
        self, code: grpc.StatusCode, details: str = ..., trailing_metadata: Any = ...
    ) -> Any:
        """Ends the call. Raises."""
        ...

    async def read(self) -> Any:
        """The next message of the client's stream, or grpc.aio.EOF."""
        ...

    async def write(self, message: bytes) -> None:
        """Sends a message down the stream; waits while the client does not read."""
        ...

    async def send_initial_metadata(self, initial_metadata: tuple[()]) -> None:
        """Tells the client that its call has begun, before there is anything to answer."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """What a method may know of its caller."""

    # The listener that the caller came in by; hints name addresses that fit it.
    listener: str
    # On the clock of the event loop.
    deadline: float

    def remaining_s(self) -> float:
        """Seconds until the caller gives up; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


class Stream:
    """The two directions of a streaming call, as bytes."""

    __slots__ = ("_context", "_ends", "closing")

    def __init__(self, context: Context, closing: asyncio.Event) -> None:
        self._context = context
        self._ends: list[Callable[[], None]] = []
        # Set when the node drains: take no more requests, finish, and raise NODE_UNAVAILABLE.
        self.closing = closing

    async def read(self) -> bytes | None:
        """The next request; None when the client has finished sending."""
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def begin(self) -> None:
        """Tells the client that its call has begun, before there is anything to answer."""
        await self._context.send_initial_metadata(())

    async def write(self, message: Message) -> None:
        """Sends one answer; waits while the client does not read."""
        await self._context.write(message.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        """Sends one answer that is serialised already, so that nothing else of it is kept."""
        await self._context.write(data)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has a callback called when the call is over and the transport holds nothing of it."""
        self._ends.append(callback)

    def ended(self) -> None:
        """The call is over."""
        while self._ends:
            self._ends.pop()()


Unary = Callable[[Call, RequestT], Awaitable[Message]]
ServerStreaming = Callable[[Call, RequestT, Stream], Awaitable[None]]
Bidirectional = Callable[[Call, Stream], Awaitable[None]]


def draining_error() -> RakitError:
    """What every caller is told while the node stops."""
    return RakitError(
        error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
        "This node is stopping; another node serves the same calls.",
    )


class Gate:
    """Open while the node serves. Closing it refuses new calls and asks open streams to end."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        #: Where callers of a listener may go instead; "": nowhere. Put in once the node has joined.
        self.elsewhere: Callable[[str], str] = lambda _listener: ""

    def check(self) -> None:
        """Raises NODE_UNAVAILABLE while the node drains."""
        if self.closing.is_set():
            raise draining_error()

    def close(self) -> None:
        """From now on nothing new is taken."""
        self.closing.set()


class Methods:
    """Collects the methods of one service on one listener and makes the handler for the server."""

    def __init__(self, service: str, listener: str, gate: Gate) -> None:
        self._service = service
        self._listener = listener
        self._gate = gate
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def unary(
        self,
        name: str,
        request_type: type[RequestT],
        function: Unary[RequestT],
        *,
        waits: bool = False,
    ) -> None:
        """Registers a method with one request and one answer.

        One that `waits` only waits and reads: it is broken off when the node drains.
        """

        async def run(call: Call, data: bytes) -> Message:
            work = function(call, parsed(request_type, data))
            return await (self._until_closing(work, 0.0) if waits else work)

        self.raw_unary(name, run)

    def raw_unary(self, name: str, function: Callable[[Call, bytes], Awaitable[Message]]) -> None:
        """Registers a method that parses its request itself."""

        async def behave(data: bytes, context: Context) -> bytes:
            try:
                self._gate.check()
                return (await function(self._call(context), data)).SerializeToString()
            except Exception as error:
                await self._fail(name, context, error)

        self._methods[name] = grpc.unary_unary_rpc_method_handler(behave)

    def server_stream(
        self, name: str, request_type: type[RequestT], function: ServerStreaming[RequestT]
    ) -> None:
        """Registers a method with one request and a stream of answers."""

        async def behave(data: bytes, context: Context) -> None:
            stream = Stream(context, self._gate.closing)
            try:
                self._gate.check()
                request = parsed(request_type, data)
                work = function(self._call(context, streaming=True), request, stream)
                await self._until_closing(work, 0.0)
            except Exception as error:
                # An error reaches the client behind what was written, and is waited for.
                await self._fail(name, context, error)
            finally:
                stream.ended()

        self._methods[name] = grpc.unary_stream_rpc_method_handler(behave)

    def bidirectional(self, name: str, function: Bidirectional) -> None:
        """Registers a method with a stream in each direction."""

        async def behave(_requests: object, context: Context) -> None:
            stream = Stream(context, self._gate.closing)
            try:
                self._gate.check()
                work = function(self._call(context, streaming=True), stream)
                await self._until_closing(work, STREAM_GRACE_S)
            except Exception as error:
                await self._fail(name, context, error)
            finally:
                stream.ended()

        self._methods[name] = grpc.stream_stream_rpc_method_handler(behave)

    def handler(self) -> grpc.GenericRpcHandler:
        """What `server.add_generic_rpc_handlers` takes."""
        return grpc.method_handlers_generic_handler(self._service, self._methods)

    @property
    def names(self) -> Mapping[str, object]:
        """The registered methods, by name."""
        return self._methods

    def _call(self, context: Context, *, streaming: bool = False) -> Call:
        remaining = context.time_remaining()
        if remaining is None:
            remaining = float("inf") if streaming else DEFAULT_DEADLINE_S
        return Call(self._listener, asyncio.get_running_loop().time() + remaining)

    async def _fail(self, name: str, context: Context, error: Exception) -> NoReturn:
        """Ends a call with what went wrong in it. Raises, whatever that was."""
        leaves = _leaves(error)
        for leaf in leaves:
            if isinstance(leaf, _TRANSPORT_ERRORS):
                # The call has ended already: the client has gone, or it was aborted.
                raise leaf from None
            if not isinstance(leaf, RakitError):
                where = {"method": f"{self._service}/{name}"}
                logger.error("a call failed", extra=where, exc_info=error)
                await abort(context, internal_error())
        await abort(context, self._hinted(leaves[0]))

    def _hinted(self, error: RakitError) -> RakitError:
        """The error; that of a node that stops with where else its caller may go."""
        unavailable = error.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE
        if not (unavailable and self._gate.closing.is_set()):
            return error
        if address := self._gate.elsewhere(self._listener):
            error.metadata.setdefault("other_address", address)
        return error

    async def _until_closing(self, work: Awaitable[ResultT], grace_s: float) -> ResultT:
        """Runs something long; when the node drains it gets the grace to end by itself."""
        running = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._gate.closing.wait())
        ends: set[asyncio.Future[Any]] = {running, closing}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await asyncio.wait({running}, timeout=grace_s)
            if not running.done():
                # What a stream has taken and not answered may yet be applied.
                raise draining_error().as_unknown() if grace_s else draining_error()
            return await running
        finally:
            closing.cancel()
            running.cancel()
            # Also where it is done: the client may have gone at the same moment, and nobody asks.
            await asyncio.gather(running, return_exceptions=True)


def _leaves(error: Exception) -> list[Any]:
    """The errors themselves: those of a stream come in a group, one from each of its tasks."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    group = cast("ExceptionGroup[Exception]", error)
    return [leaf for each in group.exceptions for leaf in _leaves(each)]


def internal_error() -> RakitError:
    """What a client hears of a bug: nothing but that there was one."""
    return RakitError(
        error_pb2.ERROR_REASON_INTERNAL,
        "This is a bug in the server; the node's log has the details.",
    )


def parsed(request_type: type[RequestT], data: bytes) -> RequestT:
    """The request, or INVALID_REQUEST where the bytes are no such message (S23)."""
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        # The names of the opaque twins are nobody's business outside.
        name = request_type.DESCRIPTOR.name.removeprefix("Opaque")
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST, f"The request is not a valid {name} message."
        ) from error
