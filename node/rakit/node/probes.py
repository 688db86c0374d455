"""`/livez`, `/readyz` and `/filledz` over HTTP/1.1, for supervisors that ask nothing else.

Three questions that are easy to mix up. Alive: the event loop answers; it never depends on a
majority or on the disk, or a cut of the network would make a supervisor kill good nodes. Ready: the
node has joined its cluster and is not draining, so clients may be sent here. Filled: it is ready,
and every replica that it should hold votes again (`filling`), so another node may be taken away; of
one that lost its disk that is true much later. All answer with a small JSON object and a status
code, 503 for no; gRPC's own health service says the first two on the client listeners.

Rules: GET and HEAD, one request a connection, which is closed after the answer. What a request may
be in bytes and time is bounded, and so is how many there are at once: beyond it a connection is
closed without an answer.

Left out: everything else. It is off unless it is asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from rakit.node.config import Address

#: How far a node has come, as those are told who ask whether it is ready.
State: TypeAlias = Literal["starting", "ready", "draining"]

#: Of the request's line and headers; a probe's are a tenth of it.
REQUEST_BYTES_MAX: Final = 4 << 10
#: From the connection to the end of the answer; supervisors give up after a second by default.
REQUEST_S: Final = 5.0
CONNECTIONS_COUNT_MAX: Final = 64
_Answer: TypeAlias = tuple[HTTPStatus, dict[str, object]]


class Probes:
    """The HTTP listener of a node, from `open` to `close`."""

    def __init__(self, state: Callable[[], State], missing_count: Callable[[], int]) -> None:
        self._state = state
        #: Replicas that are still being filled; asked for while the node is ready.
        self._missing_count = missing_count
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        #: Where it listens, once it is open.
        self.address: Address

    async def open(self, address: Address) -> None:
        """Begins to listen; raises `OSError`."""
        self._server = server = await asyncio.start_server(
            self._serve, address.host, address.port, limit=REQUEST_BYTES_MAX
        )
        self.address = Address(address.host, server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops at once, with what is under way, if it was opened."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CONNECTIONS_COUNT_MAX:
            writer.close()
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked is slow or gone, and asks again
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            writer.write(_encoded(_problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)))
        else:
            line = head.split(b"\r\n", 1)[0].decode("latin-1")
            writer.write(_encoded(self._answer(line), with_body=not line.startswith("HEAD ")))
        await writer.drain()

    def _answer(self, request_line: str) -> _Answer:
        parts = request_line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _problem(HTTPStatus.BAD_REQUEST)
        method, target, _version = parts
        if method not in {"GET", "HEAD"}:
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED)
        match target.partition("?")[0]:
            case "/livez":
                return HTTPStatus.OK, {"alive": True}
            case "/readyz":
                state = self._state()
                ready = state == "ready"
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                return status, {"ready": ready, "state": state}
            case "/filledz":
                state = self._state()
                if state != "ready":
                    return HTTPStatus.SERVICE_UNAVAILABLE, {"filled": False, "state": state}
                missing = self._missing_count()
                status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
                return status, {
                    "filled": not missing,
                    "state": state,
                    "missing_replica_count": missing,
                }
            case _:
                return _problem(HTTPStatus.NOT_FOUND)


def _problem(status: HTTPStatus) -> _Answer:
    return status, {"error": f"{status.phrase}: there are GET /livez, /readyz and /filledz"}


def _encoded(answer: _Answer, *, with_body: bool = True) -> bytes:
    status, content = answer
    body = json.dumps(content).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + body if with_body else head
