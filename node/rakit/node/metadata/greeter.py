"""Calls to nodes by address, before and beside the links that the host keeps by node id.

`resolve` turns seeds into addresses: a DNS name stands for all of them (contract 19). `Greeter`
keeps one channel for each address that is called, up to a limit, the longest unused one giving way.

A call answers None for every failure of the transport: for those who decide on the answers, a node
that cannot be reached, refuses, or speaks another protocol is a node that did not answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import grpc
import grpc.aio

from rakit.node.calls import ChannelClosedError, on_channel
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_service_pb2_grpc import FormationServiceStub

if TYPE_CHECKING:
    from rakit.peer.v1.metadata_service_pb2_grpc import FormationServiceAsyncStub

Connect: TypeAlias = Callable[[str], grpc.aio.Channel]
#: More addresses than a cluster has nodes that are being looked for at one time.
CHANNELS_COUNT_MAX: Final = 256
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the seeds stand for at the moment."""

    addresses: tuple[str, ...]
    #: Names without an address.
    unresolved: tuple[str, ...]


async def resolve(seeds: Iterable[str]) -> Resolved:
    """Looks up all seeds at once. A name with IPv4 addresses stands for these alone.

    A node listens on one of the two families as a rule; an address of the other family would be a
    seed that never answers.
    """
    names = sorted(set(seeds))
    found = await asyncio.gather(*(_lookup(name) for name in names))
    addresses = {address for each in found for address in each}
    unresolved = tuple(name for name, each in zip(names, found, strict=True) if not each)
    return Resolved(tuple(sorted(addresses)), unresolved)


async def _lookup(seed: str) -> list[str]:
    host, _, port = seed.rpartition(":")
    host = host.strip("[]")
    try:
        return [_joined(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass  # not a literal address but a name, which is what the rest is about
    try:
        loop = asyncio.get_running_loop()
        entries = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # The second is what the resolver says of a text that cannot be a name at all.
        return []
    families = {entry[0] for entry in entries}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    hosts = {str(entry[4][0]) for entry in entries if entry[0] == family}
    return [_joined(each, port) for each in sorted(hosts)]


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Greeter:
    """Formation calls to addresses."""

    def __init__(self, connect: Connect, timeout_ms: int) -> None:
        self._connect = connect
        self._timeout = timeout_ms / 1000
        # The longest unused first.
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def greet(self, address: str, standing: wire.Standing) -> wire.GreetResponse | None:
        """Asks who is there and where it stands."""
        call = self._stub(address).Greet(
            wire.GreetRequest(standing=standing), timeout=self._timeout
        )
        return await _answer(call)

    async def ask_promise(
        self, address: str, request: wire.PromiseRequest
    ) -> wire.PromiseResponse | None:
        """Asks for a promise."""
        return await _answer(self._stub(address).Promise(request, timeout=self._timeout))

    async def join(
        self, address: str, request: wire.JoinRequest, timeout_seconds: float
    ) -> wire.JoinResponse | None:
        """Asks to be admitted."""
        return await _answer(self._stub(address).Join(request, timeout=timeout_seconds))

    async def give_up(
        self, address: str, request: wire.GiveUpRequest, timeout_seconds: float
    ) -> wire.GiveUpResponse | None:
        """Asks whether a store can be spared."""
        return await _answer(self._stub(address).GiveUp(request, timeout=timeout_seconds))

    def _stub(self, address: str) -> FormationServiceAsyncStub:
        channel = self._channels.pop(address, None) or self._connect(address)
        self._channels[address] = channel
        if len(self._channels) > CHANNELS_COUNT_MAX:
            oldest = next(iter(self._channels))
            closing = asyncio.ensure_future(self._channels.pop(oldest).close(grace=1.0))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return FormationServiceStub(channel)

    async def close(self) -> None:
        """Closes every channel."""
        channels = list(self._channels.values())
        self._channels.clear()
        await asyncio.gather(*(channel.close() for channel in channels), *self._closing)


async def _answer(call: Awaitable[_Answer]) -> _Answer | None:
    try:
        with on_channel():
            return await call
    except (grpc.aio.AioRpcError, ChannelClosedError):
        return None
