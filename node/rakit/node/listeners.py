"""The servers of a node: gRPC for each client listener and for peers, and HTTP for probes.

A server listens before the node has joined its cluster: peers must be able to ask each other in
order to found one, and a supervisor must be able to ask whether the process is alive. Until the
services are installed their methods answer NODE_UNAVAILABLE.

Each client listener has a server of its own, because that is how a call knows by which listener it
came, and so which address a hint must name (contract 19).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from rakit.api.v1 import error_pb2
from rakit.multiraft.config import peer_server_options
from rakit.node.config import Address, Listener, NodeConfig
from rakit.node.errors import RakitError, abort
from rakit.node.health import LIVENESS, READINESS, Health, add_reflection
from rakit.node.probes import Probes, State
from rakit.node.services.handlers import Context, Gate, Methods
from rakit.node.services.limits import (
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
)

#: Calls and streams of all clients of one listener; beyond it the transport refuses.
CALLS_MAX: Final = 8192
#: What clients may do and what the server does, in milliseconds (contract 17).
CLIENT_PING_MS_MIN: Final = 5_000
SERVER_PING_MS: Final = 20_000
PING_TIMEOUT_MS: Final = 20_000
_ANY_IPV4: Final = {"::": ("0.0.0.0",)}  # noqa: S104 - what the operator asked for
#: What a machine says that has no address of this kind.
_NO_SUCH_ADDRESS: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class ListenError(Exception):
    """A listener could not be opened; the text is for the person who chose its address."""


def client_options() -> list[tuple[str, int]]:
    """The options of a client listener."""
    return [
        # An oversized batch must reach our own check and get our own error (contract 5).
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", 2 * MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        # Two nodes that share a port by mistake must fail, not split the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", SERVER_PING_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A little less than what is promised: a client's timer may be early.
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_MS_MIN * 4 // 5),
    ]


class _NotYet(grpc.GenericRpcHandler):
    """Answers for services that are not installed yet; it stands behind all others."""

    def __init__(self) -> None:
        self.is_ready = False

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method that nobody else has."""
        if self.is_ready or not handler_call_details.method.startswith("/rakit."):
            return None
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _requests: object, context: Context) -> None:
        await abort(context, starting_error())


def starting_error() -> RakitError:
    """What a caller is told before the node has joined."""
    return RakitError(
        error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
        "This node is starting and has not joined its cluster yet.",
        {"retry_delay_ms": "200"},
    )


@dataclass(slots=True)
class ClientListener:
    """One client listener, open."""

    name: str
    address: Address
    server: grpc.aio.Server
    not_yet: _NotYet


class Listeners:
    """All servers of a node."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self.gate = Gate()
        # Peers are served until the very end: a stopping leader still has followers.
        self.peer_gate = Gate()
        self._health = Health()
        self._services: tuple[str, ...] = ()
        #: There once the services are.
        self._missing_count: Callable[[], int]
        self._probes = Probes(lambda: self.state, self._missing)
        self.clients = [self._open(each) for each in config.listen]
        self.peer_server = grpc.aio.server(options=peer_server_options())
        self.peer_address = _bound(self.peer_server, config.peer_listen, "--peer-listen")
        #: For the host to accept what comes in.
        self.lane_socket = _bound_socket(
            config.lane_listen or Address(config.peer_listen.host, 0), "--lane-listen"
        )

    def _open(self, listener: Listener) -> ClientListener:
        server = grpc.aio.server(options=client_options(), maximum_concurrent_rpcs=CALLS_MAX)
        address = _bound(server, listener.address, "--listen")
        self._health.add_to(server)
        not_yet = _NotYet()
        server.add_generic_rpc_handlers((not_yet,))
        return ClientListener(listener.name, address, server, not_yet)

    @property
    def advertised(self) -> dict[str, str]:
        """What clients are told, by listener."""
        told = {each.name: str(each.address) for each in self._config.advertise}
        return {each.name: told.get(each.name, str(each.address)) for each in self.clients}

    @property
    def peer_advertised(self) -> str:
        """What other nodes are told."""
        return str(self._config.peer_advertise or self.peer_address)

    @property
    def state(self) -> State:
        """How far this node has come."""
        if self.gate.closing.is_set():
            return "draining"
        return "ready" if self._services else "starting"

    def _missing(self) -> int:
        return self._missing_count()

    @property
    def http_address(self) -> Address | None:
        """Where probes are answered over HTTP; None: nowhere."""
        return None if self._config.http_listen is None else self._probes.address

    async def start(self) -> None:
        """Begins to answer: health at once, everything else once it is installed."""
        await self._health.say(LIVENESS, serving=True)
        await self._health.say([READINESS], serving=False)
        for client in self.clients:
            await client.server.start()
        await self.peer_server.start()
        if (address := self._config.http_listen) is not None:
            try:
                await self._probes.open(address)
            except OSError as error:
                raise _cannot_listen(address, "--http-listen") from error

    async def install(
        self,
        services: Iterable[tuple[str, Callable[[Methods], None]]],
        missing_count: Callable[[], int],
    ) -> None:
        """Opens the services on every client listener; the node has joined.

        `missing_count` tells how many of its replicas are still being filled.
        """
        self._missing_count = missing_count
        services = tuple(services)
        self._services = tuple(name for name, _ in services)
        for client in self.clients:
            for name, register in services:
                methods = Methods(name, client.name, self.gate)
                register(methods)
                client.server.add_generic_rpc_handlers((methods.handler(),))
            if self._config.insecure or client.address.is_loopback:
                add_reflection(client.server, self._services)
            client.not_yet.is_ready = True
        await self._health.say([READINESS, *self._services], serving=True)

    async def drain(self, grace_s: float) -> None:
        """Not ready any more; refuses calls, lets what is under way end, closes client servers."""
        await self._health.say([READINESS, *self._services], serving=False)
        self.gate.close()
        for client in self.clients:
            await client.server.stop(grace_s)

    async def close(self) -> None:
        """Closes everything at once."""
        self.gate.close()
        self.peer_gate.close()
        for server in (*(each.server for each in self.clients), self.peer_server):
            await server.stop(0)
        self.lane_socket.close()
        await self._probes.close()


def _bound(server: grpc.aio.Server, address: Address, flag: str) -> Address:
    """Opens the port. Raises ListenError, mostly because somebody else has it."""
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise _cannot_listen(address, flag) from error
    return Address(address.host, port)


def _bound_socket(address: Address, flag: str) -> socket.socket:
    """Opens the port; nobody is told of it yet, and who connects waits. Raises ListenError.

    Of several addresses of a host the first counts that this machine has. Any of IPv6 are any of
    IPv4 as well, as for gRPC.
    """
    missing: OSError | None = None
    try:
        found = [
            each
            for host in (address.host, *_ANY_IPV4.get(address.host, ()))
            for each in socket.getaddrinfo(
                host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        ]
        for family, _, _, _, where in found:
            try:
                return _listening(family, where)
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
    except OSError as error:
        raise _cannot_listen(address, flag) from error
    raise _cannot_listen(address, flag) from missing


def _listening(family: int, where: Any) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)
        # Two sockets may be bound to one port until one of them listens.
        bound.listen()
    except BaseException:
        bound.close()
        raise
    return bound


def _cannot_listen(address: Address, flag: str) -> ListenError:
    return ListenError(
        f"cannot listen on {address} ({flag}): the port is in use, or the address is not one of"
        " this machine"
    )
