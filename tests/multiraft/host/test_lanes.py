"""A data lane goes over to frames where it can, stays on gRPC where it cannot, and ends in time."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from rakit.multiraft.config import LinkConfig
from rakit.multiraft.framed import dial
from rakit.multiraft.hello import CONTROL, DATA, NodeIdentity
from tests.multiraft.host.support import Cable, End, append, is_up, linked, until

MakeEnd: TypeAlias = Callable[..., Awaitable[End]]
QUICK = LinkConfig(lane_timeout_ms=100, backoff_ms_max=100)


@pytest.fixture
async def make() -> AsyncIterator[MakeEnd]:
    ends: list[End] = []

    async def made(node_id: int, *, framed: bool = True) -> End:
        ends.append(await End(node_id, QUICK, framed=framed).serve())
        return ends[-1]

    yield made
    for each in ends:
        await each.close()


async def test_a_lane_goes_over_to_frames_in_both_directions(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    assert a.carries_frames_to(b)
    assert b.carries_frames_to(a)
    assert a.transport._peers[2].control._framed is None, "signs of life stay with gRPC"
    a.transport.send([append(5 << 20)])
    await until(lambda: b.sizes() == [1])
    (entry,) = b.arrivals[0].envelopes[0].message.entries
    assert entry.data == b"x" * (5 << 20)


async def test_each_side_decides_for_itself_whether_it_takes_frames(make: MakeEnd) -> None:
    a, b = await make(1, framed=False), await make(2)
    await linked(a, b)
    assert a.carries_frames_to(b)
    assert not b.carries_frames_to(a)


async def test_a_port_that_is_closed_leaves_the_lane_on_grpc_until_the_peer_starts_anew(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(1), await make(2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    working, b.transport.lane_port = b.transport.lane_port, closed
    await linked(a, b)
    assert not a.carries_frames_to(b)
    told = f"port {closed} of node 2 is not reached"
    assert caplog.text.count(told) == 1
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])
    # The lane breaks and is made again; the port is not tried, though it would do by now.
    b.transport.lane_port = working
    a.told.clear()
    b.transport._sessions[1, DATA].end("a test ends it")
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    assert not a.carries_frames_to(b)
    b.transport._gate.identity = replaced(b)
    b.transport._sessions[1, DATA].end("a test ends it")
    await until(lambda: a.count("disconnected", 2, DATA) == 2)
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b)
    assert caplog.text.count(told) == 1


def replaced(end: End) -> NodeIdentity:
    """A later start of the same node."""
    identity = end.transport._gate.identity
    return dataclasses.replace(identity, boot_epoch=identity.boot_epoch + 1, opened_counter=1)


async def test_a_port_at_which_nobody_speaks_leaves_the_lane_on_grpc(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(1), await make(2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        b.transport.lane_port = silent.getsockname()[1]
        await linked(a, b)
        assert not a.carries_frames_to(b)
        assert "no hello in time" in caplog.text
        # The lane that it was to leave works: nothing has taken its place.
        a.transport.send([append(10)])
        await until(lambda: b.sizes() == [1])


async def test_s16_a_data_lane_ends_with_the_control_lane(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    cable = await Cable(b.port).lay()
    a.transport.set_peer(2, f"127.0.0.1:{cable.port}")
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b), "the frames go past the cable"
    cable.cut()
    await until(lambda: a.count("disconnected", 2, CONTROL))
    await until(lambda: a.count("disconnected", 2, DATA), 1)
    cable.mend()
    await until(lambda: is_up(a, b) and a.carries_frames_to(b))
    await cable.close()


async def test_a_lane_that_breaks_comes_back_as_frames(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    stream = a.transport._peers[2].data._framed
    assert stream is not None
    stream._connection.abort()
    await until(lambda: a.count("disconnected", 2, DATA))
    await until(lambda: is_up(a, b))
    assert a.carries_frames_to(b)
    assert a.transport._peers[2].data._framed is not stream


async def test_a_stranger_at_the_port_disturbs_nobody(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    stranger = await dial(b.address, b.transport.lane_port)
    await stranger.write(b"who is there?")
    assert await stranger.read() is None
    assert a.carries_frames_to(b)
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])


async def test_a_connection_that_says_nothing_is_ended() -> None:
    b = await End(2, LinkConfig(hello_timeout_ms=50), framed=True).serve()
    try:
        stream = await dial(b.address, b.transport.lane_port)
        async with asyncio.timeout(5):
            assert await stream.read() is None
    finally:
        await b.close()


async def test_a_node_that_stops_ends_its_lanes(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await linked(a, b)
    a.told.clear()
    b.transport.stop_sending()
    await until(lambda: a.count("refused", 2))
    await until(lambda: a.count("disconnected", 2, DATA))
