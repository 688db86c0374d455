"""Streams between two nodes over real gRPC: gathering, pacing, breaking, coming back, refusing."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias, cast

import grpc
import grpc.aio
import pytest
import uvloop

from rakit.multiraft.config import LinkConfig
from rakit.multiraft.hello import CONTROL, DATA, Lane
from rakit.multiraft.link import METHOD, Link
from rakit.multiraft.session import Stream
from rakit.multiraft.transport import UnknownPeerError
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import MessageType
from tests.multiraft.host.support import Cable, End, append, linked, message, until

MakeEnd: TypeAlias = Callable[..., Awaitable[End]]
KIB = 1 << 10


@pytest.fixture(params=[False, True], ids=["gRPC", "frames"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[MakeEnd]:
    ends: list[End] = []

    async def made(node_id: int, config: LinkConfig | None = None, **more: str) -> End:
        ends.append(await End(node_id, config, framed=request.param, **more).serve())
        return ends[-1]

    yield made
    for each in ends:
        await each.close()


def opened(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """Returns a stream of bytes, as a link makes it."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
    return method()


async def pair(make: MakeEnd, config: LinkConfig | None = None) -> tuple[End, End]:
    a, b = await make(1, config), await make(2, config)
    await linked(a, b)
    return a, b


async def test_one_small_request_is_in_flight_and_the_rest_gathers(make: MakeEnd) -> None:
    a, b = await pair(make)
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])
    for _ in range(10):
        a.transport.send([append(10)])
    # A round trip that overtakes: had a request left, it would be there before the pong.
    a.transport.ping(2, wire.Ping(number=1))
    await until(lambda: a.count("ponged", 2, 1))
    assert b.sizes() == [1]
    b.step(b.arrivals[0])
    await until(lambda: b.sizes() == [1, 10])


async def test_news_of_a_commit_wait_for_company_unless_they_are_prompt(make: MakeEnd) -> None:
    a, b = await pair(make, LinkConfig(commit_delay_ms=60_000))
    news = message(MessageType.APP, 1, 2)
    assert not a.transport.send([news]), "nothing may leave"
    a.transport.ping(2, wire.Ping(number=1))
    await until(lambda: a.count("ponged", 2, 1))
    assert b.sizes() == []
    assert a.transport.send([replace(news, is_prompt=True)])
    await until(lambda: b.sizes() == [1])


async def test_news_wait_their_own_time_not_that_of_news_before(make: MakeEnd) -> None:
    """Those before had found company: the timer that was set for them says nothing of these."""
    a, b = await pair(make, LinkConfig(commit_delay_ms=400))
    loop, news = asyncio.get_running_loop(), message(MessageType.APP, 1, 2)
    a.transport.send([news])
    began_s = loop.time()
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])
    b.step(b.arrivals[0])
    await until(lambda: loop.time() > began_s + 0.2)
    came_s = loop.time()
    a.transport.send([news])
    await until(lambda: b.sizes() == [1, 1])
    assert loop.time() - came_s > 0.39
    assert not b.arrivals[1].envelopes[0].message.entries


def test_a_timer_that_fires_a_rounding_early_is_not_set_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock of uvloop counts milliseconds, and its timers below half of one fire at once."""
    fired, wait = list[Link](), Link._news_waited

    def counted(link: Link) -> None:
        fired.append(link)
        wait(link)

    async def scenario() -> None:
        a, b = await End(1, framed=True).serve(), await End(2, framed=True).serve()
        await linked(a, b)
        for _ in range(60):
            a.transport.send([message(MessageType.APP, 1, 2)])
            await until(lambda: bool(b.arrivals))
            b.step(b.arrivals.pop())
        await a.close()
        await b.close()

    monkeypatch.setattr(Link, "_news_waited", counted)
    uvloop.run(scenario())
    assert 60 <= len(fired) <= 120


async def test_bulk_opens_the_window(make: MakeEnd) -> None:
    config = LinkConfig(
        bulk_bytes_min=32 * KIB, request_bytes_max=64 * KIB, bulk_in_flight_count_max=3
    )
    a, b = await pair(make, config)
    a.transport.send([append(50 * KIB) for _ in range(6)])
    await until(lambda: len(b.arrivals) == 3)
    a.transport.ping(2, wire.Ping(number=1))
    await until(lambda: a.count("ponged", 2, 1))
    assert b.sizes() == [1, 1, 1]
    b.step(b.arrivals[0])
    await until(lambda: len(b.arrivals) == 4)


async def test_a_data_request_is_worked_off_when_its_write_is_durable(make: MakeEnd) -> None:
    a, b = await pair(make)
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])
    a.transport.send([append(10)])
    b.step(b.arrivals[0], write=5)
    b.transport.synced(4)
    a.transport.ping(2, wire.Ping(number=1))
    await until(lambda: a.count("ponged", 2, 1))
    assert b.sizes() == [1]
    b.transport.synced(5)
    await until(lambda: b.sizes() == [1, 1])


async def test_s17_votes_and_heartbeats_do_not_wait_for_data_nor_for_a_disk(make: MakeEnd) -> None:
    a, b = await pair(make)
    a.transport.send([append(10), append(300 * KIB)])
    await until(b.requests)
    for count in (2, 3):
        a.transport.send([message(MessageType.VOTE, 1, 2)])
        await until(partial(received, b, count))
        vote = b.arrivals[-1]
        assert vote.envelopes[0].message.type is MessageType.VOTE
        b.step(vote, write=99)  # its write is not durable, the lane goes on all the same


def received(end: End, count: int) -> bool:
    return len(end.arrivals) == count


async def test_answers_come_down_the_stream_that_asked(make: MakeEnd) -> None:
    a, b = await pair(make)
    a.transport.send([append(10), message(MessageType.HEARTBEAT, 1, 2)])
    await until(lambda: len(b.arrivals) == 2)
    kinds = [MessageType.APP_RESP, MessageType.HEARTBEAT_RESP, MessageType.VOTE_RESP]
    b.transport.send([message(kind, 2, 1) for kind in kinds])
    await until(lambda: sum(a.sizes()) == 3)
    assert all(each.requester is None for each in a.arrivals)
    got = {each.message.type for arrival in a.arrivals for each in arrival.envelopes}
    assert got == set(kinds)


async def test_s17_a_full_data_lane_refuses_appends_and_tells_their_groups(make: MakeEnd) -> None:
    config = LinkConfig(
        bulk_bytes_min=16 * KIB,
        request_bytes_max=16 * KIB,
        bulk_in_flight_count_max=1,
        data_queue_bytes_max=40 * KIB,
    )
    a, b = await pair(make, config)
    a.transport.send([append(10 * KIB)])
    await until(b.requests)
    a.transport.send([append(10 * KIB) for _ in range(5)])
    assert a.count("unreachable", 7) == 2
    assert a.transport.refused_count == 2
    assert a.transport.waiting_bytes(2) <= 40 * KIB
    b.step(b.arrivals[0])
    await until(lambda: len(b.arrivals) == 2)
    assert sum(b.sizes()) == 2


def room(end: End, node_id: int = 2) -> list[object]:
    """What was told of the data lane to a node, in order."""
    return [each[0] for each in end.told if each[1:] == (node_id,) and "lane" in str(each[0])]


async def test_s17_a_lane_in_which_much_waits_is_told_until_half_of_that_has_left(
    make: MakeEnd,
) -> None:
    config = LinkConfig(
        bulk_bytes_min=16 * KIB,
        request_bytes_max=16 * KIB,
        bulk_in_flight_count_max=1,
        data_queue_bytes_max=160 * KIB,
    )
    a, b = await pair(make, config)
    assert room(a) == ["lane is full", "lane has room"], "there was none before it came up"
    a.transport.send([append(10 * KIB)])
    await until(b.requests)
    a.transport.send([append(10 * KIB) for _ in range(3)])
    assert room(a)[2:] == []
    a.transport.send([append(10 * KIB) for _ in range(2)])
    assert room(a)[2:] == ["lane is full"]
    for request in range(1, 5):
        await until(partial(received, b, request))
        assert a.transport.waiting_bytes(2) > 20 * KIB
        assert room(a)[3:] == []
        b.step(b.requests()[-1])
    await until(partial(received, b, 5))
    assert room(a)[3:] == ["lane has room"]
    assert a.transport.refused_count == 0


async def test_s17_a_lane_that_is_down_has_no_room(make: MakeEnd) -> None:
    a, b = await pair(make)
    a.told.clear()
    await b.die()
    await until(lambda: room(a) == ["lane is full"])
    await b.serve(b.port)
    await until(lambda: room(a) == ["lane is full", "lane has room"])


async def test_s17_the_end_of_an_earlier_link_says_nothing_about_the_one_in_use(
    make: MakeEnd,
) -> None:
    a, b = await pair(make)
    a.told.clear()
    cable = await Cable(b.port).lay()
    a.transport.set_peer(2, f"127.0.0.1:{cable.port}")
    await until(lambda: room(a)[-1:] == ["lane has room"])
    # Both links of before are closed by now, later than the new one was made.
    await until(lambda: not a.transport._closing)
    assert room(a) == ["lane is full", "lane has room"]
    a.transport.set_peer(2, None)
    assert room(a)[2:] == ["lane is full"], "there is nobody to read for"
    await cable.close()


async def test_without_a_link_appends_are_refused_and_the_rest_is_dropped(make: MakeEnd) -> None:
    a = await make(1)
    a.transport.send(
        [append(10), message(MessageType.VOTE, 1, 2), message(MessageType.APP_RESP, 1, 2)]
    )
    assert a.count("unreachable", 7) == 1
    assert a.transport.dropped_count == 2


async def test_s16_the_end_of_a_process_is_known_at_once(make: MakeEnd) -> None:
    a, b = await pair(make)
    loop = asyncio.get_running_loop()
    died_at = loop.time()
    await b.die()
    await until(lambda: a.count("refused", 2), 2)
    assert loop.time() - died_at < 0.5
    assert a.count("disconnected", 2, DATA) == 1


async def test_a_link_comes_back_when_the_peer_does(make: MakeEnd) -> None:
    a, b = await pair(make)
    await b.die()
    await until(lambda: a.count("refused", 2))
    a.told.clear()
    await b.serve(b.port)
    await until(lambda: a.count("introduced", 2) >= 2)
    await until(lambda: a.transport.reaches(2))
    b.arrivals.clear()
    a.transport.send([append(10)])
    await until(lambda: b.sizes() == [1])


async def test_a_peer_that_calls_is_called_back_without_waiting(make: MakeEnd) -> None:
    slow = LinkConfig(backoff_ms_min=60_000, backoff_ms_max=60_000)
    a, b = await make(1, slow), await make(2)
    await b.die()
    a.call(b)
    await until(lambda: a.count("refused", 2))
    await b.serve(b.port)
    b.call(a)
    await until(lambda: a.transport.reaches(2), 5)


async def test_a_link_follows_its_peer_to_another_address(make: MakeEnd) -> None:
    a, b = await make(1), await make(2)
    await b.die()
    a.call(b)
    await b.serve()
    a.transport.set_peer(2, b.address)
    await until(lambda: a.transport.reaches(2))
    a.transport.set_peer(2, None)
    with pytest.raises(UnknownPeerError):
        a.transport.channel(2)
    assert a.transport.peers == []


async def test_s17_the_lanes_have_a_connection_each(make: MakeEnd) -> None:
    a, b = await pair(make)
    peer = a.transport._peers[2]
    assert peer.channels[0] is not peer.channels[1]
    assert a.transport.channel(2) is peer.channels[1]
    ports = {await tell_port(channel, a, b) for channel in peer.channels}
    assert len(ports) == 2


async def tell_port(channel: grpc.aio.Channel, a: End, b: End) -> str:
    """Returns the address that the other side sees on a channel's connection."""
    seen: list[str] = []
    accept = b.transport.accept

    async def spy(stream: Stream) -> None:
        seen.append(cast("grpc.aio.ServicerContext[bytes, bytes]", stream).peer())
        await accept(stream)

    b.transport.accept = spy  # type: ignore[method-assign]  # a wire tap
    call = opened(channel)
    await call.write(wire.ExchangeRequest(hello=hello_of(a, b, CONTROL)).SerializeToString())
    await call.read()
    call.cancel()
    return seen[0]


async def test_a_lane_that_is_called_twice_keeps_the_newer_stream(make: MakeEnd) -> None:
    a, b = await pair(make)
    call = opened(a.transport.channel(2))
    await call.write(wire.ExchangeRequest(hello=hello_of(a, b, CONTROL)).SerializeToString())
    assert isinstance(await call.read(), bytes)
    await until(lambda: a.count("disconnected", 2, CONTROL))
    call.cancel()


async def test_streams_that_end_in_an_orderly_way_are_no_error_in_the_log(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await pair(make)
    call = opened(a.transport.channel(2))
    await call.write(wire.ExchangeRequest(hello=hello_of(a, b, CONTROL)).SerializeToString())
    await call.read()
    await until(lambda: a.count("disconnected", 2, CONTROL))  # the newer stream took its place
    call.cancel()
    b.transport.stop_sending()
    await until(lambda: a.count("refused", 2))
    await b.close()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_leaderships_are_told_complete_at_first_and_then_as_they_change(
    make: MakeEnd,
) -> None:
    a, b = await make(1), await make(2)
    a.led = {5: 3, 6: 4}
    await linked(a, b)
    await until(lambda: b.count("announced", 1, True, {5: 3, 6: 4}, []))
    a.transport.announce(8, 2)
    a.transport.announce(5, 0)
    await until(lambda: b.count("announced", 1, False, {8: 2}, [5]))


async def test_a_silent_peer_is_not_answered_for(make: MakeEnd) -> None:
    a, b = await pair(make)
    b.silent = True
    a.transport.ping(2, wire.Ping(number=1))
    await until(lambda: b.count("pinged", 1, 1))
    b.silent = False
    a.transport.ping(2, wire.Ping(number=2))
    await until(lambda: a.count("ponged", 2, 2))
    assert not a.count("ponged", 2, 1)


# Refusals.


def hello_of(a: End, b: End, lane: Lane, **changes: object) -> wire.Hello:
    fields: dict[str, object] = {
        "cluster_id": "cluster",
        "from_node_id": a.node_id,
        "to_node_id": b.node_id,
        "store_uuid": f"store-{a.node_id}",
        "boot_epoch": 1,
        "synced_counter": 1,
        "lane": lane,
    }
    return wire.Hello(**(fields | changes))  # type: ignore[arg-type]  # fields by name


async def refusal(b: End, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    """Sends messages on a fresh stream and returns how it ended."""
    async with grpc.aio.insecure_channel(b.address) as channel:
        call = opened(channel)
        for each in messages:
            await call.write(each)
        await call.done_writing()
        try:
            await call.read()
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError("the stream went on")


async def test_a_node_of_another_cluster_is_refused(
    make: MakeEnd, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(1, None, cluster_id="other"), await make(2)
    hello = hello_of(a, b, DATA, cluster_id="other")
    code, text = await refusal(b, wire.ExchangeRequest(hello=hello).SerializeToString())
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text == "node 2 belongs to cluster cluster, not other"
    a.call(b)
    b.call(a)
    await until(lambda: "node 2 does not talk to this node" in caplog.text)
    await until(lambda: "node 1 does not talk to this node" in caplog.text)
    assert a.count("turned away")
    assert b.count("turned away")
    assert not a.transport.reaches(2)
    assert not a.count("introduced")
    assert not b.count("introduced")


async def test_a_node_at_the_wrong_address_is_refused(make: MakeEnd) -> None:
    a, b, c = await make(1), await make(2), await make(3)
    a.transport.set_peer(c.node_id, b.address)
    code, text = await refusal(
        b, wire.ExchangeRequest(hello=hello_of(a, c, DATA)).SerializeToString()
    )
    assert (code, text) == (grpc.StatusCode.FAILED_PRECONDITION, "this is node 2, not node 3")
    assert not a.transport.reaches(3)


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ([b"\xff\xff"], "2 bytes are no request"),
        ([], "the stream ended before its hello"),
    ],
)
async def test_a_stream_without_a_hello_is_refused(
    make: MakeEnd, first: list[bytes], text: str
) -> None:
    code, details = await refusal(await make(2), *first)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in details


async def test_a_stream_that_says_nothing_is_ended(make: MakeEnd) -> None:
    b = await make(2, LinkConfig(hello_timeout_ms=50))
    async with grpc.aio.insecure_channel(b.address) as channel:
        call = opened(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="no hello in time"):
            await call.read()


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (wire.ExchangeRequest(number=2), "request 2 came after 0"),
        (
            wire.ExchangeRequest(number=1, messages=[wire.GroupMessage(type=3, from_replica=1)]),
            "node 1 speaks for replica 1",
        ),
        (
            wire.ExchangeRequest(number=1, messages=[wire.GroupMessage(type=77)]),
            "message type 77 is unknown",
        ),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_cut_off(
    make: MakeEnd, second: wire.ExchangeRequest, text: str
) -> None:
    a, b = await make(1), await make(2)
    hello = wire.ExchangeRequest(hello=hello_of(a, b, DATA)).SerializeToString()
    code, details = await refusal(b, hello, second.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in details
    assert not b.arrivals
