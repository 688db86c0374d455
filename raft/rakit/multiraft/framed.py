"""The data lane as frames over TCP: what a stream of gRPC is to a link and to a session, for less.

A stream of gRPC costs both ends 0.1 ms and more for each message, most of it in its threads and
locks; the lane between two nodes needs none of what that buys: one stream to a connection, one
writer, one reader, pacing of its own (`gather.Window`). The bytes are the same messages as on a
stream of gRPC, and what calls or accepts has the same three methods. Decision 0018 has the figures.

Rules:

- The lane is offered in the answer to a hello on gRPC and begins with hellos of its own, which are
  judged like any others. Then the caller says that it goes over, by an empty message; only then
  does this stream take the place of the one on gRPC, so that a caller who gave up loses nothing. A
  peer that cannot be reached this way stays on gRPC.
- One task reads a stream and one writes it. A write waits while much has not left yet, and nothing
  is read from the socket while much waits for the reader.
- A message may be looked at as long as anybody likes; who keeps a part of a large one keeps all of
  its memory.
- A stream that ended reads as its end; what is written to it then goes nowhere, as what was
  written a moment before did. Raft sends it again.
- Whether a peer is gone is found by the control lane, which has pings of its own; the data lane
  ends with it. The kernel's own limit stands behind that, for a way that is lost to this lane only.
  It is long, because it also counts while a peer does not read, for which its disk may be a reason.

Left out: encryption, which wraps the socket one day (the node refuses to be reached from other
machines in plaintext unless it is told to).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn, cast

import grpc

from rakit.multiraft.config import GRPC_MESSAGE_BYTES_MAX
from rakit.multiraft.frames import Frame, Frames, FrameTooLongError, head
from rakit.raft import Payload

#: Received and not yet read, at which a stream stops to read its socket; it goes on at half.
RECEIVED_BYTES_MAX: Final = 4 << 20
#: Written and not yet taken by the kernel, at which a write waits.
UNSENT_BYTES_MAX: Final = 1 << 20
#: Connections that are served at once; beyond it new ones are closed. Peers have one each.
CONNECTIONS_COUNT_MAX: Final = 1024
#: Time in which nothing of what was sent was taken, after which the kernel ends a connection.
SILENCE_MS_MAX: Final = 30_000
PORT_MAX: Final = 65_535
#: What a message counts for beside its bytes, so that empty ones do not pile up either.
MESSAGE_COST_BYTES: Final = 64

#: Up to here a message and its length are joined, so that they leave in one segment anyway.
_JOINED_BYTES_MAX: Final = 4096
_PROBE_S: Final = 5
#: Connections that wait to be taken.
_BACKLOG_COUNT: Final = 128
#: Until connections are taken again after the process had no handle left for one.
_ACCEPT_RETRY_S: Final = 1.0
#: Of an address: host, port, flow and scope.
_IPV6_PARTS: Final = 4

_log = logging.getLogger(__name__)


class StreamRefusedError(Exception):
    """The end of a stream that this node does not serve, or serves no longer."""


class FramedStream(asyncio.BufferedProtocol):
    """One connection that carries messages, from either end.

    Made by `dial` and by `LaneServer`. `opened` is called once, when the connection is there.
    """

    def __init__(self, opened: Callable[[FramedStream], None] | None = None) -> None:
        self._opened = opened
        #: Set when the connection is over and its socket is about to be closed.
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._messages: deque[Frame] = deque()
        self._received_bytes = 0
        self._is_paused = False
        self._ended = False
        #: Who is at the other end, for logs; a connection that is over does not know any more.
        self.peer = "nobody"
        self._reader: asyncio.Future[None] | None = None
        #: Set while much waits to leave.
        self._room: asyncio.Future[None] | None = None

    async def read(self) -> Frame | None:
        """Returns the next message; None at the end.

        Whoever keeps a part of a large one keeps all of its memory.
        """
        while not self._messages:
            if self._ended:
                return None
            assert self._reader is None, "a stream is read by one task"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        self._received_bytes -= len(message) + MESSAGE_COST_BYTES
        if self._is_paused and self._received_bytes <= RECEIVED_BYTES_MAX // 2:
            self._is_paused = False
            if not self._ended:
                self._connection.resume_reading()
        return message

    async def write(self, message: bytes) -> None:
        """Sends a message and waits until there is room for another."""
        await self.write_pieces([message])

    async def write_pieces(self, pieces: Sequence[Payload]) -> None:
        """Sends a message that is made of pieces; uvloop does not put them together."""
        if self._ended:
            return
        size = sum([len(piece) for piece in pieces])
        if size <= _JOINED_BYTES_MAX:
            self._connection.write(b"".join([head(size), *pieces]))
        else:
            self._connection.writelines([head(size), *pieces])
        if self._room is not None:
            # Shielded, because whoever is cancelled here may not be the last to wait for it.
            await asyncio.shield(self._room)

    def trust(self, *, behind_next: bool = False) -> None:
        """Lets the peer, which was judged, send messages of any size that peers send.

        At once, or from behind the next one on.
        """
        self._frames.allow(GRPC_MESSAGE_BYTES_MAX, behind_next=behind_next)

    async def abort(self, code: grpc.StatusCode, reason: str) -> NoReturn:
        """Ends the stream; the peer hears the reason when it calls again, over gRPC."""
        self.cancel()
        raise StreamRefusedError(f"{code.name}: {reason}")

    def cancel(self) -> bool:
        """Ends the stream at once; what has not left is dropped."""
        if self._ended:
            return False
        self._connection.abort()
        self._end()
        return True

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more but what was received already."""
        return self._ended

    @property
    def _connection(self) -> asyncio.Transport:
        assert self._transport is not None, "a stream is used once it is connected"
        return self._transport

    def _end(self) -> None:
        self._ended = True
        for waiter in (self._reader, self._room):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # asyncio.BufferedProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # Not asked of the object: those of uvloop have another class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self.peer = str(self._transport.get_extra_info("peername"))
        try:
            _set_options(self._transport.get_extra_info("socket"))
        except OSError as error:
            # It may be over already.
            _log.info("a data lane broke at once: %s", error)
            self.cancel()
            return
        if self._opened is not None:
            self._opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        del sizehint
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        try:
            messages = self._frames.filled(nbytes)
        except FrameTooLongError as error:
            _log.info("ended a data lane of %s: %s", self.peer, error)
            self.cancel()
            return
        if not messages:
            return
        self._messages.extend(messages)
        self._received_bytes += sum([len(each) + MESSAGE_COST_BYTES for each in messages])
        if self._received_bytes >= RECEIVED_BYTES_MAX and not self._is_paused:
            self._is_paused = True
            self._connection.pause_reading()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def eof_received(self) -> bool:
        """See asyncio: a peer that sends no more is gone."""
        self.cancel()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if exc is not None:
            _log.info("a data lane broke: %s", exc)
        self._end()
        self._frames.drop()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None


async def dial(address: str, port: int, timeout_s: float) -> FramedStream:
    """Connects to a port of the host in a peer's address; raises `OSError`, in time.

    A host that has several addresses is tried at each, for a part of the time.
    """
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if port > PORT_MAX:
        raise OSError(f"there is no port {port}")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except ValueError as error:
            raise OSError(f"{host!r} is no host: {error}") from error
        failed: OSError | None = None
        for _, _, _, _, where in found:
            # A link-local address of IPv6 counts on one interface.
            zone = f"%{where[3]}" if len(where) == _IPV6_PARTS and where[3] else ""
            try:
                async with asyncio.timeout(timeout_s / len(found)):
                    _, stream = await loop.create_connection(
                        FramedStream, f"{where[0]}{zone}", port
                    )
                    return stream
            except OSError as error:
                failed = error
    raise failed or OSError(f"{host!r} has no address")


class LaneServer:
    """Accepts the data lanes of peers, on a socket that is bound already, until it is closed.

    By hand: a server of asyncio that is closed forgets what it accepted in the same turn, socket
    and all.
    """

    def __init__(self, accept: Callable[[FramedStream], Awaitable[None]]) -> None:
        self._accept = accept
        self._bound: socket.socket | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._serving: dict[asyncio.Task[None], FramedStream] = {}
        #: Streams whose connections are not over, also those that are not served.
        self._streams: set[FramedStream] = set()
        self._closing = False

    def start(self, bound: socket.socket) -> None:
        """Begins to listen; the socket is closed with this server."""
        assert self._bound is None, "a server is started once"
        assert not self._closing, "a server that was closed is not started again"
        self._bound = bound
        bound.setblocking(False)
        bound.listen(_BACKLOG_COUNT)
        self._listen()

    async def close(self) -> None:
        """Ends every stream, and waits until nobody serves one and all are over."""
        self._closing = True
        bound, self._bound = self._bound, None
        if bound is not None:
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()
        for task, stream in self._serving.items():
            stream.cancel()
            task.cancel()
        for tasks in (self._serving, self._connecting):
            if tasks:
                await asyncio.wait(list(tasks))
        if self._streams:
            await asyncio.wait([stream.lost for stream in self._streams])

    def _listen(self) -> None:
        if self._bound is not None:
            asyncio.get_running_loop().add_reader(self._bound, self._take, self._bound)

    def _take(self, bound: socket.socket) -> None:
        try:
            connection, _ = bound.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it is gone again
        except OSError as error:
            _log.error("no data lane can be accepted now: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(bound)
            loop.call_later(_ACCEPT_RETRY_S, self._listen)
            return
        task = asyncio.get_running_loop().create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        stream = self._made()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, connection)
        except BaseException as error:
            # Whether its end will be told depends on how far it had come.
            if not stream.lost.done():
                stream.lost.set_result(None)
            connection.close()
            if not isinstance(error, OSError):
                raise
            _log.info("a data lane broke at once: %s", error)

    def _made(self) -> FramedStream:
        stream = FramedStream(self._opened)
        self._streams.add(stream)
        stream.lost.add_done_callback(lambda _: self._streams.discard(stream))
        return stream

    def _opened(self, stream: FramedStream) -> None:
        if self._closing or len(self._serving) >= CONNECTIONS_COUNT_MAX:
            _log.info("closed a data lane of %s: %d are open", stream.peer, len(self._serving))
            stream.cancel()
            return
        task = asyncio.get_running_loop().create_task(self._serve(stream), name="a data lane")
        self._serving[task] = stream
        task.add_done_callback(self._served)

    async def _serve(self, stream: FramedStream) -> None:
        try:
            await self._accept(stream)
        except StreamRefusedError as error:
            _log.info("ended a data lane of %s: %s", stream.peer, error)
        finally:
            stream.cancel()

    def _served(self, task: asyncio.Task[None]) -> None:
        del self._serving[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("serving a data lane failed", exc_info=error)


def _set_options(connection: socket.socket) -> None:
    """Has the kernel send at once, and end a connection on which nothing is taken or answered."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        tcp = socket.IPPROTO_TCP
        connection.setsockopt(tcp, socket.TCP_KEEPIDLE, _PROBE_S)
        connection.setsockopt(tcp, socket.TCP_KEEPINTVL, _PROBE_S)
        connection.setsockopt(tcp, socket.TCP_KEEPCNT, SILENCE_MS_MAX // 1000 // _PROBE_S)
        connection.setsockopt(tcp, socket.TCP_USER_TIMEOUT, SILENCE_MS_MAX)
