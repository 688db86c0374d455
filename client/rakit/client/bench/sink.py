"""A node that keeps nothing: what a client can do when the cluster costs nothing.

It acknowledges every batch at once, and a read gives the same batch for ever. It runs as a process
of its own, `python -m rakit.client.bench.sink`, prints its port, and serves until its stdin ends,
so it cannot outlive whoever started it. For measuring only: nothing that it says is true.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message

from rakit.api.v1 import cluster_service_pb2 as cluster
from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.record_pb2 import Records
from rakit.client.config import MESSAGE_BYTES_MAX

if sys.platform == "linux":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: As large a batch as a producer makes by default.
BATCH_RECORDS: Final = 8_000
RECORD_BYTES: Final = 100
#: More records than any measurement reads.
END_OFFSET: Final = 1 << 50
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
)


@asynccontextmanager
async def sink_process() -> AsyncGenerator[str]:
    """Starts it, and ends it afterwards; yields its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rakit.client.bench.sink"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for us.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None, "stdout is a pipe"
        port = int(await process.stdout.readline())
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


class _Sink:
    """The methods that a producer and a reader need."""

    def __init__(self) -> None:
        self.address = ""
        self._partitions = 1
        self._ends: dict[int, int] = {}

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What the server is given."""

        def unary(method: Any, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(method, request.FromString, _to_bytes)

        log_methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "InitProducer": unary(self._init_producer, log.InitProducerRequest),
            "GetOffsets": unary(self._get_offsets, log.GetOffsetsRequest),
            "ProduceStream": grpc.stream_stream_rpc_method_handler(
                self._produce_stream, log.ProduceStreamRequest.FromString, _to_bytes
            ),
            "Read": grpc.unary_stream_rpc_method_handler(self._read, log.ReadRequest.FromString),
        }
        topic_methods = {
            "CreateTopic": unary(self._create_topic, topics.CreateTopicRequest),
            "GetTopic": unary(self._get_topic, topics.GetTopicRequest),
            "DeleteTopic": unary(self._delete_topic, topics.DeleteTopicRequest),
        }
        cluster_methods = {"GetCluster": unary(self._get_cluster, cluster.GetClusterRequest)}
        return (
            grpc.method_handlers_generic_handler("rakit.api.v1.LogService", log_methods),
            grpc.method_handlers_generic_handler("rakit.api.v1.TopicService", topic_methods),
            grpc.method_handlers_generic_handler("rakit.api.v1.ClusterService", cluster_methods),
        )

    async def _init_producer(
        self, _request: log.InitProducerRequest, _context: Context
    ) -> log.InitProducerResponse:
        return log.InitProducerResponse(producer_id=1, epoch=1)

    async def _get_cluster(
        self, _request: cluster.GetClusterRequest, _context: Context
    ) -> cluster.GetClusterResponse:
        return cluster.GetClusterResponse(cluster_id="sink")

    async def _create_topic(
        self, request: topics.CreateTopicRequest, _context: Context
    ) -> topics.CreateTopicResponse:
        self._partitions = request.partition_count or 1
        return topics.CreateTopicResponse(topic=self._topic(request.name))

    async def _get_topic(
        self, request: topics.GetTopicRequest, _context: Context
    ) -> topics.GetTopicResponse:
        return topics.GetTopicResponse(topic=self._topic(request.name))

    async def _delete_topic(
        self, _request: topics.DeleteTopicRequest, _context: Context
    ) -> topics.DeleteTopicResponse:
        return topics.DeleteTopicResponse()

    def _topic(self, name: str) -> topics.Topic:
        topic = topics.Topic(name=name, topic_id=1, replication_factor=1)
        for partition in range(self._partitions):
            topic.partitions.add(
                partition=partition,
                group_id=1 + partition,
                leader_node_id=1,
                leader_term=1,
                leader_address=self.address,
            )
        return topic

    async def _get_offsets(
        self, _request: log.GetOffsetsRequest, _context: Context
    ) -> log.GetOffsetsResponse:
        answer = log.GetOffsetsResponse()
        for partition in range(self._partitions):
            answer.partitions.add(partition=partition, earliest=0, latest=END_OFFSET)
        return answer

    async def _produce_stream(
        self, requests: AsyncIterator[log.ProduceStreamRequest], _context: Context
    ) -> AsyncIterator[log.ProduceStreamResponse]:
        async for message in requests:
            produce = message.produce
            base = self._ends.get(produce.partition, 0)
            end = base + len(produce.columns.values)
            self._ends[produce.partition] = end
            result = log.ProduceResponse(
                partition=produce.partition,
                base_offset=base,
                end_offset=end,
                append_time_ms=1,
                term=1,
                index=1,
                replicas=1,
                fsynced=True,
            )
            yield log.ProduceStreamResponse(tag=message.tag, result=result)

    async def _read(self, request: log.ReadRequest, _context: Context) -> AsyncIterator[bytes]:
        """The same records for ever, at ever higher offsets."""
        columns = Records(values=[bytes(RECORD_BYTES)] * BATCH_RECORDS)
        offsets = {each.partition: each.offset for each in request.positions}
        topic = request.positions[0].topic
        while True:
            for partition, offset in offsets.items():
                answer = log.ReadResponse()
                data = answer.data
                data.topic, data.partition = topic, partition
                data.next_offset = offsets[partition] = offset + BATCH_RECORDS
                data.high_watermark = END_OFFSET
                batch = data.batches.add(
                    base_offset=offset, record_count=BATCH_RECORDS, append_time_ms=1
                )
                batch.records.CopyFrom(columns)
                yield answer.SerializeToString()


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


async def serve() -> None:
    """Serves until stdin ends."""
    server = grpc.aio.server(options=_OPTIONS)
    sink = _Sink()
    server.add_generic_rpc_handlers(sink.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    sink.address = f"127.0.0.1:{port}"
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
