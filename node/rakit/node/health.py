"""Health and reflection: two small services of other people, wrapped so that they have types.

Health (grpc.health.v1): "" and "liveness" say that the event loop answers and never depend on a
majority, or a partition of the network would make a supervisor kill good nodes. "readiness" and the
names of the services say that the node has joined and takes calls.

Reflection lets tools list the services. It is open to whoever gets in, as long as there is no
other door: no listener asks who its callers are yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

LIVENESS: Final = ("", "liveness")
READINESS: Final = "readiness"
# The packages ship no types; these casts are where that ends.
_health = cast("Any", health)
_health_pb2 = cast("Any", health_pb2)
_health_pb2_grpc = cast("Any", health_pb2_grpc)


class LateServer:
    """A server that may be running already, as generated code wants to see one.

    Generated code registers each handler in two ways. The second works before the start only, and
    only makes finding a method a little faster.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """The way that always works."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The way that is not taken."""


def late(server: grpc.aio.Server) -> Any:
    """The server for an `add_..._to_server` of generated code."""
    return LateServer(server)


class Health:
    """What this process says of itself, on all of its client listeners."""

    def __init__(self) -> None:
        self._servicer = _health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves it there."""
        _health_pb2_grpc.add_HealthServicer_to_server(self._servicer, late(server))

    async def say(self, names: Iterable[str], *, serving: bool) -> None:
        """Sets the status of names."""
        statuses = _health_pb2.HealthCheckResponse
        for name in names:
            await self._servicer.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serves the descriptions of the services."""
    # It is not needed for serving and takes a while to import.
    from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc  # noqa: PLC0415

    untyped, generated = cast("Any", reflection), cast("Any", reflection_pb2_grpc)
    names = (*services, str(_health.SERVICE_NAME), str(untyped.SERVICE_NAME))
    generated.add_ServerReflectionServicer_to_server(
        untyped.aio.ReflectionServicer(names), late(server)
    )
