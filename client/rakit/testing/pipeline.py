"""The processes of the bare pipeline (`rakit.client.bench.pipeline` says what it is for).

    python -m rakit.testing.pipeline DIRECTORY [FOLLOWER ...]

With the addresses of followers it is a leader, else a follower. It prints its port and serves until
its stdin ends, so it cannot outlive whoever started it.

One stream is one log. A message to the leader is one entry; the leader writes it, sends it to each
follower, and counts it as committed once its own disk and one of two others has it. Everybody
writes first and lets one thread sync what was written, so the writes of the meantime share the next
sync. Left out is all that makes a log safe: terms, elections, checksums, catching up, an end of the
log.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc
import grpc.aio
from uvloop import new_event_loop

from rakit.client.bench.pipeline import NUMBER, OPTIONS, SERVICE, Outbox
from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.engine import EngineError, Operation, RocksEngine
from rakit.multiraft.store.errors import Fault

if TYPE_CHECKING:
    # Generic in the stubs for type checkers only.
    Context = grpc.aio.ServicerContext[bytes, bytes]
    Call = grpc.aio.StreamStreamCall[bytes, bytes]

#: Until a write that RocksDB would not take is tried again, as a node does.
STALL_RETRY_S: Final = 0.01
#: The entries of a run are less than a node has in one.
_SEGMENT: Final = 1


class Log:
    """Entries numbered from 1, written at once and made durable by a thread."""

    def __init__(self, directory: Path, synced: Callable[[int], None]) -> None:
        """Calls `synced` in the loop with the newest entry that is durable."""
        directory.mkdir(parents=True)
        config = StoreConfig(directory=directory)
        self._engine = RocksEngine(directory / "db", config, create=True)
        self._engine.begin_log()
        self._engine.make_segment(_SEGMENT)
        self._written = 0
        self._synced = synced
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        threading.Thread(target=self._sync, daemon=True).start()

    async def write(self, entries: Sequence[bytes]) -> None:
        """Writes the next entries, not yet durable; waits while RocksDB pushes back."""
        first = self._written + 1
        newest = self._written + len(entries)
        rows = [(int(Op.PUT), NUMBER.pack(first + at), entry) for at, entry in enumerate(entries)]
        while not self._is_taken(newest, rows):  # noqa: ASYNC110 - nobody tells of room
            await asyncio.sleep(STALL_RETRY_S)
        self._written = newest
        self._wake.set()

    def _is_taken(self, number: int, rows: Sequence[Operation]) -> bool:
        try:
            journal = [(int(Op.PUT), keys.journal_row(number), b"")]
            self._engine.write(number, journal, {_SEGMENT: rows})
        except EngineError as error:
            if error.fault is not Fault.STALL:
                raise
            return False
        return True

    def _sync(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            newest = self._engine.flush_wal().number
            self._loop.call_soon_threadsafe(self._synced, newest)
            self._engine.release_log()


class Acks:
    """Numbers that one stream answers with; those that wait are added up."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        self.put = self._queue.put_nowait

    async def all(self) -> list[int]:
        """Waits for one; returns all that are there."""
        found = [await self._queue.get()]
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found


async def write_all(outbox: Outbox[bytes], log: Log) -> None:
    """Writes what gathers."""
    while True:
        await log.write(await outbox.take())
        outbox.arrived()


def pack(entries: Sequence[bytes]) -> bytes:
    """Returns entries as one message: their number, their lengths, and themselves."""
    head = struct.pack(f">I{len(entries)}I", len(entries), *map(len, entries))
    return b"".join([head, *entries])


def unpack(message: bytes) -> list[bytes]:
    """Returns the entries of a message."""
    (count,) = struct.unpack_from(">I", message)
    entries: list[bytes] = []
    at = 4 + 4 * count
    for size in struct.unpack_from(f">{count}I", message, 4):
        entries.append(message[at : at + size])
        at += size
    return entries


async def read_from(context: Context) -> bytes | None:
    """Returns the next message of a stream, None at its end."""
    # The end is a marker object, which the stubs do not know of.
    message = cast("object", await context.read())
    return message if isinstance(message, bytes) else None


def committed(durable: Sequence[int]) -> int:
    """The newest entry that a majority has on its disk, and the leader, who is the first of them.

    A partition's answer waits for the leader's disk, too: it applies only what it has.
    """
    return min(sorted(durable, reverse=True)[len(durable) // 2], durable[0])


class Follower:
    """Writes what it gets and answers with the newest durable entry."""

    def __init__(self, directory: Path) -> None:
        self._acks = Acks()
        self._outbox: Outbox[bytes] = Outbox()
        self._log = Log(directory, self._acks.put)

    async def serve(self, _requests: object, context: Context) -> None:
        """Serves the leader's stream."""
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(write_all(self._outbox, self._log)),
                tasks.create_task(self._answer(context)),
            ]
            while (message := await read_from(context)) is not None:
                for entry in unpack(message):
                    self._outbox.put(entry, len(entry))
            for task in others:
                task.cancel()

    async def _answer(self, context: Context) -> None:
        while True:
            await context.write(NUMBER.pack(max(await self._acks.all())))


class Leader:
    """Numbers entries, passes them on, and acknowledges what a majority has."""

    def __init__(self, directory: Path, followers: Sequence[str]) -> None:
        self._durable = [0] * (1 + len(followers))
        self._committed = self._last = 0
        # To whom each entry that is not committed is acknowledged, oldest first.
        self._waiting: deque[Callable[[int], None]] = deque()
        self._addresses = followers
        self._local: Outbox[bytes] = Outbox()
        self._remote: list[Outbox[bytes]] = [Outbox() for _ in followers]
        self._log = Log(directory, lambda newest: self._advance(0, newest))

    async def run(self) -> None:
        """Writes and replicates until it is cancelled or something fails."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_all(self._local, self._log))
            for number, address in enumerate(self._addresses, 1):
                tasks.create_task(self._replicate(number, address))

    async def serve(self, _requests: object, context: Context) -> None:
        """Serves a client's stream."""
        acks = Acks()
        answering = asyncio.create_task(self._answer(acks, context))
        try:
            while (message := await read_from(context)) is not None:
                self._last += 1
                self._waiting.append(acks.put)
                for outbox in (*self._remote, self._local):
                    outbox.put(message, len(message))
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, acks: Acks, context: Context) -> None:
        while True:
            await context.write(NUMBER.pack(sum(await acks.all())))

    def _advance(self, who: int, newest: int) -> None:
        self._durable[who] = newest
        newest_committed = committed(self._durable)
        while self._committed < newest_committed:
            self._committed += 1
            self._waiting.popleft()(1)

    async def _replicate(self, number: int, address: str) -> None:
        outbox = self._remote[number - 1]
        # The newest entry of each message on its way.
        ends: deque[int] = deque()
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            method = cast("Callable[..., Call]", channel.stream_stream(f"/{SERVICE}/Produce"))
            call = method(wait_for_ready=True)

            async def acknowledged() -> None:
                while isinstance(message := await call.read(), bytes):
                    (newest,) = NUMBER.unpack(message)
                    self._advance(number, newest)
                    while ends and ends[0] <= newest:
                        ends.popleft()
                        outbox.arrived()
                raise ConnectionError(f"the follower at {address} ended its stream")

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(acknowledged())
                sent = 0
                while True:
                    entries = await outbox.take()
                    sent += len(entries)
                    ends.append(sent)
                    await call.write(pack(entries))


async def stdin_ends() -> None:
    """Waits for the end of stdin, in a thread that holds up nobody's end."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(event.set)

    threading.Thread(target=wait, daemon=True).start()
    await event.wait()


async def serve(directory: Path, followers: Sequence[str]) -> None:
    """Serves until stdin ends."""
    server = grpc.aio.server(options=OPTIONS)
    leader = Leader(directory, followers) if followers else None
    behaviour = (leader or Follower(directory)).serve
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(behaviour)
    handlers = {"Produce": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    ended = asyncio.create_task(stdin_ends())
    tasks = {ended, asyncio.create_task(leader.run())} if leader else {ended}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), sys.argv[2:]))
