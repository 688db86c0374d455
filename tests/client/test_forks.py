"""A process that makes calls starts others, which become what they should be.

Run as a program it does so and says how its children ended: gRPC keeps the first loop it meets.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import uvloop
from grpc import (
    RpcMethodHandler,
    aio,
    method_handlers_generic_handler,
    unary_unary_rpc_method_handler,
)

CHILDREN = 100
CALLERS = 16


async def start_children_while_calling() -> set[int]:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    server = aio.server()
    handlers: dict[str, RpcMethodHandler[bytes, bytes]] = {
        "Call": unary_unary_rpc_method_handler(echo)
    }
    server.add_generic_rpc_handlers((method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    called, done = asyncio.Event(), False

    async def call() -> None:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call_once: aio.UnaryUnaryMultiCallable[bytes, bytes]
            call_once = channel.unary_unary("/test.Echo/Call")
            while not done:
                await call_once(b"x" * 2000)
                called.set()

    callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
    codes: set[int] = set()
    for _ in range(CHILDREN):
        called.clear()
        await called.wait()
        process = await asyncio.create_subprocess_exec("true")
        codes.add(await process.wait())
    done = True
    await asyncio.gather(*callers)
    await server.stop(None)
    return codes


def test_no_child_dies_of_the_threads_of_its_parent() -> None:
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    program = [sys.executable, __file__]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["0"], done.stderr


if __name__ == "__main__":
    for each in uvloop.run(start_children_while_calling()):
        sys.stdout.write(f"{each}\n")
    sys.stdout.flush()
    os._exit(0)
