"""The asking end of one lane to one peer: a stream that gathers, paces and comes back.

One task connects, says hello, then reads while another writes; when the stream breaks it calls
again. What waits when it breaks is forgotten, together with what was under way: Raft sends it
again, from what the peer really has, and the driver is told so that it does not wait for answers
that will not come.

Rules:

- A call after a break is made at once, since its refusal is the fastest sign that the peer's
  process is gone (S16). Later ones wait, twice as long each time, jittered, until somebody knows
  better (`poke`).
- Requests follow `gather.Window`. Pings and announcements do not: they are few and must not wait
  for anybody's disk.
- A data lane tells when it has got room or has none left (S17); one that is down has none.
- Nothing is written before the peer's hello came and was judged.
- A data lane goes over to frames where the peer offers them (`lane_port`): before it counts as up,
  or, where that was of no use once, when the port is reached beside the lane.
- A data lane ends with the control lane, which is who finds out in time that the other side is
  silent; and, if it is older, with each silence that meets an attempt to make that one again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

import grpc
import grpc.aio

from rakit.multiraft import codec
from rakit.multiraft.bell import Bell
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.effects import Envelope
from rakit.multiraft.framed import FramedStream
from rakit.multiraft.gather import Gather, LinkProtocolError, Window, check_senders
from rakit.multiraft.hello import CONTROL, DATA, Gate, Lane
from rakit.multiraft.inbox import Arrival
from rakit.multiraft.lane_port import (
    Greeted,
    LanePort,
    LinkEndedError,
    OvertakenError,
    SilentPeerError,
    UnansweredError,
    check_is_same_start,
)
from rakit.multiraft.peer_events import PeerEvents
from rakit.multiraft.session import received
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import Payload

METHOD: Final = "/rakit.peer.v1.RaftService/Exchange"
#: What a node says that still listens but takes part no more; as good as nobody listening.
STOPPING: Final = "the node stops"
#: A loop's clock may count milliseconds: what is due within one is due.
_CLOCK_S: Final = 0.001

_log = logging.getLogger(__name__)


class Link:
    """One lane to one peer, from `start` to `close`."""

    def __init__(
        self,
        node_id: int,
        lane: Lane,
        address: str,
        channel: grpc.aio.Channel,
        *,
        gate: Gate,
        config: LinkConfig,
        events: PeerEvents,
        rng: random.Random,
        room_changed: Callable[[int], None],
        lost: Callable[[float], None] = lambda _began_s: None,
    ) -> None:
        self.node_id = node_id
        self.lane = lane
        self._room_changed = room_changed
        self._tell_lost = lost
        self._open: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        self._gate = gate
        self._config = config
        self._events = events
        self._rng = rng
        is_data = lane == DATA
        bytes_max = config.data_queue_bytes_max if is_data else config.control_queue_bytes_max
        self._gather = Gather(bytes_max, config.queue_count_max)
        #: Whether more should be read to be sent here; after a pause, only when half has left.
        self.has_room = False
        self._pause_at = (config.data_pause_bytes, config.data_pause_count)
        self._go_on_at = (
            max(1, config.data_pause_bytes // 2),
            max(1, config.data_pause_count // 2),
        )
        self._window = Window(config)
        #: Set while commit news wait for company; they have waited long enough when it rings.
        self._news_timer: asyncio.TimerHandle | None = None
        #: When the oldest of the news came, on the loop's clock.
        self._news_since_s = 0.0
        self._news_due = False
        self._ping: wire.Ping | None = None
        #: Groups to announce: the term that this node leads in, 0 for no longer.
        self._leaderships: dict[int, int] = {}
        self._leaderships_complete = False
        self._connected = False
        #: Whether frames carry the lane, not gRPC; as long as it is connected.
        self.is_framed = False
        self._port = LanePort(node_id, address, config, self._greet)
        #: Greeted beside the stream before, which ended in its favour.
        self._handed: Greeted | None = None
        #: When the attempt began that is up or under way.
        self._began_s = 0.0
        self._hung_up = asyncio.Event()
        #: A task group whose child fails at the moment of a cancellation swallows that.
        self._closed = False
        self._wake = Bell()
        self._poke = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the lane carries messages at the moment."""
        return self._connected

    @property
    def idle(self) -> bool:
        """Whether a request would leave at once."""
        return self._connected and not len(self._gather) and self._window.is_open(0)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to leave."""
        return self._gather.size_bytes

    @property
    def refused_count(self) -> int:
        """Messages that found the queue full since the link was made."""
        return self._gather.refused_count

    def start(self) -> None:
        """Begins to connect, for as long as it takes."""
        assert self._task is None, "a link is started once"
        self._task = asyncio.create_task(self._run(), name=f"link to node {self.node_id}")
        self._task.add_done_callback(_tell_of_bug)

    async def close(self) -> None:
        """Ends the stream and every attempt to make one."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._handed is not None:
            self._handed.stream.cancel()

    def offer(self, envelope: Envelope) -> bool:
        """Takes a request to be sent; False when the lane is down or full."""
        if not self._connected or not self._gather.offer(envelope):
            return False
        self._judge_room()
        self._wake.ring()
        return True

    def offer_news(self, envelope: Envelope) -> bool:
        """Takes an append without entries: it leaves with the next request, or soon alone."""
        had_news = self._gather.has_news
        if not self._connected or not self._gather.offer_news(envelope):
            return False
        if not had_news:
            self._news_since_s = asyncio.get_running_loop().time()
        if self._news_timer is None:
            self._await_company(self._config.commit_delay_ms / 1000)
        return True

    def _await_company(self, delay_s: float) -> None:
        self._news_timer = asyncio.get_running_loop().call_later(delay_s, self._news_waited)

    def ping(self, ping: wire.Ping) -> None:
        """Sends a ping past everything that waits; a newer one replaces one that waits."""
        if self._connected:
            self._ping = ping
            self._wake.ring()

    def announce(self, group_id: int, term: int) -> None:
        """Tells the peer in which term this node leads a group; 0: it no longer does."""
        if self._connected:
            self._leaderships[group_id] = term
            self._wake.ring()

    def poke(self) -> None:
        """Ends the waiting between two attempts: the peer has shown itself."""
        self._poke.set()

    def hang_up(self, before_s: float) -> None:
        """Ends the stream that is up or under way, if it began before; it is made again."""
        if self._began_s < before_s:
            self._hung_up.set()

    async def _run(self) -> None:
        attempt, expected = 0, False
        loop, timeout_ms = asyncio.get_running_loop(), self._config.hello_timeout_ms
        while not self._closed:
            framed = self._take_handed()
            # gRPC answers from memory for a while after a failure. When the peer has shown itself
            # that memory is wrong, and the call waits until the channel has tried again.
            call: _Call = framed.stream if framed else self._open(wait_for_ready=expected)
            came_up_at, was_silent, was_answered = None, False, True
            self._began_s = began_s = loop.time()
            self._hung_up.clear()
            try:
                if framed is not None:
                    hello = framed.hello
                    await framed.go_over()
                else:
                    hello = await self._greet(call, timeout_ms)
                    framed = await self._port.open(hello, is_over=self._hung_up.is_set)
                    if framed is not None:
                        call.cancel()
                        call, hello = framed.stream, framed.hello
                self._judge(hello)  # again: that took a while
                self._come_up(hello)
                self.is_framed = framed is not None
                came_up_at = loop.time()
                # In a task of its own, because a task group whose child fails may leave its task
                # marked as cancelled, and a later time limit would then end this one for good
                # (Python before 3.11.4, python/cpython#102780).
                await loop.create_task(self._exchange(call, hello))
            except* (
                grpc.aio.AioRpcError,
                LinkEndedError,
                LinkProtocolError,
                codec.MalformedMessageError,
            ) as errors:
                was_silent = isinstance(errors.exceptions[0], SilentPeerError)
                was_answered = not isinstance(errors.exceptions[0], UnansweredError)
                self._explain(errors.exceptions[0], was_up=came_up_at is not None)
            finally:
                call.cancel()
                self._broke(was_up=came_up_at is not None)
                if came_up_at is not None or was_silent:
                    self._tell_lost(began_s if was_silent else loop.time())
            lasted_s = 0.0 if came_up_at is None else loop.time() - came_up_at
            if self.is_framed and came_up_at is not None:
                by_us = self._hung_up.is_set()
                self._port.ended(lasted_s, was_answered=was_answered, by_us=by_us)
            if self._closed:
                break
            if self._handed or 1000 * lasted_s >= self._config.backoff_ms_max:
                attempt, expected = 0, False
                continue  # the refusal of this call is news (S16)
            expected = await self._pause(attempt)
            attempt = 0 if expected else attempt + 1

    def _take_handed(self) -> Greeted | None:
        """Returns the stream to go over to, if it lives and no silence was noticed since."""
        handed, self._handed = self._handed, None
        if handed is not None and (handed.stream.ended or self._hung_up.is_set()):
            handed.stream.cancel()
            return None
        return handed

    async def _greet(
        self, call: _Call, timeout_ms: int, there: wire.Hello | None = None
    ) -> wire.Hello:
        """Returns the peer's hello; raises when the peer is not there or not the right one."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                hello = self._gate.hello(self.node_id, self.lane)
                await call.write(wire.ExchangeRequest(hello=hello).SerializeToString())
                answer = codec.decode_response(_message(await call.read())).hello
        except TimeoutError as error:
            raise SilentPeerError("no hello in time") from error
        if there is not None:
            # First, because to judge a hello is to take note of it.
            check_is_same_start(answer, there)
        self._judge(answer)
        return answer

    def _judge(self, answer: wire.Hello) -> None:
        verdict = self._gate.judge(answer, self.node_id)
        if verdict is None and answer.lane != self.lane:
            verdict = f"node {self.node_id} answered on another lane"
        if verdict is not None:
            raise LinkEndedError(verdict)

    def _come_up(self, answer: wire.Hello) -> None:
        self._connected = True
        self._window = Window(self._config)
        if self.lane == CONTROL:
            self._leaderships = self._events.led_here()
            self._leaderships_complete = True
        self._judge_room()
        self._events.introduced(self.node_id, answer.boot_epoch)

    async def _exchange(self, call: _Call, hello: wire.Hello) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(call))
            tasks.create_task(self._read(call))
            if self.lane == DATA:
                tasks.create_task(self._follow_control())
            if self.is_framed:
                tasks.create_task(self._expect_an_answer())
            elif hello.lane_port:
                tasks.create_task(self._go_over(hello))

    async def _follow_control(self) -> None:
        await self._hung_up.wait()
        raise LinkEndedError("the control lane ended")

    async def _expect_an_answer(self) -> None:
        """Ends a stream as frames on which nothing was ever answered."""
        while not self._window.processed:
            was_sent = self._window.sent > 0
            await asyncio.sleep(self._config.unanswered_ms_max / 1000)
            if was_sent and not self._window.processed:
                raise UnansweredError("nothing that was sent as frames was answered")

    async def _go_over(self, hello: wire.Hello) -> None:
        """Ends a stream on gRPC in favour of one as frames, once there is one."""
        self._handed = await self._port.open_beside(hello)
        raise LinkEndedError("it goes over to frames")

    async def _write(self, call: _Call) -> None:
        while True:
            request = self._next_request()
            if request is None:
                await self._wake.heard()
                continue
            try:
                if isinstance(call, FramedStream):
                    await call.write_pieces(request)
                else:
                    await call.write(b"".join(request))
            except asyncio.InvalidStateError as error:
                # What grpc says when the call ended before this write; the reader knows why.
                raise LinkEndedError("the stream ended") from error

    def _next_request(self) -> list[Payload] | None:
        if self._ping is not None or self._leaderships or self._leaderships_complete:
            return [self._notice()]
        gather = self._gather
        if self._is_due and self._window.is_open(gather.size_bytes):
            envelopes = gather.take(self._config.request_bytes_max)
            self._news_due = gather.has_news
            self._judge_room()
            return codec.encode_request(self._window.next_number(), envelopes)
        return None

    @property
    def _is_due(self) -> bool:
        """Whether something waits for the window only."""
        return len(self._gather) > 0 or (self._news_due and self._gather.has_news)

    def _notice(self) -> bytes:
        """Returns a request outside the window: a ping, announcements, or both."""
        news, complete = self._leaderships, self._leaderships_complete
        request = wire.ExchangeRequest(ping=self._ping)
        if news or complete:
            led = {group_id: term for group_id, term in news.items() if term}
            request.leaderships.complete = complete
            request.leaderships.group_ids.extend(led)
            request.leaderships.terms.extend(led.values())
            request.leaderships.ended_group_ids.extend(each for each in news if not news[each])
        self._ping, self._leaderships, self._leaderships_complete = None, {}, False
        return request.SerializeToString()

    async def _read(self, call: _Call) -> None:
        urgent = self.lane == CONTROL
        while True:
            data = _message(await call.read())
            response = codec.decode_response(data)
            if response.HasField("pong"):
                self._events.ponged(self.node_id, response.pong)
            envelopes = codec.envelopes_of(response)
            if envelopes:
                check_senders(self.node_id, envelopes)
                await self._events.arrived(Arrival(envelopes, len(data), urgent))
            if response.processed > self._window.processed:
                self._window.worked_off(response.processed)
                if self._is_due:
                    self._wake.ring()

    def _judge_room(self) -> None:
        bytes_min, count_min = self._pause_at if self.has_room else self._go_on_at
        has_room = self._connected and not self._gather.holds(bytes_min, count_min)
        if has_room is not self.has_room:
            self.has_room = has_room
            self._room_changed(self.node_id)

    def _news_waited(self) -> None:
        self._news_timer = None
        if not self._gather.has_news:
            return
        # What was there when the timer was set has left with an append, as a rule.
        until_s = self._news_since_s + self._config.commit_delay_ms / 1000
        left_s = until_s - asyncio.get_running_loop().time()
        if left_s > _CLOCK_S:
            self._await_company(left_s)
            return
        self._news_due = True
        self._wake.ring()

    def _broke(self, *, was_up: bool) -> None:
        self._connected = False
        if self._news_timer is not None:
            self._news_timer.cancel()
            self._news_timer = None
        self._news_due = False
        self._gather.clear()
        self._ping = None
        self._judge_room()
        if was_up:
            self._events.disconnected(self.node_id, self.lane)

    def _explain(self, error: BaseException, *, was_up: bool) -> None:
        text = _text(error)
        if was_up:
            _log.info("link to node %d broke: %s", self.node_id, text)
        if "onnection refused" in text or STOPPING in text:
            self._events.refused(self.node_id)
        elif was_up or isinstance(error, OvertakenError):
            return
        elif not isinstance(error, grpc.aio.AioRpcError):
            _log.error("node %d and this node do not talk: %s", self.node_id, text)
        elif error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            _log.error("node %d does not talk to this node: %s", self.node_id, text)
            self._events.turned_away(self.node_id)

    async def _pause(self, attempt: int) -> bool:
        """Waits before the next attempt; returns whether the peer has shown itself meanwhile."""
        config = self._config
        longest = min(config.backoff_ms_max, config.backoff_ms_min << min(attempt, 16))
        self._poke.clear()
        try:
            async with asyncio.timeout(longest * self._rng.uniform(0.5, 1) / 1000):
                await self._poke.wait()
        except TimeoutError:
            return False
        return True


class _Call(Protocol):
    """The part of a bidirectional call that a link uses; messages are bytes as they are."""

    async def write(self, request: bytes, /) -> None: ...

    async def read(self) -> object: ...

    def cancel(self) -> bool: ...


def _tell_of_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a link between nodes has ended for good", exc_info=error)


def _message(data: object) -> bytes:
    if (message := received(data)) is None:
        raise LinkEndedError("the peer ended the stream")
    return bytes(message)


def _text(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()} {error.debug_error_string()}"
    return str(error)
