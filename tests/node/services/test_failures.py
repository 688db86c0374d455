"""What a node does when something of its own fails: the disk, the cluster, a bug, too much work."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from rakit.api.v1.log_service_pb2 import FetchRequest, Position, ProduceRequest
from rakit.api.v1.topic_service_pb2 import DeleteTopicRequest
from rakit.multiraft.store.engine import EngineError
from rakit.multiraft.store.errors import Fault
from rakit.node.app import Node
from rakit.node.config import load
from rakit.node.partitions import Partitions
from rakit.peer.v1 import metadata_service_pb2_grpc
from rakit.peer.v1.metadata_service_pb2 import SubmitRequest
from rakit.peer.v1.node_service_pb2 import (
    Destination,
    ForwardFetchRequest,
    ForwardFetchResponse,
    ForwardProduceRequest,
)
from tests.node.services.served import SMALL_RESERVE, TIMEOUT_S, Served, refusal_of, rows, serve


async def started(data_dir: Path) -> tuple[Node, asyncio.Task[Any]]:
    node = Node(
        load(
            [
                "--name=one",
                f"--data-dir={data_dir}",
                "--listen=127.0.0.1:0",
                "--peer-listen=127.0.0.1:0",
                "--bootstrap-expect=1",
                SMALL_RESERVE,
            ],
            {},
        )
    )
    running = asyncio.create_task(node.run())
    await asyncio.wait_for(node.ready.wait(), 30)
    return node, running


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault.DISK_FULL, 10), (Fault.OTHER, 11)], ids=["disk full", "IO error"]
)
async def test_s12_a_failed_flush_ends_the_node_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, code: int
) -> None:
    node, running = await started(tmp_path / "d")

    def fail(*, durably: bool) -> None:
        assert durably
        raise EngineError(fault, "IO error: the test says so")

    monkeypatch.setattr(node.store._engine, "flush_wal", fail)
    channel = grpc.aio.insecure_channel(next(iter(node.listeners.advertised.values())))
    served = Served(node, channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.topic()
    assert caught.value.code() is not grpc.StatusCode.INTERNAL
    end = await asyncio.wait_for(running, 30)
    assert end.code == code
    assert "the test says so" in end.reason
    await channel.close()


async def test_s12_a_full_disk_refuses_produce_and_goes_on_reading(tmp_path: Path) -> None:
    async with serve(tmp_path / "d") as served:
        topic = await served.topic(name="t")
        await served.produce(topic.name, b"before")
    more_than_there_is = f"--disk-reserve-bytes={1 << 40}"
    async with serve(tmp_path / "d", more_than_there_is) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.produce(topic.name, b"after")
        refusal = refusal_of(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_SPACE")
        assert refusal.outcome == "NOT_APPLIED"
        assert "free some room" in refusal.message
        request = FetchRequest(positions=[Position(topic=topic.name)])
        answer = await served.log.Fetch(request, timeout=TIMEOUT_S)
        assert answer.partitions[0].next_offset == 1
        await served.topics.DeleteTopic(DeleteTopicRequest(name=topic.name), timeout=TIMEOUT_S)


async def test_a_bug_is_logged_and_told_as_internal_and_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(tmp_path / "d") as served:
        topic = await served.topic()

        def bug(*_args: object, **_more: object) -> None:
            raise KeyError("a bug of ours")

        with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
            broken.setattr(Partitions, "append", bug)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.produce(topic.name, b"v")
        refusal = refusal_of(caught.value)
        assert (refusal.reason, refusal.outcome) == ("INTERNAL", "UNKNOWN")
        assert "a bug of ours" not in refusal.message, "the details are in the log"
        assert "a bug of ours" in caplog.text
        await served.produce(topic.name, b"v")


async def test_a_node_with_too_much_in_flight_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rakit.node.produce.InFlight.__init__.__defaults__", (1000, 10))
    async with serve(tmp_path / "d") as served:
        topic = await served.topic()
        await served.produce(topic.name, b"small")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.produce(topic.name, b"x" * 2000)
        refusal = refusal_of(caught.value)
        assert (refusal.reason, refusal.outcome) == ("THROTTLED", "NOT_APPLIED")
        assert int(refusal.metadata["retry_delay_ms"]) > 0


async def test_a_call_that_was_meant_for_another_node_is_refused(tmp_path: Path) -> None:
    async with serve(tmp_path / "d") as served:
        address = served.node.listeners.peer_advertised
        async with grpc.aio.insecure_channel(address) as channel:
            stub = channel.unary_unary(
                "/rakit.peer.v1.NodeService/ForwardFetch",
                request_serializer=ForwardFetchRequest.SerializeToString,
                response_deserializer=ForwardFetchResponse.FromString,
            )
            for cluster_id, node_id in (
                ("another", 1),
                (served.node.metadata.member.cluster_id, 2),
            ):
                destination = Destination(cluster_id=cluster_id, node_id=node_id)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub(ForwardFetchRequest(destination=destination), timeout=TIMEOUT_S)
                assert refusal_of(caught.value).reason == "NODE_UNAVAILABLE"
            stream = cast("Any", channel).stream_stream("/rakit.peer.v1.NodeService/ForwardProduce")
            call = stream()
            hello = ForwardProduceRequest(destination=Destination(cluster_id="another", node_id=1))
            await call.write(hello.SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert "not node 1 of cluster another" in refusal_of(caught.value).message


async def test_a_command_that_is_none_leaves_the_metadata_group_alive(tmp_path: Path) -> None:
    async with serve(tmp_path / "d") as served:
        topic = await served.topic()
        member = served.node.metadata.member
        meant = Destination(cluster_id=member.cluster_id, node_id=member.node_id)
        async with grpc.aio.insecure_channel(served.node.listeners.peer_advertised) as channel:
            stub = metadata_service_pb2_grpc.MetadataPeerServiceStub(channel)
            for request in (SubmitRequest(), SubmitRequest(destination=meant)):
                assert (await stub.Submit(request, timeout=TIMEOUT_S)).HasField("refused")
        assert not served.node.host.quarantined
        # It still takes commands, and so it does after a restart.
        await served.topics.DeleteTopic(DeleteTopicRequest(name=topic.name), timeout=TIMEOUT_S)
    async with serve(tmp_path / "d") as served:
        await served.topic()


async def test_before_it_has_joined_a_node_is_alive_and_not_ready(tmp_path: Path) -> None:
    argv = ["--name=one", f"--data-dir={tmp_path / 'd'}", "--listen=127.0.0.1:0"]
    argv += ["--peer-listen=127.0.0.1:0", "--seeds=127.0.0.1:1", "--bootstrap-expect=3"]
    argv.append(SMALL_RESERVE)
    node = Node(load(argv, {}))
    running = asyncio.create_task(node.run())
    try:
        await asyncio.wait_for(node.listening.wait(), 10)
        address = next(iter(node.listeners.advertised.values()))
        async with grpc.aio.insecure_channel(address) as channel:
            served = Served(node, channel)
            request = ProduceRequest(topic="t", rows=rows(b"v"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.log.Produce(request, timeout=TIMEOUT_S, wait_for_ready=True)
            refusal = refusal_of(caught.value)
            assert (refusal.reason, refusal.outcome) == ("NODE_UNAVAILABLE", "NOT_APPLIED")
            assert "has not joined" in refusal.message
    finally:
        node.stop()
        assert (await asyncio.wait_for(running, 30)).code == 0
