"""A small in-memory cluster on real grpc.aio servers, for tests of the client.

It keeps the rules that a client relies on (S24's sequences, contract 10's streams, leader hints),
and it misbehaves on request: `faults` decides, for each produce request that reaches a leader, what
goes wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from zlib import crc32

import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rakit.api.v1 import cluster_service_pb2 as cluster_pb
from rakit.api.v1 import log_service_pb2 as log_pb
from rakit.api.v1 import record_pb2 as record_pb
from rakit.api.v1 import topic_service_pb2 as topic_pb
from rakit.client import codecs

Context = grpc.aio.ServicerContext[Any, Any]
Faults = Callable[[int, log_pb.ProduceRequest], "Fault | RefusalError | None"]


class Fault(Enum):
    """What happens to a produce request."""

    # The stream breaks before anything is stored, or after it was stored and before the answer.
    BREAK_BEFORE = auto()
    BREAK_AFTER = auto()
    # Stored, but the answer says that nobody knows.
    UNKNOWN_AFTER = auto()
    # No answer ever comes on this stream.
    HANG = auto()


class RefusalError(Exception):
    """An error that goes to the client."""

    def __init__(self, reason: str, text: str = "as scripted", /, **metadata: str) -> None:
        super().__init__(reason, text)
        self.reason, self.text, self.metadata = reason, text, metadata

    def status(self) -> Status:
        status = Status(code=13, message=self.text)
        info = ErrorInfo(reason=self.reason, domain="rakit")
        info.metadata.update(self.metadata)
        status.details.add().Pack(info)
        return status


class BrokenError(Exception):
    """The stream ends here."""


@dataclass
class Stored:
    base_offset: int
    count: int
    content: bytes


@dataclass
class FakePartition:
    """One partition: batches, and what it remembers of producers."""

    leader: int
    term: int = 1
    end_offset: int = 0
    batches: list[Stored] = field(default_factory=list)
    # producer id -> (epoch, last sequence, {sequence: (crc, base, end)})
    producers: dict[int, tuple[int, int, dict[int, tuple[int, int, int]]]] = field(
        default_factory=dict
    )
    forgotten: set[int] = field(default_factory=set)

    def forget(self, producer_id: int) -> None:
        """What happens to a producer that was idle for long."""
        self.producers.pop(producer_id, None)
        self.forgotten.add(producer_id)

    def append(self, request: log_pb.ProduceRequest) -> log_pb.ProduceResponse:
        columns = _columns(request)
        content = columns.SerializeToString()
        count, crc = len(columns.values), crc32(content)
        stamp = request.producer
        if stamp.producer_id:
            known = self._check(stamp, crc)
            if known is not None:
                return self._answer(request.partition, *known, duplicate=True)
        base, self.end_offset = self.end_offset, self.end_offset + count
        self.batches.append(Stored(base, count, content))
        if stamp.producer_id:
            _, _, memory = self.producers.get(stamp.producer_id, (0, 0, {}))
            memory[stamp.sequence] = (crc, base, self.end_offset)
            self.producers[stamp.producer_id] = (stamp.epoch, stamp.sequence, memory)
        return self._answer(request.partition, base, self.end_offset, duplicate=False)

    def _check(self, stamp: log_pb.ProducerStamp, crc: int) -> tuple[int, int] | None:
        epoch, last, memory = self.producers.get(stamp.producer_id, (0, 0, {}))
        if stamp.epoch < epoch:
            raise RefusalError("PRODUCER_FENCED", current_epoch=str(epoch))
        if stamp.sequence in memory:
            stored_crc, base, end = memory[stamp.sequence]
            if stored_crc != crc:
                raise RefusalError("SEQUENCE_REUSED")
            return base, end
        if not memory and (
            stamp.HasField("previous_sequence")
            if stamp.producer_id in self.forgotten
            else stamp.previous_sequence
        ):
            raise RefusalError("UNKNOWN_PRODUCER", outcome="UNKNOWN")
        if not stamp.HasField("previous_sequence") and stamp.sequence > last:
            return None
        if stamp.previous_sequence != last or stamp.sequence <= last:
            raise RefusalError("OUT_OF_ORDER_SEQUENCE", expected_sequence=str(last))
        return None

    def _answer(
        self, partition: int, base: int, end: int, *, duplicate: bool
    ) -> log_pb.ProduceResponse:
        return log_pb.ProduceResponse(
            partition=partition,
            base_offset=base,
            end_offset=end,
            append_time_ms=1_000,
            term=self.term,
            index=base + 2,
            replicas=2,
            fsynced=True,
            duplicate=duplicate,
        )

    def values(self) -> list[bytes]:
        """Every stored value, in order."""
        return [
            value
            for stored in self.batches
            for value in record_pb.Records.FromString(stored.content).values
        ]


def _columns(request: log_pb.ProduceRequest) -> record_pb.Records:
    if request.HasField("compressed"):
        return record_pb.Records.FromString(codecs.decompress(request.compressed))
    return request.columns


class FakeCluster:
    """Topics, who leads what, and the nodes that serve them."""

    def __init__(self) -> None:
        self.topics: dict[str, list[FakePartition]] = {}
        self.nodes: dict[int, FakeNode] = {}
        self.epochs: dict[str, int] = {}
        self.faults: Faults = lambda _node, _request: None
        # Every produce request that reached a node: (node, request).
        self.seen: list[tuple[int, log_pb.ProduceRequest]] = []
        self._arrived = asyncio.Event()
        # While cleared, leaders keep answers back.
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        # Somebody has asked about a topic.
        self.is_asked = asyncio.Event()
        # Streams of WatchCluster, and the topics that each asked for.
        self.watchers: list[asyncio.Queue[cluster_pb.WatchClusterResponse]] = []
        self.watched: list[list[str]] = []
        self.is_watched = asyncio.Event()
        # Added to the tag of every answer.
        self.tag_shift = 0

    def create(self, topic: str, leaders: list[int]) -> list[FakePartition]:
        self.topics[topic] = [FakePartition(leader) for leader in leaders]
        return self.topics[topic]

    def move(self, topic: str, partition: int, to_node: int) -> None:
        one = self.topics[topic][partition]
        one.leader, one.term = to_node, one.term + 1
        news = cluster_pb.WatchClusterResponse()
        changed = self.topic_message(topic).partitions[partition]
        news.partitions.add(topic=topic, partition=changed)
        for watcher in self.watchers:
            watcher.put_nowait(news)

    async def start(self, count: int) -> None:
        for node_id in range(1, count + 1):
            await self.start_node(node_id)

    async def start_node(self, node_id: int) -> None:
        node = FakeNode(self, node_id)
        await node.start()
        self.nodes[node_id] = node

    async def stop(self) -> None:
        self.may_answer.set()
        for node in self.nodes.values():
            await node.stop()

    def see(self, node_id: int, request: log_pb.ProduceRequest) -> None:
        self.seen.append((node_id, request))
        self._arrived.set()

    async def until_seen(self, count: int = 1) -> None:
        """Waits until so many produce requests have reached a node."""
        while len(self.seen) < count:
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes.values() if node.is_up)

    def topic_message(self, name: str) -> topic_pb.Topic:
        message = topic_pb.Topic(name=name, topic_id=1, replication_factor=3)
        for number, one in enumerate(self.topics[name]):
            message.partitions.add(
                partition=number,
                group_id=100 + number,
                leader_node_id=one.leader,
                leader_term=one.term,
                leader_address=self.nodes[one.leader].address,
            )
        return message


class FakeNode:
    """One node, with the methods that the tests need."""

    def __init__(self, cluster: FakeCluster, node_id: int) -> None:
        self._cluster = cluster
        self.node_id = node_id
        self.address = ""
        self.is_up = False
        # Takes requests and never answers.
        self.is_hung = False
        self.topic_questions = 0
        # What Reads asked this node for.
        self.read_partitions: list[int] = []
        options = [("grpc.http2.min_ping_interval_without_data_ms", 1_000)]
        self._server = grpc.aio.server(options=options)

    async def start(self) -> None:
        self._server.add_generic_rpc_handlers(self._handlers())
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.address = f"127.0.0.1:{port}"
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False
        await self._server.stop(None)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        def unary(method: Any, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(method, request.FromString, to_bytes)

        log = {
            "InitProducer": unary(self.init_producer, log_pb.InitProducerRequest),
            "GetProducerState": unary(self.get_producer_state, log_pb.GetProducerStateRequest),
            "GetOffsets": unary(self.get_offsets, log_pb.GetOffsetsRequest),
            "ProduceStream": grpc.stream_stream_rpc_method_handler(
                self.produce_stream, log_pb.ProduceStreamRequest.FromString, to_bytes
            ),
            "Read": grpc.unary_stream_rpc_method_handler(
                self.read, log_pb.ReadRequest.FromString, to_bytes
            ),
        }
        topic = {"GetTopic": unary(self.get_topic, topic_pb.GetTopicRequest)}
        cluster = {
            "GetCluster": unary(self.get_cluster, cluster_pb.GetClusterRequest),
            "WatchCluster": grpc.unary_stream_rpc_method_handler(
                self.watch_cluster, cluster_pb.WatchClusterRequest.FromString, to_bytes
            ),
        }
        return (
            grpc.method_handlers_generic_handler("rakit.api.v1.LogService", log),
            grpc.method_handlers_generic_handler("rakit.api.v1.TopicService", topic),
            grpc.method_handlers_generic_handler("rakit.api.v1.ClusterService", cluster),
        )

    async def get_cluster(
        self, _request: object, _context: Context
    ) -> cluster_pb.GetClusterResponse:
        answer = cluster_pb.GetClusterResponse(cluster_id="fake")
        for node in self._cluster.nodes.values():
            message = answer.nodes.add(node_id=node.node_id, name=f"n{node.node_id}")
            message.state = cluster_pb.NODE_STATE_UP if node.is_up else cluster_pb.NODE_STATE_DOWN
            message.addresses.add(listener="default", address=node.address)
        return answer

    async def watch_cluster(
        self, request: cluster_pb.WatchClusterRequest, _context: Context
    ) -> AsyncIterator[cluster_pb.WatchClusterResponse]:
        queue: asyncio.Queue[cluster_pb.WatchClusterResponse] = asyncio.Queue()
        self._cluster.watchers.append(queue)
        self._cluster.watched.append(list(request.topics))
        self._cluster.is_watched.set()
        while True:
            yield await queue.get()

    async def get_topic(
        self, request: topic_pb.GetTopicRequest, context: Context
    ) -> topic_pb.GetTopicResponse:
        self.topic_questions += 1
        self._cluster.is_asked.set()
        if self.is_hung:
            await asyncio.Event().wait()
        if request.name not in self._cluster.topics:
            await refuse(context, RefusalError("UNKNOWN_TOPIC", f"no topic {request.name!r}"))
        return topic_pb.GetTopicResponse(topic=self._cluster.topic_message(request.name))

    async def init_producer(
        self, request: log_pb.InitProducerRequest, _context: Context
    ) -> log_pb.InitProducerResponse:
        epochs = self._cluster.epochs
        # Without a name: an id of its own, as if it had a name that nobody will say again.
        name = request.producer_name or f"nameless {len(epochs)}"
        epochs[name] = epochs.get(name, 0) + 1
        return log_pb.InitProducerResponse(
            producer_id=1 + list(epochs).index(name), epoch=epochs[name]
        )

    async def get_producer_state(
        self, request: log_pb.GetProducerStateRequest, _context: Context
    ) -> log_pb.GetProducerStateResponse:
        one = self._cluster.topics[request.topic][request.partition]
        epoch, last, memory = one.producers.get(request.producer_id, (0, 0, {}))
        if request.HasField("fence_epoch"):
            epoch = max(epoch, request.fence_epoch)
            one.producers[request.producer_id] = (epoch, last, memory)
        return log_pb.GetProducerStateResponse(last_sequence=last, epoch=epoch)

    async def get_offsets(
        self, request: log_pb.GetOffsetsRequest, _context: Context
    ) -> log_pb.GetOffsetsResponse:
        answer = log_pb.GetOffsetsResponse()
        for number, one in enumerate(self._cluster.topics[request.topic]):
            if not request.partitions or number in request.partitions:
                answer.partitions.add(partition=number, earliest=0, latest=one.end_offset)
        return answer

    async def produce_stream(
        self, requests: AsyncIterator[log_pb.ProduceStreamRequest], context: Context
    ) -> AsyncIterator[log_pb.ProduceStreamResponse]:
        broken: set[tuple[str, int]] = set()
        async for message in requests:
            if message.HasField("restart"):
                broken.discard((message.restart.topic, message.restart.partition))
                yield log_pb.ProduceStreamResponse(
                    tag=message.tag, restarted=log_pb.PartitionRestarted()
                )
                continue
            request = message.produce
            lane = (request.topic, request.partition)
            self._cluster.see(self.node_id, request)
            try:
                result = await self._produce(request, is_refused=lane in broken)
            except RefusalError as refusal:
                broken.add(lane)
                yield log_pb.ProduceStreamResponse(tag=message.tag, error=refusal.status())
            except BrokenError:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the node is gone")
            else:
                tag = message.tag + self._cluster.tag_shift
                yield log_pb.ProduceStreamResponse(tag=tag, result=result)

    async def _produce(
        self, request: log_pb.ProduceRequest, *, is_refused: bool
    ) -> log_pb.ProduceResponse:
        if is_refused:
            raise RefusalError("EARLIER_REQUEST_FAILED")
        one = self._cluster.topics[request.topic][request.partition]
        if request.leader_only and one.leader != self.node_id:
            address = self._cluster.nodes[one.leader].address
            raise RefusalError(
                "NOT_LEADER",
                leader_node_id=str(one.leader),
                leader_term=str(one.term),
                leader_address=address,
            )
        fault = self._cluster.faults(self.node_id, request)
        if isinstance(fault, RefusalError):
            raise fault
        if fault is Fault.BREAK_BEFORE:
            raise BrokenError
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        await self._cluster.may_answer.wait()
        result = one.append(request)
        if fault is Fault.BREAK_AFTER:
            raise BrokenError
        if fault is Fault.UNKNOWN_AFTER:
            raise RefusalError("OUTCOME_UNKNOWN", outcome="UNKNOWN")
        return result

    async def read(
        self, request: log_pb.ReadRequest, context: Context
    ) -> AsyncIterator[log_pb.ReadResponse]:
        self.read_partitions.extend(position.partition for position in request.positions)
        if self.refused_reads:
            self.refused_reads -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the node is gone")
        for position in request.positions:
            one = self._cluster.topics[position.topic][position.partition]
            together = log_pb.ReadResponse()
            together.data.topic, together.data.partition = position.topic, position.partition
            for stored in list(one.batches):
                if stored.base_offset + stored.count <= position.offset:
                    continue
                if position.HasField("end_offset") and stored.base_offset >= position.end_offset:
                    break
                answer = log_pb.ReadResponse()
                answer.data.topic, answer.data.partition = position.topic, position.partition
                batch = answer.data.batches.add(
                    base_offset=stored.base_offset, record_count=stored.count, append_time_ms=1_000
                )
                batch.records.ParseFromString(stored.content)
                if self.answers_together:
                    together.data.batches.append(batch)
                    continue
                yield answer
                if self.breaks_every_read:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the node is gone")
                if self.break_reads_after > 0:
                    self.break_reads_after -= 1
                    if not self.break_reads_after:
                        self.refused_reads = self.refused_after_break
                        await context.abort(grpc.StatusCode.UNAVAILABLE, "the node is gone")
            if together.data.batches:
                yield together
        if request.follow:
            # Nothing is ever appended while somebody follows.
            await asyncio.Event().wait()

    # Reads break once after so many batches; 0: never.
    break_reads_after = 0
    # All batches of a partition come in one answer.
    answers_together = False
    # Every read breaks after one batch.
    breaks_every_read = False
    # So many reads get nothing, and so many after the one that breaks.
    refused_reads = 0
    refused_after_break = 0


def to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


async def refuse(context: Context, refusal: RefusalError) -> None:
    details = refusal.status().SerializeToString()
    await context.abort(
        grpc.StatusCode.NOT_FOUND,
        refusal.text,
        (("rakit-reason", refusal.reason), ("grpc-status-details-bin", details)),
    )
