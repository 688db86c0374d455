"""What several test modules of the host need: disks, machines, ends of links, a cable to cut."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator, Sequence

import grpc.aio
import pytest

from rakit.multiraft import codec
from rakit.multiraft.config import LinkConfig, peer_server_options
from rakit.multiraft.effects import Envelope
from rakit.multiraft.framed import LaneServer
from rakit.multiraft.hello import Gate, Lane, NodeIdentity, StoreMemory
from rakit.multiraft.inbox import Arrival
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.machine import GroupMeta
from rakit.multiraft.machine import replica_id as replica_of
from rakit.multiraft.transport import RaftPeerServicer, Transport
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import Entry, EntryType, Message, MessageType


class DictDisk:
    """A disk of nothing but a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, batch: WriteBatch) -> None:
        for op, key, value in batch.ops:
            assert op == Op.PUT, "the notes are rows"
            self.rows[key] = bytes(value)

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((key, value) for key, value in self.rows.items() if lo <= key < hi))

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        found = list(self.scan(lo, hi))
        return found[-1] if found else None


class Journal:
    """A machine that keeps every payload; its result is how many there are."""

    def __init__(self, meta: GroupMeta) -> None:
        self.meta = meta
        self.payloads: list[bytes] = []

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        del writes
        self.payloads.append(bytes(entry.data))
        return len(self.payloads)

    def snapshot(self) -> bytes:
        return b"\n".join(self.payloads)

    def restore(self, data: bytes, index: int) -> None:
        del index
        self.payloads = data.split(b"\n") if data else []

    def checkpoint_due(self) -> bool:
        return False

    def trim_index(self) -> int:
        return 0

    def trim_targets(self) -> tuple[int, ...]:
        return ()


async def until(holds: Callable[[], object], seconds: float = 10) -> None:
    """Waits for a condition, looking often."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"it did not come true in {seconds} s")


def append(size: int, sender: int = 1, to: int = 2) -> Envelope:
    """An append message from a replica of node `sender` to one of node `to`."""
    return message(MessageType.APP, sender, to, b"x" * size)


def message(kind: MessageType, sender: int, to: int, payload: bytes = b"") -> Envelope:
    entries = (Entry(1, 1, EntryType.NORMAL, payload),) if payload else ()
    a, b = replica_of(sender, 1), replica_of(to, 1)
    return Envelope(7, a, b, Message(kind, b, a, 1, entries=entries))


def encoded(number: int, envelopes: Sequence[Envelope]) -> bytes:
    """A request in one piece."""
    return b"".join(codec.encode_request(number, envelopes))


class End:
    """One node's transport with a server, whose listener writes down what it is told.

    Requests wait in `arrivals` until the test steps them, as the step loop would.
    """

    def __init__(
        self,
        node_id: int,
        config: LinkConfig | None = None,
        cluster_id: str = "cluster",
        *,
        framed: bool = False,
    ) -> None:
        self.node_id = node_id
        self.arrivals: list[Arrival] = []
        self.told: list[tuple[object, ...]] = []
        self.led: dict[int, int] = {}
        self.silent = False
        self.config = LinkConfig(backoff_ms_max=100) if config is None else config
        identity = NodeIdentity(cluster_id, node_id, f"store-{node_id}", 1, 0)
        memory = StoreMemory(DictDisk())
        gate = Gate(identity, lambda: 1, memory, lambda _rollback: None, lambda _node_id: 0)
        self.transport = Transport(gate, self.config, self, random.Random(node_id))
        self.server: grpc.aio.Server | None = None
        self.port = 0
        #: Offers its peers frames for the data lane.
        self.framed = framed
        self.lanes: LaneServer | None = None
        self.lane_port = 0

    async def serve(self, port: int = 0) -> End:
        self.server = grpc.aio.server(options=peer_server_options(self.config))
        RaftPeerServicer(self.transport).add_to(self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        await self.server.start()
        if self.framed:
            bound = socket.create_server(("127.0.0.1", 0))
            self.lane_port = self.transport.lane_port = bound.getsockname()[1]
            self.lanes = LaneServer(self.transport.accept_frames)
            self.lanes.start(bound)
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def call(self, other: End) -> None:
        self.transport.set_peer(other.node_id, other.address)

    async def die(self) -> None:
        """Stops listening and resets every connection, as the end of a process does."""
        if self.server is not None:
            await self.server.stop(None)
            self.server = None
        if self.lanes is not None:
            await self.lanes.close()
            self.lanes = None

    def carries_frames_to(self, other: End) -> bool:
        """Whether the data lane to another end is up and goes past gRPC."""
        data = self.transport._peers[other.node_id].data
        return data.connected and data.is_framed

    async def close(self) -> None:
        await self.transport.close()
        await self.die()

    def count(self, *what: object) -> int:
        return sum(each[: len(what)] == what for each in self.told)

    def requests(self) -> list[Arrival]:
        return [each for each in self.arrivals if each.requester is not None]

    def sizes(self) -> list[int]:
        """How many messages each arrival carries."""
        return [len(each.envelopes) for each in self.arrivals]

    def step(self, arrival: Arrival, write: int = 0) -> None:
        assert arrival.requester is not None
        arrival.requester.stepped(arrival.number, write)

    # PeerEvents.

    def introduced(self, node_id: int, boot_epoch: int) -> None:
        self.told.append(("introduced", node_id, boot_epoch))

    def disconnected(self, node_id: int, lane: Lane) -> None:
        self.told.append(("disconnected", node_id, lane))

    def refused(self, node_id: int) -> None:
        self.told.append(("refused", node_id))

    def turned_away(self, node_id: int) -> None:
        self.told.append(("turned away", node_id))

    def pinged(self, node_id: int, ping: wire.Ping) -> wire.Ping | None:
        self.told.append(("pinged", node_id, ping.number))
        return None if self.silent else wire.Ping(number=ping.number, boot_epoch=1)

    def ponged(self, node_id: int, pong: wire.Ping) -> None:
        self.told.append(("ponged", node_id, pong.number))

    def announced(self, node_id: int, leaderships: wire.Leaderships) -> None:
        led = dict(zip(leaderships.group_ids, leaderships.terms, strict=True))
        ended = list(leaderships.ended_group_ids)
        self.told.append(("announced", node_id, leaderships.complete, led, ended))

    def led_here(self) -> dict[int, int]:
        return dict(self.led)

    def lane_changed(self, node_id: int, *, has_room: bool) -> None:
        self.told.append(("lane has room" if has_room else "lane is full", node_id))

    def unreachable(self, group_id: int, replica_id: int) -> None:
        self.told.append(("unreachable", group_id, replica_id))

    async def arrived(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)


async def linked(a: End, b: End) -> None:
    """Has both ends call each other and waits until all four streams are up."""
    a.call(b)
    b.call(a)
    await until(lambda: is_up(a, b) and is_up(b, a))


def is_up(a: End, b: End) -> bool:
    """Whether both lanes from one end to another are up."""
    peer = a.transport._peers[b.node_id]
    return peer.control.connected and peer.data.connected


class Cable:
    """A TCP relay that can stop relaying without a word, as a cable does when it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._intact = asyncio.Event()
        self._intact.set()
        #: How long it takes over what fits into one read, 64 KiB.
        self.delay_s = 0.0
        self.port = 0

    async def lay(self, bound: socket.socket | None = None) -> Cable:
        bound = bound or socket.create_server(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=bound)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        self._intact.clear()

    def mend(self) -> None:
        self._intact.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except (asyncio.CancelledError, OSError):
            # One side went away; a cable does not mind.
            writer.close()
        finally:
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._intact.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer))
                tasks.create_task(self._pump(far_reader, writer))
        except* OSError:
            writer.close()
        finally:
            far_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._intact.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one end hung up")
