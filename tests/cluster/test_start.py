"""How a node refuses to start, and how it stops: exit code and the line that a person reads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

import grpc.aio
import pytest

from rakit.api.v1.log_service_pb2 import FetchRequest, FetchResponse, Position, ReadRequest
from tests.cluster.harness import LIMIT_S, NodeProcess, cluster_of, read_all, until
from tests.node.services.served import refusal_of
from tests.node.services.test_streams import request

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done
    lines = [line for line in done.stderr.splitlines() if line.startswith("rakit: ")]
    assert len(lines) == 1, done.stderr
    assert text in lines[0]


def test_python_without_asserts_is_refused() -> None:
    refused(run("-O", "-m", "rakit.node", "--data-dir=/nowhere"), 2, "-O")
    refused(run("-m", "rakit.node", PYTHONOPTIMIZE="1"), 2, "checks that protect the data")


def test_a_public_listener_is_refused_without_insecure() -> None:
    done = run("-m", "rakit.node", "--data-dir=/nowhere", "--listen=0.0.0.0:7070")
    refused(done, 2, "accept plaintext with --insecure")


@pytest.mark.parametrize("place", ["file", "file/data"])
def test_a_data_directory_that_cannot_be_had_is_said_in_one_line(
    tmp_path: Path, place: str
) -> None:
    """It is a file, or lies below one."""
    (tmp_path / "file").touch()
    done = run("-m", "rakit.node", f"--data-dir={tmp_path / place}")
    refused(done, 2, "the data directory cannot be used: [Errno ")
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def node(directory: Path, name: str) -> NodeProcess:
    directory.mkdir(exist_ok=True)
    return NodeProcess(name, directory)


async def ends_with(process: NodeProcess, code: int, text: str) -> None:
    assert await process.ended() == code, process.tail
    lines = [line for line in process.output.splitlines() if line.startswith("rakit: ")]
    assert len(lines) == 1, process.tail
    assert text in lines[0]


async def test_what_belongs_to_another_node_is_left_alone(tmp_path: Path) -> None:
    """A second process on a directory, a port in use, and the directory of another cluster."""
    async with cluster_of(tmp_path / "first", "a") as cluster:
        cluster.start()
        await cluster.ready()
        first = cluster.nodes["a"]

        second = node(cluster.directory, "a")
        second.directory = tmp_path / "second"
        second.directory.mkdir()
        (second.directory / "a").symlink_to(first.data_dir)
        second.start(second.peer_address, 1)
        text = f"a second process on one data directory: {second.data_dir} is in use by process"
        await ends_with(second, 2, text)
        assert "Traceback" not in second.output

        neighbour = node(tmp_path / "neighbour", "b")
        neighbour.client_port = first.client_port
        neighbour.start(neighbour.peer_address, 1)
        await ends_with(neighbour, 2, f"cannot listen on {first.address}")

        async with cluster_of(tmp_path / "foreign", "x") as foreign:
            foreign.start()
            await foreign.ready()
            stranger = foreign.nodes["x"]
            assert await stranger.stop() == 0
            stranger.start(first.peer_address, 1)
            assert await stranger.ended() == 12, stranger.tail
            text = stranger.output.splitlines()[-1]
            assert text.startswith("rakit: the data directory belongs to cluster ")
            assert text.endswith("correct --seeds or --data-dir, or start with an empty directory")


async def test_an_order_to_stop_ends_streams_with_a_hint_and_loses_nothing(tmp_path: Path) -> None:
    async with cluster_of(tmp_path / "c", "a", "b", "c") as cluster:
        cluster.start()
        await cluster.ready()
        await cluster.create("t", factor=1)
        one = await cluster.leader("t")
        others = {node.address for node in cluster.others(one)}
        produce = one.log.ProduceStream()
        await produce.write(request(1, "t"))
        answer = await produce.read()
        assert not isinstance(answer, type(grpc.aio.EOF))
        read = one.log.Read(ReadRequest(positions=[Position(topic="t")], follow=True))
        await read.read()
        poll = FetchRequest(positions=[Position(topic="t", offset=1)], max_wait_ms=60_000)
        polling = asyncio.ensure_future(one.log.Fetch(poll))
        await until("the poll waits", lambda: waits(polling))
        stopping = asyncio.create_task(one.stop())
        for end in (_until_the_end(produce), _until_the_end(read), polling):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(end, LIMIT_S)
            refusal = refusal_of(caught.value)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "NODE_UNAVAILABLE",
            )
            assert refusal.metadata["other_address"] in others
        assert await stopping == 0, one.tail
        cluster.start(one.name)
        await cluster.ready()
        assert await read_all(one, "t") == [b"v"]


async def waits(call: asyncio.Future[FetchResponse]) -> bool:
    """The call has been with the node for a while."""
    await asyncio.wait({call}, timeout=0.2)
    return not call.done()


class Readable(Protocol):
    def read(self) -> Awaitable[object]: ...


async def _until_the_end(call: Readable) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
