"""A process ends, with the right code, though its disk never answers again (S12, S13)."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from rakit.api.v1 import log_service_pb2_grpc, topic_service_pb2_grpc
from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.config import HostConfig
from rakit.node.config import Address, parse_address
from tests.node.services.served import SMALL_RESERVE, TIMEOUT_S, rows
from tests.node.services.test_probes import ask

END_S = 40


@dataclass(frozen=True)
class Running:
    process: asyncio.subprocess.Process
    hangs: Path
    full: Path
    channel: grpc.aio.Channel
    http: Address

    async def produce(self, timeout_s: float) -> None:
        log = log_service_pb2_grpc.LogServiceStub(self.channel)
        request = ProduceRequest(topic="t", partition=0, rows=rows(b"v"))
        await log.Produce(request, timeout=timeout_s)

    async def end(self) -> tuple[int, str]:
        """How the process ended, and what it said last."""
        _, said = await asyncio.wait_for(self.process.communicate(), END_S)
        assert self.process.returncode is not None
        return self.process.returncode, said.decode().splitlines()[-1]


@asynccontextmanager
async def running(directory: Path) -> AsyncGenerator[Running]:
    hangs, full = directory / "hangs", directory / "full"
    argv = ["-m", "tests.node.services.hung_disk", str(hangs), str(full), "--name=one"]
    argv += [f"--data-dir={directory / 'd'}", "--listen=127.0.0.1:0", "--bootstrap-expect=1"]
    argv += ["--peer-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", SMALL_RESERVE]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None
        ready = await asyncio.wait_for(process.stdout.readline(), END_S)
        address = re.search(r"clients on (\S+),", ready.decode())
        http = re.search(r"health on (\S+),", ready.decode())
        assert address is not None, ready
        assert http is not None, ready
        async with grpc.aio.insecure_channel(address[1]) as channel:
            topics = topic_service_pb2_grpc.TopicServiceStub(channel)
            request = CreateTopicRequest(name="t", partition_count=1)
            await topics.CreateTopic(request, timeout=TIMEOUT_S)
            node = Running(process, hangs, full, channel, parse_address(http[1]))
            await node.produce(TIMEOUT_S)
            yield node
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_s13_an_idle_node_whose_disk_hangs_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.hangs.touch()
        node.process.terminate()
        code, last_words = await node.end()
        assert code == 11
        assert last_words.startswith("rakit: the disk hangs")


async def test_s13_a_node_whose_disk_hangs_is_alive_to_its_supervisor(tmp_path: Path) -> None:
    """To start it again would bring the disk back no sooner, and others lead meanwhile."""
    async with running(tmp_path) as node:
        node.hangs.touch()
        with pytest.raises(grpc.aio.AioRpcError):
            await node.produce(2 * HostConfig().sync_stall_ms_max / 1000)
        assert await ask(node.http, "/livez") == (200, {"alive": True})


async def test_s13_a_node_with_a_write_in_hand_does_not_wait_for_its_disk(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.hangs.touch()
        with pytest.raises(grpc.aio.AioRpcError):
            await node.produce(0.5)
        node.process.terminate()
        code, last_words = await node.end()
        assert code == 11
        assert last_words.startswith("rakit: the disk hangs")


async def test_s12_a_failed_write_ends_the_process_though_a_flush_hangs(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.hangs.touch()
        with pytest.raises(grpc.aio.AioRpcError):
            await node.produce(0.5)
        node.full.touch()
        with pytest.raises(grpc.aio.AioRpcError):
            await node.produce(TIMEOUT_S)
        code, last_words = await node.end()
        assert code == 10
        assert "No space left on device" in last_words
