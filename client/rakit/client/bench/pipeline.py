"""The bare pipeline as a reference: a leader and two followers that do nothing but replicate.

What any log does that acknowledges after an fsync on a majority, and nothing else: no Raft, no
protobuf, no checks, no second partition. It stands on the same parts as rakit (gRPC streams on
uvloop, RocksDB with the same settings, one thread that syncs), so its figure is the ceiling of the
design on this machine, and rakit's share of it is what Raft and the broker leave of that. The three
processes are `rakit.testing.pipeline`, because only a server's packages have RocksDB; this is their
client, and the rule by which every hop gathers.

That rule (`Outbox`): while little waits, one message is on its way over a hop, and what comes
meanwhile goes out together with the next one. When much waits there are several, each bounded.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

import grpc.aio

from rakit.client.cli.complaints import CommandError
from rakit.client.config import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    # Generic in the stubs for type checkers only.
    Call = grpc.aio.StreamStreamCall[bytes, bytes]

SERVICE: Final = "rakit.bench.Pipeline"
OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Two streams between two processes are two connections.
    ("grpc.use_local_subchannel_pool", 1),
)
#: While less than this waits, one message is on its way.
FEW_BYTES: Final = 256 << 10
#: Messages on their way otherwise.
IN_FLIGHT_MAX: Final = 8
#: What goes out together: one message, or one write of the store, which holds the interpreter.
TOGETHER_BYTES_MAX: Final = 4 << 20
#: A number of messages, or of the newest entry.
NUMBER: Final = struct.Struct(">Q")

#: A window that does not move for so long is a pipeline that broke.
STALL_S_MAX: Final = 30.0

_Item = TypeVar("_Item")


class Outbox(Generic[_Item]):
    """What waits for a hop, oldest first, and how many messages are on their way over it."""

    def __init__(self) -> None:
        self._items: deque[tuple[_Item, int]] = deque()
        self._bytes = 0
        self._in_flight = 0
        self._changed = asyncio.Event()

    def put(self, item: _Item, size_bytes: int) -> None:
        """Adds one; never waits: who fills it has a window."""
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        self._changed.set()

    def arrived(self) -> None:
        """A message reached the other side."""
        self._in_flight -= 1
        assert self._in_flight >= 0, "what arrived had been taken"
        self._changed.set()

    async def take(self) -> list[_Item]:
        """Waits until the hop may carry a message; returns what it is made of."""
        while not self._items or self._in_flight >= self._in_flight_max:
            self._changed.clear()
            await self._changed.wait()
        taken: list[_Item] = []
        size_bytes = 0
        while self._items and (not taken or size_bytes + self._items[0][1] <= TOGETHER_BYTES_MAX):
            item, item_bytes = self._items.popleft()
            taken.append(item)
            size_bytes += item_bytes
        self._bytes -= size_bytes
        self._in_flight += 1
        return taken

    @property
    def _in_flight_max(self) -> int:
        return 1 if self._bytes < FEW_BYTES else IN_FLIGHT_MAX


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Three processes that run."""

    address: str
    # The leader's first.
    pids: tuple[int, ...]


@asynccontextmanager
async def pipeline_processes(directory: Path) -> AsyncGenerator[Pipeline]:
    """Starts them with their data below a directory, and ends them afterwards."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        addresses: list[str] = []
        for name in ("follower-1", "follower-2", "leader"):
            followers = addresses if name == "leader" else []
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rakit.testing.pipeline", str(directory / name)),
                *followers,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # Ctrl-C is for us.
                start_new_session=True,
            )
            processes.append(process)
            assert process.stdout is not None, "stdout is a pipe"
            line = await process.stdout.readline()
            if not line:
                raise CommandError(f"the bare pipeline's {name} ended before it served")
            addresses.append(f"127.0.0.1:{int(line)}")
        pids = [process.pid for process in reversed(processes)]
        yield Pipeline(addresses[-1], tuple(pids))
    finally:
        # The leader first, who would complain of a follower that is gone.
        for process in reversed(processes):
            if process.returncode is None:
                process.kill()
        for process in processes:
            await process.wait()


class PipelineClient:
    """A stream to the leader. `write` sends a message as it is, `send` gathers."""

    def __init__(self, call: Call) -> None:
        self._call = call
        # What to call for each message on its way, oldest first.
        self._unacknowledged: deque[Sequence[Callable[[], None]]] = deque()
        self._outbox: Outbox[tuple[bytes, Callable[[], None]]] = Outbox()

    async def write(self, message: bytes, ended: Sequence[Callable[[], None]]) -> None:
        """Sends one message; calls all of `ended` when it is acknowledged."""
        self._unacknowledged.append(ended)
        await self._call.write(message)

    def send(self, value: bytes, ended: Callable[[], None]) -> None:
        """Sends a record together with those that come while a message is on its way."""
        self._outbox.put((value, ended), len(value))

    async def run(self) -> None:
        """Carries what was sent, and what comes back, until it is cancelled or the leader ends."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._gather())
            tasks.create_task(self._acknowledge())

    async def _gather(self) -> None:
        while True:
            taken = await self._outbox.take()
            ended = [each for _, each in taken]
            await self.write(
                b"".join([value for value, _ in taken]), [*ended, self._outbox.arrived]
            )

    async def _acknowledge(self) -> None:
        while True:
            message = await self._call.read()
            if not isinstance(message, bytes):
                raise CommandError("the bare pipeline's leader ended the stream")
            for _ in range(NUMBER.unpack(message)[0]):
                for ended in self._unacknowledged.popleft():
                    ended()


@asynccontextmanager
async def pipeline_client(address: str) -> AsyncGenerator[PipelineClient]:
    """Connects; what the stream fails of ends the block."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        method = cast("Callable[..., Call]", channel.stream_stream(f"/{SERVICE}/Produce"))
        call = method(wait_for_ready=True)
        client = PipelineClient(call)
        running = asyncio.create_task(client.run())
        try:
            yield client
            if running.done():
                running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            call.cancel()


async def measure_pipeline(directory: Path, size_bytes: int, window: int, seconds: float) -> float:
    """Returns MB/s of messages acknowledged, with so many of them in flight."""
    message, room, count = bytes(size_bytes), asyncio.Semaphore(window), 0

    def ended() -> None:
        nonlocal count
        count += 1
        room.release()

    async with (
        pipeline_processes(directory) as pipeline,
        pipeline_client(pipeline.address) as client,
    ):
        began_s = time.perf_counter()
        while (passed_s := time.perf_counter() - began_s) < seconds or not count:
            async with asyncio.timeout(STALL_S_MAX):
                await room.acquire()
            await client.write(message, (ended,))
    return count * size_bytes / passed_s / 1e6
