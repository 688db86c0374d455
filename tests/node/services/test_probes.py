"""`/livez` and `/readyz`: what a supervisor hears of a node that starts, serves, drains."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rakit.node import probes
from rakit.node.app import Node
from rakit.node.config import Address, load
from rakit.node.probes import Probes, State
from tests.node.services.served import SMALL_RESERVE, serve

HTTP = "--http-listen=127.0.0.1:0"


async def ask(address: Address, path: str, method: str = "GET") -> tuple[int, Any]:
    """What a client of the standard library gets: the status, and the JSON if there is any."""

    def exchange() -> tuple[int, Any]:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["Connection"] == "close"
            body = answer.read()
            return answer.status, json.loads(body) if body else None
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


async def test_a_node_that_serves_is_alive_and_ready_until_it_drains(tmp_path: Path) -> None:
    async with serve(tmp_path / "d", HTTP) as served:
        address = served.node.listeners.http_address
        assert address is not None
        assert await ask(address, "/livez") == (200, {"alive": True})
        assert await ask(address, "/readyz") == (200, {"ready": True, "state": "ready"})
        whole = {"filled": True, "state": "ready", "missing_replica_count": 0}
        assert await ask(address, "/filledz") == (200, whole)
        served.node.listeners.gate.close()
        assert await ask(address, "/livez?verbose") == (200, {"alive": True})
        assert await ask(address, "/readyz") == (503, {"ready": False, "state": "draining"})
        assert await ask(address, "/filledz") == (503, {"filled": False, "state": "draining"})
    with pytest.raises(ConnectionRefusedError):
        await ask(address, "/livez")


async def test_before_it_has_joined_a_node_is_alive_and_not_ready(tmp_path: Path) -> None:
    argv = ["--name=one", f"--data-dir={tmp_path / 'd'}", "--listen=127.0.0.1:0", HTTP]
    argv += ["--peer-listen=127.0.0.1:0", "--seeds=127.0.0.1:1", SMALL_RESERVE]
    node = Node(load(argv, {}))
    running = asyncio.create_task(node.run())
    try:
        await asyncio.wait_for(node.listening.wait(), 10)
        address = node.listeners.http_address
        assert address is not None
        assert await ask(address, "/livez") == (200, {"alive": True})
        assert await ask(address, "/readyz") == (503, {"ready": False, "state": "starting"})
        assert await ask(address, "/filledz") == (503, {"filled": False, "state": "starting"})
    finally:
        node.stop()
        assert (await asyncio.wait_for(running, 30)).code == 0


async def test_a_node_that_was_not_asked_to_listens_for_no_probes(tmp_path: Path) -> None:
    async with serve(tmp_path / "d") as served:
        assert served.node.listeners.http_address is None


async def test_a_port_that_somebody_else_has_ends_the_node_with_code_2(tmp_path: Path) -> None:
    async with opened() as taken:
        argv = ["--name=one", f"--data-dir={tmp_path / 'd'}", "--listen=127.0.0.1:0"]
        argv += ["--peer-listen=127.0.0.1:0", f"--http-listen={taken.address}", SMALL_RESERVE]
        end = await asyncio.wait_for(Node(load(argv, {})).run(), 30)
    assert end.code == 2
    assert end.reason.startswith(f"cannot listen on {taken.address} (--http-listen)")


@asynccontextmanager
async def opened(state: State = "ready", missing_count: int = 0) -> AsyncGenerator[Probes]:
    one = Probes(lambda: state, lambda: missing_count)
    await one.open(Address("127.0.0.1", 0))
    try:
        yield one
    finally:
        await one.close()


async def raw(address: Address, request: bytes) -> bytes:
    """Everything that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /livez\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\xff\xfe\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /livez HTTP/2.0\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 431 "),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 5_000, b"HTTP/1.1 431 "),
    ],
    ids=ascii,
)
async def test_whatever_else_is_asked_is_refused_and_ends(request_: bytes, line: bytes) -> None:
    async with opened() as one:
        answer = await raw(one.address, request_)
        assert answer.startswith(line)
        assert b"Connection: close" in answer
        assert await ask(one.address, "/livez") == (200, {"alive": True})


async def test_a_node_that_lacks_replicas_is_ready_and_not_filled() -> None:
    async with opened(missing_count=3) as one:
        assert await ask(one.address, "/readyz") == (200, {"ready": True, "state": "ready"})
        lacks = {"filled": False, "state": "ready", "missing_replica_count": 3}
        assert await ask(one.address, "/filledz") == (503, lacks)


async def test_a_head_is_answered_without_a_body() -> None:
    async with opened("draining") as one:
        assert await ask(one.address, "/readyz", "HEAD") == (503, None)
        answer = await raw(one.address, b"HEAD /readyz HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")


async def test_who_does_not_get_to_the_point_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "REQUEST_S", 0.05)
    async with opened() as one:
        assert await raw(one.address, b"GET /livez HT") == b""


async def test_only_so_many_are_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CONNECTIONS_COUNT_MAX", 1)
    async with opened() as one:
        _, writer = await asyncio.open_connection(one.address.host, one.address.port)
        assert await raw(one.address, b"") == b""
        writer.close()

        async def served() -> None:
            while True:
                if await raw(one.address, b"GET /livez HTTP/1.1\r\n\r\n"):
                    return
                await asyncio.sleep(0.01)

        await asyncio.wait_for(served(), 5)


async def test_closing_waits_for_nobody() -> None:
    async with opened() as one:
        _, writer = await asyncio.open_connection(one.address.host, one.address.port)
        await asyncio.wait_for(one.close(), 1)
        writer.close()
