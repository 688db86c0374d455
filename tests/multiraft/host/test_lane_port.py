"""What a link makes of its peer's port for frames: when it is tried, and when it is left alone."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket

import pytest

from rakit.multiraft.framed import FramedStream
from rakit.multiraft.hello import CONTROL, DATA
from rakit.multiraft.lane_port import (
    BREAKS_COUNT_MAX,
    LASTING_S,
    UNANSWERED_RETRY_FACTOR,
    Greeted,
    SilentPeerError,
)
from rakit.peer.v1 import raft_service_pb2 as wire
from tests.multiraft.host.lanes import EAGER, PATIENT, MakeEnd, carries, port_of, session, start
from tests.multiraft.host.support import Cable, End, append, is_up, linked, until


async def breaks(a: End, b: End) -> None:
    """Ends the data lane from the side of the peer, and waits until it is back."""
    count = a.count("disconnected", 2, DATA)
    (await session(b)).end("a test ends it")
    await until(lambda: a.count("disconnected", 2, DATA) == count + 1)
    await until(lambda: is_up(a, b))


async def test_a_port_that_was_of_no_use_delays_no_lane_again(
    make: MakeEnd, closed: socket.socket, tried: list[int]
) -> None:
    a, b = await make(1), await make(2)
    b.transport.lane_port = port = port_of(closed)
    await linked(a, b)
    for _ in range(3):
        await breaks(a, b)
    assert tried.count(port) == 1
    assert not a.carries_frames_to(b)


async def test_a_port_that_was_of_no_use_is_tried_beside_the_lane_ever_more_rarely(
    make: MakeEnd, closed: socket.socket, tried: list[int]
) -> None:
    a = await make(1, dataclasses.replace(PATIENT, lane_retry_ms_min=1, lane_retry_ms_max=4))
    b = await make(2)
    b.transport.lane_port = port = port_of(closed)
    await linked(a, b)
    known = a.transport._peers[2].data._port
    await until(lambda: tried.count(port) > 5)
    assert known._retry_ms == 4
    assert not a.count("disconnected", 2, DATA)


async def test_another_port_of_the_peer_is_tried_at_once(
    make: MakeEnd, closed: socket.socket, tried: list[int]
) -> None:
    a, b = await make(1), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    b.transport.lane_port = b.lane_port
    await breaks(a, b)
    assert a.carries_frames_to(b)
    assert tried.count(b.lane_port) == 1


async def test_the_stream_that_was_greeted_beside_the_lane_is_the_one_it_goes_over_to(
    make: MakeEnd, closed: socket.socket, tried: list[int]
) -> None:
    # It goes over without a pause, in which the peer would give it up.
    pausing = dataclasses.replace(EAGER, backoff_ms_min=5_000, backoff_ms_max=5_000)
    a, b = await make(1, pausing), await make(2)
    b.transport.lane_port = port = port_of(closed)
    await linked(a, b)
    cable = await Cable(b.lane_port).lay(closed)
    await until(lambda: a.carries_frames_to(b))
    reached = tried.count(port)
    await carries(a, b)
    assert a.count("disconnected", 2, DATA) == 1
    assert b.lanes is not None
    assert len(b.lanes._serving) == 1, "it was opened once"
    for _ in range(50):
        await carries(a, b)
    assert tried.count(port) == reached, "what goes as frames is not tried any more"
    await cable.close()


async def test_a_greeted_stream_ends_with_a_link_that_is_closed(
    make: MakeEnd, monkeypatch: pytest.MonkeyPatch, closed: socket.socket
) -> None:
    a, b = await make(1, EAGER), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    data = a.transport._peers[2].data
    open_beside = data._port.open_beside

    async def opened(hello: wire.Hello) -> Greeted:
        greeted = await open_beside(hello)
        assert data._task is not None
        data._closed = True  # the beginning of `close`
        data._task.cancel()
        return greeted

    monkeypatch.setattr(data._port, "open_beside", opened)
    await breaks(a, b)
    cable = await Cable(b.lane_port).lay(closed)
    await until(lambda: data._task is not None and data._task.done())
    await data.close()
    assert b.lanes is not None
    serving = b.lanes._serving
    # Sooner than the peer would give it up.
    await until(lambda: not serving, 1)
    await cable.close()


async def test_what_breaks_soon_again_and_again_is_left_alone(
    make: MakeEnd, tried: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """As behind something that lets hellos through and nothing else."""
    a, b = await make(1), await make(2)
    broken = 0

    async def accept(stream: FramedStream) -> None:
        nonlocal broken
        await b.transport._greeted(stream)
        assert await stream.read() == b""
        broken += 1

    assert b.lanes is not None
    b.lanes._accept = accept
    a.call(b)
    await until(lambda: broken == BREAKS_COUNT_MAX)
    await until(lambda: is_up(a, b) and not a.carries_frames_to(b))
    await carries(a, b)
    assert tried.count(b.lane_port) == BREAKS_COUNT_MAX
    assert "broke soon" in caplog.text


async def test_what_brings_no_answer_is_given_up_and_left_alone_for_long(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind something that takes what comes after the hellos and lets nothing through."""
    a, b = await make(1, dataclasses.replace(PATIENT, unanswered_ms_max=50)), await make(2)

    async def accept(stream: FramedStream) -> None:
        await b.transport._greeted(stream)
        while await stream.read() is not None:
            pass

    assert b.lanes is not None
    b.lanes._accept = accept
    a.call(b)
    await until(lambda: a.carries_frames_to(b))
    a.transport.send([append(10)])
    await until(lambda: is_up(a, b) and not a.carries_frames_to(b))
    assert "nothing that was sent there was answered" in caplog.text
    await carries(a, b)
    port = a.transport._peers[2].data._port
    assert port._retry_ms == UNANSWERED_RETRY_FACTOR * PATIENT.lane_retry_ms_max


@pytest.mark.parametrize("sends", [False, True])
async def test_what_is_answered_or_carries_nothing_is_kept(make: MakeEnd, *, sends: bool) -> None:
    a, b = await make(1, dataclasses.replace(PATIENT, unanswered_ms_max=20)), await make(2)
    await linked(a, b)
    if sends:
        await carries(a, b)
    data = a.transport._peers[2].data
    await until(lambda: asyncio.get_running_loop().time() > data._began_s + 0.2)
    assert a.carries_frames_to(b)
    assert not a.count("disconnected", 2, DATA)


async def test_what_was_of_use_or_was_ended_here_says_nothing_against_a_port(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    port = a.transport._peers[2].data._port
    for _ in range(BREAKS_COUNT_MAX):
        port.ended(0.0, was_answered=True, by_us=True)
    assert not port._was_of_no_use
    for _ in range(BREAKS_COUNT_MAX):
        port.ended(0.0, was_answered=True, by_us=False)
        port.ended(LASTING_S, was_answered=True, by_us=False)
    assert not port._was_of_no_use


async def test_a_peer_that_starts_again_and_again_says_nothing_against_its_port(
    make: MakeEnd,
) -> None:
    a, b = await make(1), await make(2)
    gate = b.transport._gate
    a.call(b)
    for epoch in range(2, 3 + BREAKS_COUNT_MAX):
        await until(lambda: a.carries_frames_to(b))
        gate.identity = start(gate.identity, epoch)
        assert b.lanes is not None
        for each in b.lanes._serving.values():
            each.cancel()
        await until(lambda: a.count("introduced", 2, gate.identity.boot_epoch))
    await until(lambda: a.carries_frames_to(b))


@pytest.mark.parametrize("other_epoch", [1, 3])
async def test_a_start_that_answers_at_the_port_only_leaves_the_lane_on_grpc(
    make: MakeEnd, other_epoch: int
) -> None:
    """As where a name stands for two processes."""
    a, b, other = await make(1), await make(2), await make(2)
    for end, epoch in ((b, 2), (other, other_epoch)):
        end.transport._gate.identity = start(end.transport._gate.identity, epoch)
    b.transport.lane_port = other.lane_port
    a.call(b)
    await until(lambda: is_up(a, b))
    assert not a.carries_frames_to(b)
    await carries(a, b)


async def test_a_port_is_not_blamed_for_a_peer_that_fell_silent(
    make: MakeEnd, tried: list[int]
) -> None:
    a, b = await make(1, dataclasses.replace(PATIENT, lane_timeout_ms=1_000)), await make(2)
    cable = await Cable(b.lane_port).lay()
    b.transport.lane_port = cable.port
    cable.cut()
    a.call(b)
    await until(lambda: tried)
    data = a.transport._peers[2].data
    before = data._began_s
    data.hang_up(asyncio.get_running_loop().time() + 1)
    await until(lambda: data._began_s > before)
    cable.mend()
    await until(lambda: a.carries_frames_to(b))
    await cable.close()


@pytest.mark.parametrize("has_ended", [False, True], ids=["before a silence", "ended"])
async def test_a_stream_that_was_greeted_before_a_silence_or_has_ended_is_not_gone_over_to(
    make: MakeEnd,
    monkeypatch: pytest.MonkeyPatch,
    closed: socket.socket,
    caplog: pytest.LogCaptureFixture,
    *,
    has_ended: bool,
) -> None:
    a, b = await make(1, EAGER), await make(2)
    b.transport.lane_port = port_of(closed)
    await linked(a, b)
    data = a.transport._peers[2].data
    open_beside = data._port.open_beside
    greeted: list[Greeted] = []

    async def opened(hello: wire.Hello) -> Greeted:
        greeted.append(await open_beside(hello))
        if len(greeted) == 1 and has_ended:
            greeted[0].stream.cancel()
        elif len(greeted) == 1:
            data._hung_up.set()
        return greeted[-1]

    monkeypatch.setattr(data._port, "open_beside", opened)
    await breaks(a, b)
    cable = await Cable(b.lane_port).lay(closed)
    await until(lambda: a.carries_frames_to(b))
    assert len(greeted) == 2
    assert greeted[0].stream.ended
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
    await cable.close()


# When the control lane ends it.


async def test_a_lane_that_began_later_is_not_hung_up_on(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    data = a.transport._peers[2].data
    data.hang_up(data._began_s)
    for _ in range(20):
        await carries(a, b)
    assert not a.count("disconnected", 2, DATA)


async def test_s16_each_silence_ends_the_lanes_that_are_older_and_no_others(
    make: MakeEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    control, data = a.transport._peers[2].control, a.transport._peers[2].data
    begun, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def silent(*_args: object) -> wire.Hello:
        begun.release()
        await go_on.acquire()
        raise SilentPeerError("no hello in time")

    async def next_attempt() -> None:
        async with asyncio.timeout(10):
            await begun.acquire()

    monkeypatch.setattr(control, "_greet", silent)
    (await session(b, CONTROL)).end("a test ends it")
    await next_attempt()
    # A lane that begins after the attempt that will meet silence.
    before = data._began_s
    data.hang_up(asyncio.get_running_loop().time() + 1)
    await until(lambda: data._began_s > before and data.connected)
    count = a.count("disconnected", 2, DATA)
    go_on.release()
    await next_attempt()
    for _ in range(20):
        await carries(a, b)
    assert a.count("disconnected", 2, DATA) == count, "it is younger than the first attempt"
    go_on.release()
    await until(lambda: a.count("disconnected", 2, DATA) == count + 1)
    monkeypatch.undo()
    go_on.release()
    await until(lambda: is_up(a, b))
