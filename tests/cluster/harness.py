"""Nodes as processes of the operating system on loopback: start, kill, pause, restart, forget.

A `Cluster` owns a directory and the ports of its nodes. Ports are fixed when a node is first named,
because seeds must name them; they are picked free. Every wait is for a condition, with a limit.
What a node said on stderr is kept and shown when a wait fails.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from rakit.api.v1 import (
    cluster_service_pb2_grpc,
    group_service_pb2_grpc,
    log_service_pb2_grpc,
    topic_service_pb2_grpc,
)
from rakit.api.v1.cluster_service_pb2 import GetClusterRequest
from rakit.api.v1.log_service_pb2 import Position, ReadRequest
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, GetTopicRequest, Topic

ResultT = TypeVar("ResultT")
LIMIT_S = 30.0
LOOPBACK = "127.0.0.1"
POLL_S = 0.05
OUTPUT_CHARS_SHOWN = 3000


#: Below those that the kernel gives to whoever asks for any, so that nobody is given one of ours
#: while its node is not up; each worker of a parallel run has its own.
_PORTS_OF_A_WORKER = 4000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_FIRST_PORT = 12_000 + _PORTS_OF_A_WORKER * _WORKER
_offsets = cycle((os.getpid() * 37 + each) % _PORTS_OF_A_WORKER for each in range(4000))


def free_port() -> int:
    """A port that nobody listens on at the moment, and that was not given away lately."""
    while True:
        port = _FIRST_PORT + next(_offsets)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


async def until(what: str, condition: Callable[[], Awaitable[ResultT | None]]) -> ResultT:
    """The first result of the condition that is not None or False."""
    error: Exception | None = None
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    result = await condition()
                except grpc.aio.AioRpcError as failed:
                    error = failed
                else:
                    if result is not None and result is not False:
                        return result
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {LIMIT_S} s: {what}; last error: {error}") from error


@dataclass
class NodeProcess:
    """One node: its place, its ports, and its process while it runs."""

    name: str
    directory: Path
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    #: Any free one might be what a node that is down comes back to.
    lane_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    channel: grpc.aio.Channel | None = None
    host: str = LOOPBACK
    #: What runs the process in another place than here.
    command: Sequence[str] = ()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.client_port}"

    @property
    def peer_address(self) -> str:
        return f"{self.host}:{self.peer_port}"

    @property
    def data_dir(self) -> Path:
        return self.directory / self.name

    @property
    def output(self) -> str:
        path = self.directory / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, seeds: str, expect: int, *more: str) -> None:
        assert self.process is None, f"{self.name} runs already"
        argv = [*self.command, sys.executable, "-m", "rakit.node", f"--name={self.name}"]
        argv += [f"--data-dir={self.data_dir}", f"--listen={self.address}"]
        argv += [f"--peer-listen={self.peer_address}", f"--seeds={seeds}"]
        argv += [f"--bootstrap-expect={expect}", "--log-format=console"]
        argv += [f"--lane-listen={self.host}:{self.lane_port}"]
        argv += [f"--disk-reserve-bytes={1 << 20}", *more]
        if self.host != LOOPBACK:
            argv.append("--insecure")
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def ended(self) -> int:
        """Waits until the process has ended by itself; returns its exit code."""
        assert self.process is not None
        process = self.process
        try:
            code = await asyncio.wait_for(asyncio.to_thread(process.wait, LIMIT_S), LIMIT_S + 1)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs\n{self.tail}") from None
        self.process = None
        return code

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return await self.ended()

    @property
    def tail(self) -> str:
        return self.output[-OUTPUT_CHARS_SHOWN:]

    @property
    def log(self) -> log_service_pb2_grpc.LogServiceAsyncStub:
        return log_service_pb2_grpc.LogServiceStub(self._open())

    @property
    def topics(self) -> topic_service_pb2_grpc.TopicServiceAsyncStub:
        return topic_service_pb2_grpc.TopicServiceStub(self._open())

    @property
    def cluster(self) -> cluster_service_pb2_grpc.ClusterServiceAsyncStub:
        return cluster_service_pb2_grpc.ClusterServiceStub(self._open())

    @property
    def groups(self) -> group_service_pb2_grpc.GroupServiceAsyncStub:
        return group_service_pb2_grpc.GroupServiceStub(self._open())

    def _open(self) -> grpc.aio.Channel:
        if self.channel is None:
            options = [
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.initial_reconnect_backoff_ms", 50),
            ]
            self.channel = grpc.aio.insecure_channel(self.address, options=options)
        return self.channel

    async def close(self) -> None:
        if self.channel is not None:
            await self.channel.close()
            self.channel = None


@dataclass
class Cluster:
    """Some nodes that belong together."""

    directory: Path
    seed_count: int
    nodes: dict[str, NodeProcess] = field(default_factory=dict[str, NodeProcess])

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)

    @property
    def seeds(self) -> str:
        named = list(self.nodes.values())[: self.seed_count]
        return ",".join(node.peer_address for node in named)

    def add(self, name: str) -> NodeProcess:
        """Names a node; it is not started."""
        node = self.nodes[name] = NodeProcess(name, self.directory)
        return node

    def start(self, *names: str) -> None:
        for name in names or self.nodes:
            self.nodes[name].start(self.seeds, self.seed_count)

    async def ready(self, *names: str) -> None:
        """Waits until nodes have joined and see each other."""
        wanted = [self.nodes[name] for name in names or self.nodes]
        for node in wanted:
            await until(f"{node.name} is ready", partial(self._sees_all, node, wanted))

    async def _sees_all(self, node: NodeProcess, wanted: Sequence[NodeProcess]) -> bool:
        for each in wanted:
            if each.process is None or each.process.poll() is not None:
                raise AssertionError(f"{each.name} has ended\n{each.tail}")
        answer = await node.cluster.GetCluster(GetClusterRequest(), timeout=2)
        up = [each for each in answer.nodes if each.state == 1]
        return len(up) >= len(wanted) and answer.metadata_leader_node_id > 0

    async def create(self, name: str, partitions: int = 1, factor: int = 3) -> Topic:
        node = next(iter(self.nodes.values()))
        request = CreateTopicRequest(
            name=name, partition_count=partitions, replication_factor=factor
        )
        response = await node.topics.CreateTopic(request, timeout=LIMIT_S)
        return response.topic

    async def leader(self, topic: str, partition: int = 0) -> NodeProcess:
        """The node that leads a partition, as another living node sees it."""

        async def ask() -> NodeProcess | None:
            for node in self.nodes.values():
                if node.process is not None:
                    request = GetTopicRequest(name=topic)
                    answer = await node.topics.GetTopic(request, timeout=2)
                    return self.at(answer.topic.partitions[partition].leader_address)
            return None

        return await until(f"a leader of {topic}/{partition}", ask)

    def at(self, address: str) -> NodeProcess | None:
        return next((node for node in self.nodes.values() if node.address == address), None)

    def others(self, node: NodeProcess) -> list[NodeProcess]:
        return [each for each in self.nodes.values() if each is not node]

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()
            if node.process is not None:
                node.process.send_signal(signal.SIGCONT)
                node.kill()


async def read_all(node: NodeProcess, topic: str, partition_count: int = 1) -> list[bytes]:
    """Every value of a topic, up to its end."""
    positions = [Position(topic=topic, partition=number) for number in range(partition_count)]
    call = node.log.Read(ReadRequest(positions=positions), timeout=LIMIT_S)
    values: list[bytes] = []
    async for response in call:
        values += [record.value for record in response.data.records]
    return values


@asynccontextmanager
async def cluster_of(directory: Path, *names: str) -> AsyncGenerator[Cluster]:
    """Named nodes that found a cluster together, not yet started; all end with the block."""
    cluster = Cluster(directory, seed_count=len(names))
    for name in names:
        cluster.add(name)
    try:
        yield cluster
    finally:
        await cluster.close()
        shutil.rmtree(directory, ignore_errors=True)
