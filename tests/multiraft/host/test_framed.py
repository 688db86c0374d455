"""Frames over real sockets: order, bounds in both directions, ends, strangers."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
import uvloop

from rakit.multiraft import framed, pages
from rakit.multiraft.framed import (
    RECEIVED_BYTES_MAX,
    SILENCE_MS_MAX,
    UNSENT_BYTES_MAX,
    FramedStream,
    LaneServer,
    dial,
)
from rakit.multiraft.frames import head
from tests.multiraft.host.support import until

MIB = 1 << 20


class Served:
    """A server that keeps what it accepts until the test ends it."""

    def __init__(self) -> None:
        self.streams: list[FramedStream] = []
        self.error: Exception | None = None
        self.ended = 0
        self._go_on = asyncio.Event()
        self.server = LaneServer(self.accept)
        self.address, self.port = "", 0

    async def accept(self, stream: FramedStream) -> None:
        self.streams.append(stream)
        try:
            await self._go_on.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.ended += 1

    def release(self) -> None:
        self._go_on.set()


class Told(logging.Handler):
    """Keeps what is logged; a test on a loop of its own has no fixture for that."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncGenerator[Served]:
    served = Served()
    bound = socket.create_server(("127.0.0.1", port))
    served.port = bound.getsockname()[1]
    served.address = f"127.0.0.1:{served.port + 1}"
    served.server.start(bound)
    try:
        yield served
    finally:
        await served.server.close()


async def connected(served: Served) -> tuple[FramedStream, FramedStream]:
    """Returns both ends of a stream on which hellos went to and fro."""
    before = len(served.streams)
    near = await dial(served.address, served.port, 5)
    await near.write(b"hello")
    await until(lambda: len(served.streams) > before)
    far = served.streams[-1]
    assert await far.read() == b"hello"
    await far.write(b"hello yourself")
    assert await near.read() == b"hello yourself"
    near.trust()
    far.trust()
    return near, far


async def messages_of_any_size_arrive_in_order_both_ways() -> None:
    sizes = [0, 1, 4096, 4097, 65_532, 65_533, 5 * MIB, 3]
    async with serving() as served:
        near, far = await connected(served)
        for writes, reads in ((near, far), (far, near)):
            sent = [bytes([at + 65]) * size for at, size in enumerate(sizes)]
            writing = asyncio.create_task(write_all(writes, sent))
            for each in sent:
                assert await reads.read() == each
            await writing
            assert reads._received_bytes == 0, "or reading would stop one day"
        near.cancel()


async def a_message_in_pieces_arrives_as_one() -> None:
    async with serving() as served:
        near, far = await connected(served)
        for sizes in ([1, 0, 3], [5, MIB, 0, 4096, 2 * MIB]):
            pieces = [bytes([at + 65]) * size for at, size in enumerate(sizes)]
            await near.write_pieces([memoryview(each) for each in pieces])
            assert await far.read() == b"".join(pieces)
        near.cancel()


async def the_memory_of_a_message_is_used_again_when_nobody_looks_at_it() -> None:
    gc.collect()  # what is garbage of others would come back here
    pages._kept.clear()
    async with serving() as served:
        near, far = await connected(served)
        used: list[object] = []
        kept: list[memoryview] = []
        for number in range(4):
            await near.write(bytes([number]) * MIB)
            found = await far.read()
            assert isinstance(found, memoryview)
            assert found == bytes([number]) * MIB
            lent = pages.lent_for(found)
            assert lent is not None
            used.append(lent.memory)
            if number == 2:
                kept.append(found[:10])
            del found, lent
        assert used[0] is used[1] is used[2]
        assert used[3] is not used[2]
        assert bytes(kept[0]) == bytes([2]) * 10
        near.cancel()


async def a_message_that_will_never_be_whole_holds_no_memory() -> None:
    async with serving() as served:
        near, far = await connected(served)
        near._connection.write(head(8 * MIB) + bytes(MIB))
        await until(lambda: far._frames._large is not None)
        near.cancel()
        await far.lost
        assert far._frames._large is None


async def write_all(stream: FramedStream, messages: list[bytes]) -> None:
    for each in messages:
        await stream.write(each)


async def what_nobody_reads_is_bounded_at_both_ends() -> None:
    async with serving() as served:
        near, far = await connected(served)
        count, size = 64, MIB
        writing = asyncio.create_task(write_all(near, [b"x" * size] * count))
        await until(lambda: far._is_paused and near._room is not None)
        assert RECEIVED_BYTES_MAX <= far._received_bytes <= RECEIVED_BYTES_MAX + size + 64
        assert near._connection.get_write_buffer_size() <= UNSENT_BYTES_MAX + size + 4
        assert not writing.done()
        for _ in range(count):
            assert await far.read() == b"x" * size
        await writing
        near.cancel()


async def a_stream_reads_as_its_end_when_it_ended() -> None:
    async with serving() as served:
        near, far = await connected(served)
        await near.write(b"last")
        await until(lambda: far._messages)
        near.cancel()
        await until(lambda: far._ended)
        assert await far.read() == b"last"
        assert await far.read() is None
        assert await near.read() is None
        await far.write(b"nobody hears this")
        assert not near.cancel(), "it is over already"


async def who_waits_is_woken_by_the_end() -> None:
    async with serving() as served:
        near, far = await connected(served)
        reading = asyncio.create_task(near.read())
        writing = asyncio.create_task(write_all(near, [b"x" * MIB] * 64))
        await until(lambda: near._room is not None and near._reader is not None)
        far.cancel()
        assert await asyncio.wait_for(reading, 5) is None
        await asyncio.wait_for(writing, 5)


async def connections_send_at_once_and_end_when_nothing_is_taken() -> None:
    async with serving() as served:
        for each in await connected(served):
            connection = each._connection.get_extra_info("socket")
            tcp = socket.IPPROTO_TCP
            assert connection.getsockopt(tcp, socket.TCP_NODELAY)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                assert connection.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == SILENCE_MS_MAX
                probes = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
                idle, between, count = [connection.getsockopt(tcp, each) for each in probes]
                assert 1000 * (idle + between * count) <= SILENCE_MS_MAX + 5_000
        served.streams[0].cancel()


async def a_server_ends_what_it_serves_and_gives_its_port_back() -> None:
    async with serving() as served:
        near, _far = await connected(served)
        await served.server.close()
        assert served.ended == 1
        assert await near.read() is None
        with pytest.raises(OSError, match="onnect"):
            await dial(served.address, served.port, 5)
    async with serving(served.port) as again:
        assert again.port == served.port


async def what_was_reset_before_it_was_accepted_is_no_bug() -> None:
    """As a port scan does."""
    told = Told(logging.ERROR)
    log = logging.getLogger(framed.__name__)
    log.addHandler(told)
    try:
        async with serving() as served:
            with socket.create_connection(("127.0.0.1", served.port)) as scan:
                scan.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            served.error = framed.StreamRefusedError("it says nothing")
            served.release()
            near = await dial(served.address, served.port, 5)
            assert await near.read() is None, "the one before was accepted by now"
            await until(lambda: not served.server._serving)
    finally:
        log.removeHandler(told)
    assert told.records == []


async def what_comes_while_a_server_closes_is_not_served() -> None:
    async with serving() as served:
        served.server._closing = True
        late = await dial(served.address, served.port, 5)
        assert await late.read() is None
        assert served.streams == []


async def what_is_accepted_while_a_server_closes_is_over_when_it_has_closed() -> None:
    """However far it has come: the loop may end with the server."""
    made: list[FramedStream] = []
    for turns in range(6):
        server = Served().server
        make = server._made

        def noted(make: Callable[[], FramedStream] = make) -> FramedStream:
            made.append(make())
            return made[-1]

        server._made = noted  # type: ignore[method-assign]
        bound = socket.create_server(("127.0.0.1", 0))
        server.start(bound)
        with socket.create_connection(bound.getsockname()):
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.close()
            assert all(stream.lost.done() for stream in made)
    assert made, "some were accepted"


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "scenario",
    [
        messages_of_any_size_arrive_in_order_both_ways,
        a_message_in_pieces_arrives_as_one,
        the_memory_of_a_message_is_used_again_when_nobody_looks_at_it,
        a_message_that_will_never_be_whole_holds_no_memory,
        what_nobody_reads_is_bounded_at_both_ends,
        a_stream_reads_as_its_end_when_it_ended,
        who_waits_is_woken_by_the_end,
        connections_send_at_once_and_end_when_nothing_is_taken,
        a_server_ends_what_it_serves_and_gives_its_port_back,
        what_was_reset_before_it_was_accepted_is_no_bug,
        what_comes_while_a_server_closes_is_not_served,
        what_is_accepted_while_a_server_closes_is_over_when_it_has_closed,
    ],
)
def test_on_either_loop(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    scenario: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Nodes run on uvloop where there is one, and everywhere else on asyncio's own loop."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


async def test_a_stranger_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        # A reset or an orderly end: the kernel's choice.
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        await until(lambda: served.streams)
        assert await served.streams[0].read() is None
        assert "are allowed" in caplog.text
        assert "127.0.0.1" in caplog.text
        writer.close()


async def test_more_connections_than_any_cluster_needs_are_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(framed, "CONNECTIONS_COUNT_MAX", 1)
    async with serving() as served:
        near, _far = await connected(served)
        second = await dial(served.address, served.port, 5)
        assert await second.read() is None
        assert ": 1 are open" in caplog.text
        served.release()
        await until(lambda: not served.server._serving)
        assert await near.read() is None, "what was served to its end is closed"
        third = await dial(served.address, served.port, 5)
        await until(lambda: len(served.streams) == 2)
        third.cancel()


@pytest.mark.parametrize(
    ("error", "is_bug"),
    [(framed.StreamRefusedError("not you"), False), (AssertionError("a bug"), True)],
)
async def test_a_bug_in_serving_a_stream_is_told_and_a_refusal_is_none(
    caplog: pytest.LogCaptureFixture, error: Exception, *, is_bug: bool
) -> None:
    async with serving() as served:
        near, _far = await connected(served)
        served.error = error
        served.release()
        assert await near.read() is None
        await until(lambda: not served.server._serving)
        found = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert bool(found) is is_bug
        near.cancel()


async def test_empty_messages_that_nobody_reads_are_bounded_too() -> None:
    async with serving() as served:
        near, far = await connected(served)
        writing = asyncio.create_task(write_all(near, [b""] * 400_000))
        await until(lambda: far._is_paused)
        assert len(far._messages) * 64 <= RECEIVED_BYTES_MAX + (64 << 10) // 4 * 64
        writing.cancel()
        near.cancel()


async def test_abort_ends_a_stream_for_both() -> None:
    async with serving() as served:
        near, far = await connected(served)
        with pytest.raises(framed.StreamRefusedError, match="UNAVAILABLE: the node stops"):
            await far.abort(grpc.StatusCode.UNAVAILABLE, "the node stops")
        assert await near.read() is None


async def test_ipv6_addresses_are_dialled_by_their_host() -> None:
    asked: list[object] = []

    async def getaddrinfo(host: str, port: int, **_kwargs: object) -> list[object]:
        asked.append((host, port))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        for address in ("[::1]:7071", "rakit-0.rakit-peers:7071"):
            with pytest.raises(OSError, match="has no address"):
                await dial(address, 7073, 5)
    assert asked == [("::1", 7073), ("rakit-0.rakit-peers", 7073)]


async def test_a_host_whose_first_address_is_silent_is_reached_by_its_second() -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection
    tried: list[str] = []

    async def getaddrinfo(_host: str, port: int, **_kwargs: object) -> list[object]:
        kind = (socket.SOCK_STREAM, 6, "")
        silent = (socket.AF_INET6, *kind, ("fe80::1", port, 0, 3))
        return [silent, (socket.AF_INET, *kind, ("127.0.0.1", port))]

    async def create_connection(make: Any, host: str, port: int, **kwargs: Any) -> object:
        tried.append(host)
        if host != "127.0.0.1":
            await asyncio.Event().wait()
        return await connect(make, host, port, **kwargs)

    async with serving() as served:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "getaddrinfo", getaddrinfo)
            patch.setattr(loop, "create_connection", create_connection)
            stream = await dial("a-pod:7071", served.port, 1)
        stream.cancel()
    assert tried == ["fe80::1%3", "127.0.0.1"]
