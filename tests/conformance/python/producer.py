"""A producer that stores each batch once, whichever nodes die meanwhile."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc

from rakit.api.v1.log_service_pb2 import InitProducerRequest, ProduceRequest, ProduceResponse
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.api.v1.record_pb2 import Record

AnswerT = TypeVar("AnswerT")
PATIENCE_S = 30
# What another attempt may mend, with the same sequence. All else is for the caller.
AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Producer:
    """Sends one batch at a time, to any node."""

    def __init__(self, addresses: Sequence[str], topic: str) -> None:
        self.stubs = [LogServiceStub(grpc.insecure_channel(each)) for each in addresses]
        self.topic = topic
        self.sequence = 0
        self.me = self._call(lambda stub: stub.InitProducer(InitProducerRequest(), timeout=5))

    def send(self, partition: int, values: Sequence[bytes]) -> ProduceResponse:
        """Returns once a majority has the batch on disk."""
        self.sequence += 1
        request = ProduceRequest(topic=self.topic, partition=partition)
        request.rows.records.extend(Record(value=value) for value in values)
        request.producer.producer_id = self.me.producer_id
        request.producer.epoch = self.me.epoch
        request.producer.sequence = self.sequence
        return self._call(lambda stub: stub.Produce(request, timeout=5))

    def _call(self, call: Callable[[LogServiceStub], AnswerT]) -> AnswerT:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call(self.stubs[0])
            except grpc.RpcError as error:
                if error.code() not in AGAIN or time.monotonic() > deadline:
                    raise
                self.stubs.append(self.stubs.pop(0))  # the next node
                time.sleep(0.1)
