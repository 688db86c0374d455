"""A data lane goes over to frames where it can, stays on gRPC where it cannot, and ends in time."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import weakref
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import NoReturn, cast

import grpc.aio
import pytest

from rakit.multiraft import pages
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.framed import FramedStream, LaneServer, dial
from rakit.multiraft.frames import head
from rakit.multiraft.hello import CONTROL, DATA, Gate, Lane
from rakit.multiraft.lane_port import LinkEndedError
from rakit.multiraft.link import METHOD
from rakit.multiraft.session import Session, SessionEndedError
from rakit.peer.v1 import raft_service_pb2 as wire
from tests.multiraft.host.lanes import PATIENT, SHORT, MakeEnd, carries, port_of, session, start
from tests.multiraft.host.support import Cable, End, append, encoded, is_up, linked, until

MIB = 1 << 20


async def ends(stream: FramedStream) -> None:
    """Waits for the end of a stream, at which nothing comes any more."""
    try:
        async with asyncio.timeout(5):
            assert await stream.read() is None
    except TimeoutError:
        pytest.fail("the stream lives on")


# Going over.


async def test_a_lane_goes_over_to_frames_in_both_directions(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    assert a.carries_frames_to(b)
    assert b.carries_frames_to(a)
    assert not a.transport._peers[2].control.is_framed, "signs of life stay with gRPC"
    a.transport.send([append(5 * MIB)])
    await until(lambda: b.sizes() == [1])
    (entry,) = b.arrivals[0].envelopes[0].message.entries
    assert entry.data == b"x" * (5 * MIB)


async def test_each_side_decides_for_itself_whether_it_takes_frames(make: MakeEnd) -> None:
    a, b = await make(1, framed=False), await make(2)
    await linked(a, b)
    assert a.carries_frames_to(b)
    assert not b.carries_frames_to(a)
    await carries(a, b)
    await carries(b, a)


async def test_a_lane_that_breaks_comes_back_as_frames(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    assert b.lanes is not None
    (stream,) = b.lanes._serving.values()
    stream._connection.abort()
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b)
    await carries(a, b)


async def test_a_peer_that_starts_anew_while_a_lane_goes_over_is_not_taken_for_the_old_one(
    make: MakeEnd,
) -> None:
    a, b = await make(1), await make(2)

    async def accept(stream: FramedStream) -> None:
        identity = b.transport._gate.identity
        if identity.boot_epoch == 1:
            b.transport._gate.identity = start(identity, 2)
        await b.transport.accept_frames(stream)

    assert b.lanes is not None
    b.lanes._accept = accept
    a.call(b)
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b)
    data = [each for each in a.told if each[:2] == ("introduced", 2)]
    assert data[-1] == ("introduced", 2, 2)


# Staying.


async def test_a_port_that_is_closed_leaves_the_lane_on_grpc_and_is_not_tried_each_time(
    make: MakeEnd, closed: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(1, SHORT), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    assert not a.carries_frames_to(b)
    await carries(a, b)
    (await session(b)).end("a test ends it")
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    assert caplog.text.count(f"port {b.transport.lane_port} of node 2 is not reached") == 1
    await carries(a, b)


async def test_a_lane_goes_over_once_its_port_is_reached(
    make: MakeEnd, closed: socket.socket
) -> None:
    a, b = await make(1, dataclasses.replace(PATIENT, lane_retry_ms_min=100)), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    assert not a.carries_frames_to(b)
    cable = await Cable(b.lane_port).lay(closed)
    await until(lambda: a.carries_frames_to(b))
    assert a.count("disconnected", 2, DATA) == 1
    await carries(a, b)
    await cable.close()


class Port(Enum):
    """What may be behind a port that is no lane."""

    CLOSED = "closed"
    SILENT = "silent"
    CLOSES = "closes"
    STRANGE = "speaks, but not our language"


@pytest.mark.parametrize("kind", list(Port))
async def test_a_lane_on_grpc_stays_up_while_its_port_is_tried(
    make: MakeEnd, closed: socket.socket, tried: list[int], kind: Port
) -> None:
    eager = dataclasses.replace(SHORT, lane_retry_ms_min=10, lane_retry_ms_max=10)
    a, b = await make(1, eager), await make(2)
    b.transport.lane_port = port = port_of(closed)
    if kind in (Port.SILENT, Port.CLOSES):
        closed.listen()
    hanging_up = asyncio.create_task(hang_up_on_all(closed)) if kind is Port.CLOSES else None
    stranger = LaneServer(speak_strangely)
    if kind is Port.STRANGE:
        stranger.start(closed)
    await linked(a, b)
    for count in range(5):
        await carries(a, b)
        await until(partial(was_tried, tried, port, count))
    assert not a.count("disconnected", 2, DATA)
    if hanging_up is not None:
        hanging_up.cancel()
    await stranger.close()


async def speak_strangely(stream: FramedStream) -> None:
    """Answers with a message that is none of ours."""
    await stream.write(b"\xff" * 8)
    while await stream.read() is not None:
        pass


async def hang_up_on_all(listening: socket.socket) -> None:
    """Answers the phone and puts it down."""
    listening.setblocking(False)
    while True:
        connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        connection.close()


def was_tried(tried: list[int], port: int, more_than: int) -> bool:
    return tried.count(port) > more_than


async def test_a_port_that_there_is_none_of_leaves_the_lane_on_grpc(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    b.transport.lane_port = 70_000
    await linked(a, b)
    assert not a.carries_frames_to(b)
    await carries(a, b)


async def test_a_host_that_is_none_is_not_reached() -> None:
    with pytest.raises(OSError, match="no host"):
        await dial("a..b:7071", 7073, 5)


async def test_a_port_at_which_nobody_speaks_leaves_the_lane_on_grpc(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(1, SHORT), await make(2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        b.transport.lane_port = silent.getsockname()[1]
        await linked(a, b)
        assert not a.carries_frames_to(b)
        assert "no hello in time" in caplog.text
        await carries(a, b)
        tried, _ = silent.accept()
        with tried:
            tried.setblocking(False)  # what was opened there has ended, by now
            while heard(tried):
                pass


def heard(connection: socket.socket) -> bytes:
    """What came, empty at the end."""
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""


async def test_a_hello_that_comes_too_late_costs_the_lane_that_was_kept_nothing(
    make: MakeEnd,
) -> None:
    a, b = await make(1, SHORT), await make(2)
    go_on, done = asyncio.Event(), asyncio.Event()

    async def accept(stream: FramedStream) -> None:
        await go_on.wait()
        try:
            await b.transport.accept_frames(stream)
        finally:
            done.set()

    assert b.lanes is not None
    b.lanes._accept = accept
    a.call(b)
    await until(lambda: is_up(a, b))
    assert not a.carries_frames_to(b)
    kept = await session(b)
    go_on.set()
    async with asyncio.timeout(5):
        await done.wait()
    assert await session(b) is kept
    assert not a.count("disconnected", 2, DATA)
    await carries(a, b)


async def test_s15_a_call_to_go_over_that_comes_too_late_is_judged_again(make: MakeEnd) -> None:
    b = await make(2)
    old, new = [await dial(b.address, b.lane_port, 5) for _ in range(2)]
    for stream, epoch in ((old, 1), (new, 5)):
        await stream.write(hello(DATA, epoch))
        assert await stream.read() is not None
    await new.write(b"")
    await until(lambda: b.count("introduced", 1, 5))
    serving = await session(b)
    await old.write(b"")
    await ends(old)
    assert await session(b) is serving
    assert not b.count("introduced", 1, 1)
    new.cancel()


# Strangers.


async def test_a_stream_that_has_ended_takes_nobodys_place(make: MakeEnd) -> None:
    """It said that it goes over, and then its caller gave it up."""
    a, b = await make(1), await make(2)
    await linked(a, b)
    await carries(a, b)
    serving = await session(b)
    done = asyncio.Event()

    async def accept(stream: FramedStream) -> None:
        await until(lambda: stream.ended)
        await b.transport.accept_frames(stream)
        done.set()

    assert b.lanes is not None
    b.lanes._accept = accept
    _, writer = await asyncio.open_connection("127.0.0.1", b.lane_port)
    writer.write(head(len(hello(DATA))) + hello(DATA) + head(0))
    writer.close()
    async with asyncio.timeout(5):
        await done.wait()
    assert b.transport._sessions.get((1, DATA)) is serving
    await carries(a, b)


async def test_a_stream_that_was_greeted_before_the_stop_is_not_served_after_it(
    make: MakeEnd,
) -> None:
    b = await make(2)
    stream = await dial(b.address, b.lane_port, 5)
    await stream.write(hello(DATA))
    assert await stream.read() is not None
    b.transport.stop_sending()
    await stream.write(b"")
    await ends(stream)
    assert not b.count("introduced")


async def test_a_stranger_at_the_port_disturbs_nobody(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    stranger = await dial(b.address, b.lane_port, 5)
    await stranger.write(b"who is there?")
    await ends(stranger)
    assert a.carries_frames_to(b)
    await carries(a, b)


def hello(lane: Lane, boot_epoch: int = 1) -> bytes:
    """What node 1 says first."""
    return wire.ExchangeRequest(
        hello=wire.Hello(
            cluster_id="cluster",
            from_node_id=1,
            to_node_id=2,
            store_uuid="store-1",
            boot_epoch=boot_epoch,
            opened_counter=1,
            synced_counter=1,
            lane=lane,
        )
    ).SerializeToString()


async def test_a_control_lane_is_not_taken_as_frames(make: MakeEnd) -> None:
    b = await make(2)
    stream = await dial(b.address, b.lane_port, 5)
    stream.trust()
    await stream.write(hello(CONTROL))
    assert await stream.read() is not None
    await ends(stream)
    assert not b.count("introduced")


@pytest.mark.parametrize("says_hello", [False, True])
async def test_a_connection_that_says_nothing_more_is_ended(*, says_hello: bool) -> None:
    b = await End(2, LinkConfig(hello_timeout_ms=50), framed=True).serve()
    try:
        stream = await dial(b.address, b.lane_port, 5)
        async with asyncio.timeout(5):
            if says_hello:
                await stream.write(hello(DATA))
                assert await stream.read() is not None
            await ends(stream)
        assert not b.count("introduced"), "it takes nobody's place before it goes over"
    finally:
        await b.close()


async def test_a_peer_that_breaks_the_rules_is_cut_off(make: MakeEnd) -> None:
    b = await make(2)
    stream = await dial(b.address, b.lane_port, 5)
    for each in (hello(DATA), b"", encoded(2, [append(10)])):
        await stream.write(each)
    assert await stream.read() is not None
    await ends(stream)
    assert not b.arrivals


async def test_a_stranger_may_announce_nothing_large(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    b = await make(2)
    stream = await dial(b.address, b.lane_port, 5)
    stream._connection.write(head(MIB))
    await ends(stream)
    assert "are allowed" in caplog.text


@pytest.mark.parametrize("says_so", [False, True])
async def test_a_peer_may_announce_much_once_it_has_gone_over(
    make: MakeEnd, *, says_so: bool
) -> None:
    b = await make(2)
    stream = await dial(b.address, b.lane_port, 5)
    await stream.write(hello(DATA))
    assert await stream.read() is not None
    request = encoded(1, [append(MIB)])
    stream._connection.write(head(0) * says_so + head(len(request)) + request)
    if says_so:
        await until(lambda: b.sizes() == [1])
        stream.cancel()
    else:
        await ends(stream)
        assert not b.count("introduced"), "and it took nobody's place"


async def test_who_is_called_may_announce_nothing_large_before_its_hello(
    make: MakeEnd, closed: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def announce(stream: FramedStream) -> None:
        stream._connection.write(head(MIB))
        assert await stream.read() is not None
        await stream.read()

    server = LaneServer(announce)
    server.start(closed)
    a, b = await make(1), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    assert not a.carries_frames_to(b)
    assert "are allowed" in caplog.text
    await server.close()


async def test_s11_another_store_at_the_port_is_neither_taken_nor_noted(
    make: MakeEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, other = await make(1), await make(2), await make(2)
    gate = other.transport._gate
    gate.identity = dataclasses.replace(gate.identity, store_uuid="store-of-somebody-else")
    b.transport.lane_port = other.lane_port
    own, noted = a.transport._gate, set[str]()

    def judge(hello: wire.Hello, node_id: int | None = None) -> str | None:
        noted.add(hello.store_uuid)
        return Gate.judge(own, hello, node_id)

    monkeypatch.setattr(own, "judge", judge)
    await linked(a, b)
    assert not a.carries_frames_to(b)
    assert noted == {"store-2"}
    await carries(a, b)


# Ends.


@pytest.mark.parametrize("cuts_the_lane", [False, True], ids=["control only", "both"])
async def test_s16_a_data_lane_ends_with_the_control_lane(
    make: MakeEnd, *, cuts_the_lane: bool
) -> None:
    a, b = await make(1), await make(2)
    cables = [await Cable(b.port).lay()]
    if cuts_the_lane:
        cables.append(await Cable(b.lane_port).lay())
        b.transport.lane_port = cables[1].port
    a.transport.set_peer(2, f"127.0.0.1:{cables[0].port}")
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b)
    for each in cables:
        each.cut()
    await until(lambda: a.count("disconnected", 2, CONTROL))
    await until(lambda: a.count("disconnected", 2, DATA), 1)
    for each in cables:
        each.mend()
    await until(lambda: is_up(a, b))
    await carries(a, b)
    for each in cables:
        await each.close()


async def test_a_lane_on_grpc_ends_with_the_control_lane_as_well(make: MakeEnd) -> None:
    a, b = await make(1), await make(2, framed=False)
    await linked(a, b)
    (await session(b, CONTROL)).end("a test ends it")
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    await carries(a, b)


async def test_a_data_lane_that_is_well_outlives_attempts_of_control_that_are_refused(
    make: MakeEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    peer = a.transport._peers[2]
    refused = 0

    def refuse(answer: wire.Hello) -> None:
        nonlocal refused
        del answer
        refused += 1
        raise LinkEndedError("a test refuses it")

    monkeypatch.setattr(peer.control, "_judge", refuse)
    (await session(b, CONTROL)).end("a test ends it")
    await until(lambda: refused > 5)
    assert a.count("disconnected", 2, DATA) == 1, "with the control lane, and not again"
    monkeypatch.undo()
    await until(lambda: is_up(a, b))


async def test_s16_a_data_lane_that_began_before_the_control_lane_ended_is_not_kept(
    make: MakeEnd,
) -> None:
    """It is about to come up while the other side is found to be silent."""
    a, b = await make(1), await make(2)
    cable = await Cable(b.lane_port).lay()
    b.transport.lane_port = cable.port
    cable.cut()
    a.call(b)
    await until(lambda: a.transport.reaches(2))
    await session(b)
    data = a.transport._peers[2].data
    assert not data.connected
    (await session(b, CONTROL)).end("a test ends it")
    await until(lambda: a.count("disconnected", 2, CONTROL))
    cable.mend()
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    await cable.close()


@pytest.mark.parametrize("framed", [False, True])
async def test_bulk_over_a_slow_path_arrives(
    make: MakeEnd, closed: socket.socket, *, framed: bool
) -> None:
    """The answer to a ping stands behind it."""
    a, b = await make(1), await make(2, framed=framed)
    cables = [await Cable(each).lay() for each in (b.port, b.lane_port or port_of(closed))]
    for each in cables:
        each.delay_s = 0.04
    if framed:
        b.transport.lane_port = cables[1].port
    a.transport.set_peer(2, f"127.0.0.1:{cables[0].port}")
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b) is framed
    a.transport.send([append(4 * MIB)])
    await until(lambda: b.sizes() == [1], 30)
    assert not a.count("disconnected", 2, DATA)
    for each in cables:
        await each.close()


async def test_a_node_that_stops_ends_its_lanes(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    a.told.clear()
    b.transport.stop_sending()
    await until(lambda: a.count("refused", 2))
    await until(lambda: a.count("disconnected", 2, DATA))


async def test_a_stream_of_grpc_ends_though_its_peer_reads_nothing(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    b = await make(2, framed=False)
    async with grpc.aio.insecure_channel(b.address) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        call = method()
        await call.write(hello(DATA))
        assert isinstance(await call.read(), bytes)
        serving = await session(b)
        # More than gRPC takes for somebody who does not read, so that the writer waits.
        for _ in range(40):
            serving.offer(append(MIB // 4, 2, 1))
            await asyncio.sleep(0)
        assert len(serving._answers) > 0, "the writer waits"
        serving.end("a newer stream took its place")
        await until(lambda: (1, DATA) not in b.transport._sessions)
        with pytest.raises(grpc.aio.AioRpcError, match="took its place"):
            await to_the_end(call)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


async def to_the_end(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    while isinstance(await call.read(), bytes):
        pass


async def test_a_session_ends_though_its_peer_takes_nothing(make: MakeEnd) -> None:
    end = await make(2)

    class Clogged:
        """A stream whose other end neither reads nor says anything."""

        async def read(self) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def write(self, message: bytes) -> None:
            del message
            blocked.set()
            await asyncio.Event().wait()

        async def abort(self, code: object, details: str) -> NoReturn:
            raise AssertionError(f"{code}: {details}")

    blocked = asyncio.Event()
    serving = Session(1, DATA, PATIENT, end)
    running = asyncio.create_task(serving.run(Clogged()))
    serving.offer(append(10))
    await blocked.wait()
    serving.end("a newer stream took its place")
    async with asyncio.timeout(5):
        with pytest.RaisesGroup(pytest.RaisesExc(SessionEndedError, match="took its place")):
            await running


async def test_nothing_of_a_message_is_held_while_the_next_is_waited_for(make: MakeEnd) -> None:
    end = await make(2)
    data = encoded(1, [append(1 << 20)])
    lent: list[weakref.ref[object]] = []

    class Once:
        """A stream that carries one large message, and then nothing."""

        def __init__(self) -> None:
            self.waiting = asyncio.Event()

        async def read(self) -> memoryview:
            if lent:
                self.waiting.set()
                await asyncio.Event().wait()
            message = pages.lend(len(data))
            message[:] = data
            lent.append(weakref.ref(cast("object", message.obj)))
            return message.toreadonly()

        async def write(self, message: bytes) -> None:
            del message

        async def abort(self, code: object, details: str) -> NoReturn:
            raise AssertionError(f"{code}: {details}")

    stream = Once()
    serving = Session(1, DATA, PATIENT, end)
    running = asyncio.create_task(serving.run(stream))
    await stream.waiting.wait()
    assert len(end.arrivals) == 1
    assert lent[0]() is None, "its memory is back"
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
