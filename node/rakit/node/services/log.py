"""LogService: parses and checks, hands over to the paths, puts answers together.

Produce and its variants go by `produce` and `forwarding`, reads by `reading`. What is decided here
is the shape of an answer, and which failure of a part is a failure of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import (
    FetchRequest,
    GetOffsetsRequest,
    GetOffsetsResponse,
    GetProducerStateRequest,
    GetProducerStateResponse,
    InitProducerRequest,
    InitProducerResponse,
    PartitionOutcome,
    Position,
    ProduceMixedResponse,
    ProduceResponse,
    ReadRequest,
)
from rakit.node.errors import RakitError, to_status
from rakit.node.metadata import commands
from rakit.node.metadata.topics import TOPIC_PARTITIONS_COUNT_MAX
from rakit.node.partition.answers import Appended
from rakit.node.partition.batches import Batch, admit_rows, parse_rows
from rakit.node.partition.hashing import Part, split
from rakit.node.partition.producers import INTEGER_MAX, Stamp
from rakit.node.partition.steps import in_turns
from rakit.node.partitions import settings_of
from rakit.node.produce import ProducePath
from rakit.node.reading.budget import ReadBudget
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, ReadLimits
from rakit.node.reading.render import Form, render
from rakit.node.routing import answer_by, give_up_at, patience_s
from rakit.node.services.admission import admitted, partition_count, stamp_of
from rakit.node.services.handlers import Call, Methods, Stream
from rakit.node.services.offsets import OffsetLookup
from rakit.node.services.placement import ProduceParts
from rakit.node.services.positions import check_positions, fetch_limits
from rakit.node.services.produce_stream import ProduceSession
from rakit.node.services.read_stream import ReadSession
from rakit.node.services.twins import mixed_request, produce_request
from rakit.peer.v1.opaque_pb2 import OpaqueFetchResponse

#: A long poll answers this long before the caller's own deadline (contract 17).
POLL_RESERVE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class LogParts:
    """What the service needs of the node."""

    produce: ProduceParts
    path: ProducePath
    fetcher: Fetcher
    lookup: OffsetLookup
    budget: ReadBudget


class LogService:
    """rakit.api.v1.LogService on one node."""

    NAME: Final = "rakit.api.v1.LogService"

    def __init__(self, parts: LogParts) -> None:
        self._parts = parts
        self._router = parts.produce.router
        self._header = parts.produce.header
        self._in_flight = parts.produce.in_flight

    def register(self, methods: Methods) -> None:
        """Adds the methods. The hot ones use the opaque twins of their messages."""
        methods.unary("InitProducer", InitProducerRequest, self.init_producer)
        methods.raw_unary("Produce", self.produce)
        methods.raw_unary("ProduceMixed", self.produce_mixed)
        methods.bidirectional("ProduceStream", self.produce_stream)
        methods.unary("Fetch", FetchRequest, self.fetch, waits=True)
        methods.server_stream("Read", ReadRequest, self.read)
        methods.unary("GetOffsets", GetOffsetsRequest, self.get_offsets)
        methods.unary("GetProducerState", GetProducerStateRequest, self.get_producer_state)

    async def init_producer(self, call: Call, request: InitProducerRequest) -> InitProducerResponse:
        """Registers a producer or raises its epoch."""
        command = commands.init_producer(request.producer_name)
        result = await self._router.metadata.submit(
            command, timeout_seconds=patience_s(call.deadline)
        )
        ready = result.producer_ready
        return InitProducerResponse(
            header=self._header, producer_id=ready.producer_id, epoch=ready.epoch
        )

    async def produce(self, call: Call, data: bytes) -> ProduceResponse:
        """Appends one batch to one partition."""
        produced = produce_request(data)
        request = produced.message
        give_up = give_up_at(call.deadline)
        self._in_flight.take(len(data))
        try:
            self._in_flight.check()
            if request.WhichOneof("target") == "partition":
                topic, _ = await self._router.partition(request.topic, request.partition, give_up)
            else:
                topic = await self._router.topic(request.topic, give_up)
            partition = self._parts.produce.targeting.partition_of(request, topic)
            content = admitted(produced, topic)
            try:
                appended = await self._parts.path.append(
                    topic.name,
                    partition,
                    content.batch,
                    content.stamp,
                    content.expected_offset,
                    deadline=call.deadline,
                    leader_only_listener=call.listener if request.leader_only else None,
                )
            except RakitError as error:
                raise self._router.placed(error, topic.name, partition, call.listener) from None
            return self._produced(appended, partition)
        finally:
            self._in_flight.give(len(data))

    def _produced(self, appended: Appended, partition: int) -> ProduceResponse:
        response = ProduceResponse(header=self._header, partition=partition)
        appended.fill(response)
        return response

    async def produce_mixed(self, call: Call, data: bytes) -> ProduceMixedResponse:
        """Splits rows by key and appends each part to its partition."""
        request = mixed_request(data)
        stamp = stamp_of(request.producer) if request.HasField("producer") else None
        if stamp is not None and stamp.previous_sequence is not None:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                "previous_sequence must be absent: the request may touch several partitions, each"
                " with its own.",
            )
        rows = parse_rows(request.rows)
        if not rows.records:
            raise RakitError(error_pb2.ERROR_REASON_EMPTY_BATCH, "The request holds no record.")
        self._in_flight.take(len(data))
        try:
            self._in_flight.check()
            topic = await self._router.topic(request.topic, give_up_at(call.deadline))
            stated = request.partition_count if request.HasField("partition_count") else None
            count = partition_count(topic, stated)
            producer = None if stamp is None else stamp.producer_id
            unkeyed = self._parts.produce.targeting.unkeyed(producer, count)
            parts = await in_turns(split(rows, count, unkeyed))
            # One after the other: together they would take a step each in every turn of the loop.
            batches = {
                number: await self._admitted(call, topic.name, number, part)
                for number, part in parts.items()
            }
            outcomes = await asyncio.gather(
                *(
                    self._part(call, topic.name, number, batch, stamp)
                    for number, batch in batches.items()
                )
            )
        finally:
            self._in_flight.give(len(data))
        response = ProduceMixedResponse(header=self._header)
        for (number, part), outcome in zip(parts.items(), outcomes, strict=True):
            one = PartitionOutcome(partition=number, rows=part.places)
            if isinstance(outcome, RakitError):
                one.error.CopyFrom(to_status(outcome))
            else:
                one.result.CopyFrom(self._produced(outcome, number))
            response.outcomes.append(one)
        return response

    async def _admitted(self, call: Call, name: str, number: int, part: Part) -> Batch | RakitError:
        try:
            topic, _ = await self._router.partition(name, number, give_up_at(call.deadline))
            limits = settings_of(topic.config).batch_limits
            return await in_turns(admit_rows(part.records, limits))
        except RakitError as error:
            return self._router.placed(error, name, number, call.listener)

    async def _part(
        self, call: Call, name: str, number: int, batch: Batch | RakitError, stamp: Stamp | None
    ) -> Appended | RakitError:
        if isinstance(batch, RakitError):
            return batch
        try:
            return await self._parts.path.append(
                name, number, batch, stamp, None, deadline=call.deadline
            )
        except RakitError as error:
            return self._router.placed(error, name, number, call.listener)

    async def produce_stream(self, call: Call, stream: Stream) -> None:
        """Appends many batches, pipelined."""
        await ProduceSession(call, stream, self._parts.produce).run()

    async def fetch(self, call: Call, request: FetchRequest) -> OpaqueFetchResponse:
        """Returns what stands at positions, waiting a while if that is too little."""
        check_positions(request.positions)
        min_bytes, max_bytes, wait_ms = fetch_limits(request)
        wait_until_max = answer_by(call.deadline, POLL_RESERVE_S)
        now = asyncio.get_running_loop().time()
        wait_until = min(now + wait_ms / 1000, wait_until_max)
        give_up = min(max(give_up_at(call.deadline), wait_until), wait_until_max)
        limits = ReadLimits(min_bytes, max_bytes, wait_until)
        # Another node that waits so long needs a moment to say so.
        latest = (wait_until_max + call.deadline) / 2
        findings = await self._parts.fetcher.fetch(
            request.positions, limits, give_up, give_up, latest
        )
        errors = [each for each in findings if isinstance(each, RakitError)]
        if len(errors) == len(findings):
            first = request.positions[0]
            raise self._router.placed(errors[0], first.topic, first.partition, call.listener)
        for position, finding in zip(request.positions, findings, strict=True):
            if isinstance(finding, RakitError):
                self._router.placed(finding, position.topic, position.partition, call.listener)
        form = Form.of(request.layout, request.accept_codecs)
        return self._fetched(request.positions, findings, form, max_bytes)

    def _fetched(
        self, positions: Sequence[Position], findings: Sequence[Finding], form: Form, max_bytes: int
    ) -> OpaqueFetchResponse:
        response = OpaqueFetchResponse(header=self._header)
        left = max_bytes
        for position, finding in zip(positions, findings, strict=True):
            if isinstance(finding, RakitError):
                response.partitions.add(
                    topic=position.topic,
                    partition=position.partition,
                    error=to_status(finding),
                )
            else:
                data, first = response.partitions.add(), left == max_bytes
                left -= render(data, position, finding, form, left, at_least_one=first)
        return response

    async def read(self, _call: Call, request: ReadRequest, stream: Stream) -> None:
        """Streams records from positions."""
        session = ReadSession(request, stream, self._parts.fetcher, self._parts.budget)
        await session.run(self._parts.lookup)

    async def get_offsets(self, call: Call, request: GetOffsetsRequest) -> GetOffsetsResponse:
        """Returns the readable range of partitions."""
        time_ms = request.time_ms if request.HasField("time_ms") else None
        if time_ms is not None and not 0 <= time_ms <= INTEGER_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"{time_ms} is no time in milliseconds since 1970.",
            )
        if len(request.partitions) > TOPIC_PARTITIONS_COUNT_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"The request names {len(request.partitions)} partitions; a topic has at most"
                f" {TOPIC_PARTITIONS_COUNT_MAX}.",
                {"limit": str(TOPIC_PARTITIONS_COUNT_MAX), "actual": str(len(request.partitions))},
            )
        numbers = list(dict.fromkeys(request.partitions))
        give_up = give_up_at(call.deadline)
        topic = await self._router.topic_with(request.topic, numbers, give_up)
        numbers = numbers or list(range(len(topic.partitions)))
        found = await self._parts.lookup.all_offsets(topic, numbers, time_ms, call.deadline)
        return GetOffsetsResponse(header=self._header, partitions=found)

    async def get_producer_state(
        self, call: Call, request: GetProducerStateRequest
    ) -> GetProducerStateResponse:
        """Says what became of one batch."""
        if not 1 <= request.producer_id <= INTEGER_MAX or request.sequence < 0:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                "producer_id must be one that InitProducer gave, and sequence must not be"
                " negative.",
            )
        response = await self._parts.lookup.producer_state(request, call.deadline)
        response.header.CopyFrom(self._header)
        return response
