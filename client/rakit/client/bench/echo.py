"""gRPC as a reference: a process that sends back what it gets, and clients for it.

The least that any service over gRPC in Python costs on this machine: two processes, one stream,
bytes that nobody parses, uvloop on both sides, reads and writes instead of iteration (which is ten
percent slower). Whoever compares unary calls uses `echo_process` with calls of its own.
`python -m rakit.client.bench.echo` is the server; it prints its port and serves until its stdin
ends, so it cannot outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import grpc
import grpc.aio

from rakit.client.config import MESSAGE_BYTES_MAX

if sys.platform == "linux":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

if TYPE_CHECKING:
    # Generic in the stubs for type checkers only.
    Context = grpc.aio.ServicerContext[bytes, bytes]
    Call = grpc.aio.StreamStreamCall[bytes, bytes]

_SERVICE: Final = "rakit.bench.Echo"
#: The same without a stream: a call for each message.
CALL: Final = f"/{_SERVICE}/Call"
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
)


async def measure_round_trips(size_bytes: int, seconds: float) -> list[float]:
    """Returns the times in seconds of round trips with one message in flight."""
    message = bytes(size_bytes)
    times: list[float] = []
    async with echo_process() as echo, _stream(echo.address) as call:
        began_s = time.perf_counter()
        while (sent_s := time.perf_counter()) - began_s < seconds or not times:
            await call.write(message)
            await call.read()
            times.append(time.perf_counter() - sent_s)
    return times


async def measure_rate(size_bytes: int, window: int, seconds: float) -> float:
    """Returns MB/s that went there and came back, with so many messages in flight."""
    message = bytes(size_bytes)
    room = asyncio.Semaphore(window)
    async with echo_process() as echo, _stream(echo.address) as call:

        async def send() -> None:
            while True:
                await room.acquire()
                await call.write(message)

        sending = asyncio.create_task(send())
        try:
            began_s = time.perf_counter()
            count = 0
            while (passed_s := time.perf_counter() - began_s) < seconds or not count:
                await call.read()
                count += 1
                room.release()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return count * size_bytes / passed_s / 1e6


@dataclass(frozen=True, slots=True)
class Echo:
    """The server's process."""

    address: str
    pid: int


@asynccontextmanager
async def echo_process() -> AsyncGenerator[Echo]:
    """Starts the server, and ends it afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rakit.client.bench.echo"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for us.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None, "stdout is a pipe"
        port = int(await process.stdout.readline())
        yield Echo(f"127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _stream(address: str) -> AsyncGenerator[Call]:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        method = cast("Callable[..., Call]", channel.stream_stream(f"/{_SERVICE}/Stream"))
        call = method(wait_for_ready=True)
        yield call
        call.cancel()


async def _echo(_requests: object, context: Context) -> None:
    while True:
        # The end of a stream is a marker object, which the stubs do not know of.
        message = cast("object", await context.read())
        if not isinstance(message, bytes):
            return
        await context.write(message)


async def _echo_call(message: bytes, _context: Context) -> bytes:
    return message


async def serve() -> None:
    """Serves until stdin ends."""
    server = grpc.aio.server(options=_OPTIONS)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(_echo)
    call: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo_call)
    handlers = {"Stream": handler, "Call": call}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
