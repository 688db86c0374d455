"""Everything between this node and its peers: links out, sessions in, and which message goes where.

For each peer there are two lanes, control and data, and on each lane two streams, one opened from
either side. Requests of Raft go up the own link, answers go down the peer's session:

                 control                                        data
    up           HEARTBEAT, votes, TIMEOUT_NOW, READ_INDEX      APP, SNAP, BASE_PART
    down         HEARTBEAT_RESP, vote answers, READ_INDEX_RESP  APP_RESP, BASE_PULL

The two lanes of a peer have a connection each (S17), so that a megabyte in a socket buffer never
stands before a heartbeat. Both begin as streams of gRPC, on a channel each; the data lane goes over
to frames on a connection of its own where the peer can be reached so (`framed`).

A data lane in which much waits, or that is down, is shut: the groups are told and send nothing
there until it has room. What they send all the same is refused if it does not fit, and its group is
told, which puts that replica's progress on probing; nothing is dropped behind the core's back. Any
other message that finds its lane full or down is dropped and counted: Raft repeats those.

Left out: what is in the messages, and every decision about groups and about whether a peer is up;
`PeerEvents` is where others take over.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from rakit.multiraft import codec
from rakit.multiraft.config import LinkConfig, peer_channel_options
from rakit.multiraft.effects import Envelope
from rakit.multiraft.framed import FramedStream
from rakit.multiraft.gather import LinkProtocolError
from rakit.multiraft.hello import CONTROL, DATA, Gate, Lane
from rakit.multiraft.link import METHOD, STOPPING, Link
from rakit.multiraft.machine import node_of
from rakit.multiraft.peer_events import PeerEvents
from rakit.multiraft.session import Session, SessionEndedError, Stream, received
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import MessageType

_UP_DATA: Final = frozenset({MessageType.APP, MessageType.SNAP, MessageType.BASE_PART})
_DOWN_DATA: Final = frozenset({MessageType.APP_RESP, MessageType.BASE_PULL})
_DOWN_CONTROL: Final = frozenset(
    {
        MessageType.HEARTBEAT_RESP,
        MessageType.VOTE_RESP,
        MessageType.PRE_VOTE_RESP,
        MessageType.READ_INDEX_RESP,
    }
)

_log = logging.getLogger(__name__)


class UnknownPeerError(KeyError):
    """No address is known for this node."""


@dataclass(frozen=True, slots=True)
class _Peer:
    address: str
    channels: tuple[grpc.aio.Channel, grpc.aio.Channel]
    control: Link
    data: Link

    async def close(self) -> None:
        # In this order, because the end of the control lane would have the data lane made anew.
        await self.data.close()
        await self.control.close()
        for channel in self.channels:
            await channel.close()


class Transport:
    """The links and sessions of a node."""

    def __init__(
        self, gate: Gate, config: LinkConfig, events: PeerEvents, rng: random.Random
    ) -> None:
        self._gate = gate
        self._config = config
        self._events = events
        self._rng = rng
        self._peers: dict[int, _Peer] = {}
        self._sessions: dict[tuple[int, Lane], Session] = {}
        self._closing: set[asyncio.Task[None]] = set()
        #: Nodes whose data lane takes no more, as was told.
        self._shut: set[int] = set()
        self._stopped = False
        self._synced_write = 0
        #: Where peers may open their data lanes as frames; 0: nowhere.
        self.lane_port = 0
        #: Messages that had no stream to leave by or found it full, appends apart.
        self.dropped_count = 0
        #: Appends that a full or missing link refused.
        self.refused_count = 0

    @property
    def peers(self) -> list[int]:
        """The nodes with a known address, ascending."""
        return sorted(self._peers)

    def set_peer(self, node_id: int, address: str | None) -> None:
        """Opens links to a node, moves them to another address, or with None closes them."""
        assert node_id != self._gate.identity.node_id, "a node has no link to itself"
        known = self._peers.get(node_id)
        if self._stopped or address == (None if known is None else known.address):
            return
        if known is not None:
            del self._peers[node_id]
            self._later(known.close())
        if address is not None:
            self._connect(node_id, address)
        self._room_changed(node_id)

    def _connect(self, node_id: int, address: str) -> None:
        channels = (
            grpc.aio.insecure_channel(address, peer_channel_options(self._config, bulk=False)),
            grpc.aio.insecure_channel(address, peer_channel_options(self._config, bulk=True)),
        )
        data = self._link(node_id, DATA, address, channels[1])
        control = self._link(node_id, CONTROL, address, channels[0], lost=data.hang_up)
        self._peers[node_id] = _Peer(address, channels, control, data)
        control.start()
        data.start()

    def _link(
        self,
        node_id: int,
        lane: Lane,
        address: str,
        channel: grpc.aio.Channel,
        lost: Callable[[float], None] = lambda _began_s: None,
    ) -> Link:
        return Link(
            node_id,
            lane,
            address,
            channel,
            gate=self._gate,
            config=self._config,
            events=self._events,
            rng=self._rng,
            room_changed=self._room_changed if lane == DATA else lambda _: None,
            lost=lost,
        )

    def _room_changed(self, node_id: int) -> None:
        """Tells when the data lane to a node is shut or opens; the link that it has now counts."""
        peer, shut = self._peers.get(node_id), node_id in self._shut
        has_room = peer is not None and peer.data.has_room
        if has_room is shut:
            (self._shut.discard if has_room else self._shut.add)(node_id)
            self._events.lane_changed(node_id, has_room=has_room)

    def channel(self, node_id: int) -> grpc.aio.Channel:
        """Returns the channel of the data link; raises `UnknownPeerError`."""
        peer = self._peers.get(node_id)
        if peer is None:
            raise UnknownPeerError(f"no address is known for node {node_id}")
        return peer.channels[1]

    def send(self, envelopes: Iterable[Envelope]) -> bool:
        """Puts every message on its lane; tells whether any may leave at once."""
        peers, sessions, may_leave = self._peers, self._sessions, False
        for each in envelopes:
            kind, node_id = each.message.type, node_of(each.to_replica)
            if kind in _UP_DATA:
                peer = peers.get(node_id)
                may_wait = kind is MessageType.APP and not (each.message.entries or each.is_prompt)
                if peer is not None and may_wait:
                    taken = peer.data.offer_news(each)
                else:
                    taken = peer is not None and peer.data.offer(each)
                    may_leave = may_leave or taken
                if not taken:
                    self.refused_count += 1
                    self._events.unreachable(each.group_id, each.to_replica)
                continue
            if kind in _DOWN_DATA or kind in _DOWN_CONTROL:
                lane = DATA if kind in _DOWN_DATA else CONTROL
                session = sessions.get((node_id, lane))
                taken = session is not None and session.offer(each)
            else:
                peer = peers.get(node_id)
                taken = peer is not None and peer.control.offer(each)
            may_leave = may_leave or taken
            if not taken:
                self.dropped_count += 1
        return may_leave

    def reaches(self, node_id: int) -> bool:
        """Tells whether the control link to a node is up, so that a ping would leave."""
        peer = self._peers.get(node_id)
        return peer is not None and peer.control.connected

    def ping(self, node_id: int, ping: wire.Ping) -> None:
        """Sends a ping."""
        if (peer := self._peers.get(node_id)) is not None:
            peer.control.ping(ping)

    def announce(self, group_id: int, term: int) -> None:
        """Tells every peer in which term this node leads a group; 0: it no longer does."""
        for peer in self._peers.values():
            peer.control.announce(group_id, term)

    def synced(self, write: int) -> None:
        """Notes that every write up to this one is durable: requests are worked off."""
        if write == self._synced_write:
            return
        self._synced_write = write
        for session in self._sessions.values():
            session.synced(write)

    @property
    def can_send(self) -> bool:
        """Whether an append to some peer would leave at once."""
        return any(peer.data.idle for peer in self._peers.values())

    def waiting_bytes(self, node_id: int) -> int:
        """Returns what waits for a peer on both lanes."""
        peer = self._peers.get(node_id)
        return 0 if peer is None else peer.control.waiting_bytes + peer.data.waiting_bytes

    def stop_sending(self) -> None:
        """Drops every stream: from here on nothing leaves this node, and nothing comes in."""
        self._stopped = True
        for session in self._sessions.values():
            session.end(STOPPING)
        while self._peers:
            _node_id, peer = self._peers.popitem()
            self._later(peer.close())

    async def close(self) -> None:
        """Ends every stream and waits until all is gone."""
        self.stop_sending()
        while self._closing:
            await asyncio.gather(*self._closing)

    def _later(self, closing: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def accept(self, stream: Stream) -> None:
        """Serves a stream that a peer opened, to its end."""
        hello = await self._greeted(stream)
        await self._serve(stream, hello)

    async def accept_frames(self, stream: FramedStream) -> None:
        """Serves a data lane that goes over to frames, once its caller says so, to its end."""
        hello = await self._greeted(stream)
        if hello.lane != DATA:
            await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, "data lanes only")
        stream.trust(behind_next=True)
        if await self._goes_over(stream):
            # Again, because that may have taken a while: a later start may have called meanwhile.
            await self._refuse_if_misplaced(stream, hello)
            await self._serve(stream, hello)

    async def _goes_over(self, stream: FramedStream) -> bool:
        """Tells whether the caller says so in time and has not ended the stream meanwhile."""
        try:
            async with asyncio.timeout(self._config.hello_timeout_ms / 1000):
                return received(await stream.read()) is not None and not stream.ended
        except TimeoutError:
            return False

    async def _greeted(self, stream: Stream) -> wire.Hello:
        """Returns the hello of a peer, judged and answered; ends the stream of any other."""
        hello = await self._first_message(stream)
        node_id, lane = hello.from_node_id, hello.lane
        await self._refuse_if_stopped(stream)
        await self._refuse_if_misplaced(stream, hello)
        answer = self._gate.hello(node_id, lane)
        if lane == DATA:
            answer.lane_port = self.lane_port
        await stream.write(wire.ExchangeResponse(hello=answer).SerializeToString())
        return hello

    async def _serve(self, stream: Stream, hello: wire.Hello) -> None:
        node_id, lane = hello.from_node_id, hello.lane
        await self._refuse_if_stopped(stream)
        session = Session(node_id, lane, self._config, self._events)
        if (older := self._sessions.get((node_id, lane))) is not None:
            older.end("a newer stream took its place")
        self._sessions[node_id, lane] = session
        self._events.introduced(node_id, hello.boot_epoch)
        self._poke(node_id)
        code, reason = grpc.StatusCode.OK, ""
        try:
            await session.run(stream)
        except* SessionEndedError as errors:
            code, reason = grpc.StatusCode.UNAVAILABLE, str(errors.exceptions[0])
        except* (LinkProtocolError, codec.MalformedMessageError) as errors:
            _log.error("ended the stream of node %d: %s", node_id, errors.exceptions[0])
            code, reason = grpc.StatusCode.INVALID_ARGUMENT, str(errors.exceptions[0])
        finally:
            if self._sessions.get((node_id, lane)) is session:
                del self._sessions[node_id, lane]
        if code is not grpc.StatusCode.OK:
            # Not above: what is raised there comes out in a group, which grpc takes for a bug.
            await stream.abort(code, reason)

    async def _refuse_if_misplaced(self, stream: Stream, hello: wire.Hello) -> None:
        if (verdict := self._gate.judge(hello)) is not None:
            _log.error("refused node %d: %s", hello.from_node_id, verdict)
            await stream.abort(grpc.StatusCode.FAILED_PRECONDITION, verdict)

    async def _refuse_if_stopped(self, stream: Stream) -> None:
        if self._stopped:
            await stream.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

    async def _first_message(self, stream: Stream) -> wire.Hello:
        try:
            async with asyncio.timeout(self._config.hello_timeout_ms / 1000):
                data = received(await stream.read())
            if data is not None:
                return codec.decode_request(bytes(data)).hello
            reason = "the stream ended before its hello"
        except TimeoutError:
            reason = "no hello in time"
        except codec.MalformedMessageError as error:
            reason = str(error)
        return await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)

    def _poke(self, node_id: int) -> None:
        """A peer that calls is there: end the waiting between our own attempts."""
        if (peer := self._peers.get(node_id)) is not None:
            peer.control.poke()
            peer.data.poke()


class RaftPeerServicer:
    """Adds the peer service to a server; messages stay bytes, the transport parses them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the handlers; to be called before the server starts."""
        service, method = METHOD.strip("/").split("/")
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._exchange
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )

    async def _exchange(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        await self._transport.accept(context)
