"""A name that comes to stand for another address: `python -m` this in a place.

Arguments: the file of hosts, two addresses, and whose channel it is, a `peer`'s or a `client`'s. It
ends when a call has reached the second address through the channel that was open to the first.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from rakit.client.config import ClientConfig
from rakit.client.connections import Connections
from rakit.multiraft.config import LinkConfig, peer_channel_options

NAME: Final = "pod.peers.some-namespace.svc"
PORT: Final = 7070


def point(hosts: Path, address: str) -> None:
    """In place, since the file is mounted."""
    hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")


async def serve(address: str) -> grpc.aio.Server:
    server = grpc.aio.server()

    async def where(_request: bytes, _context: object) -> bytes:
        return address.encode()

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(where)
    handler = grpc.method_handlers_generic_handler("test.Where", {"Ask": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"{address}:{PORT}")
    await server.start()
    return server


def options(of: str) -> list[tuple[str, int]]:
    if of == "peer":
        return peer_channel_options(LinkConfig(), bulk=False)
    return Connections(ClientConfig(bootstrap=(f"{NAME}:{PORT}",)))._options()


async def main(hosts: Path, first: str, second: str, of: str) -> None:
    point(hosts, first)
    server = await serve(first)
    async with grpc.aio.insecure_channel(f"{NAME}:{PORT}", options(of)) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Where/Ask")
        assert await ask(b"") == first.encode()
        await server.stop(0)
        # A call on the connection that is ending would end with it.
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        server = await serve(second)
        point(hosts, second)
        # It fails while the channel still knows the old address only; then it connects.
        assert await ask(b"", wait_for_ready=True) == second.encode()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
