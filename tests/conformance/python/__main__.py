"""The Python program: does the steps that it reads on stdin, and says what came of each."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.cluster_service_pb2 import WatchClusterResponse
from rakit.api.v1.group_service_pb2 import GetGroupRequest, JoinGroup
from rakit.api.v1.group_service_pb2_grpc import GroupServiceStub
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.api.v1.record_pb2 import Header, Record, Rows
from rakit.api.v1.topic_service_pb2_grpc import TopicServiceStub
from tests.conformance.python.consumer import consume
from tests.conformance.python.errors import describe
from tests.conformance.python.producer import Producer
from tests.conformance.python.reader import read
from tests.conformance.python.watcher import watch

Step = dict[str, Any]
TIMEOUT_S = 20


class Program:
    """The steps by name; each returns what the runner is to see."""

    def __init__(self, addresses: list[str], topic: str) -> None:
        self.addresses = addresses
        self.topic = topic
        self.producer = log.InitProducerResponse()
        channel = grpc.insecure_channel(addresses[0])
        self.topics = TopicServiceStub(channel)
        self.groups = GroupServiceStub(channel)

    def at(self, step: Step) -> LogServiceStub:
        return LogServiceStub(grpc.insecure_channel(step.get("at", self.addresses[0])))

    def stamp(self, sequence: int) -> log.ProducerStamp:
        me = self.producer
        return log.ProducerStamp(producer_id=me.producer_id, epoch=me.epoch, sequence=sequence)

    def init_producer(self, step: Step) -> Step:
        request = log.InitProducerRequest(producer_name=step.get("name", ""))
        self.producer = self.at(step).InitProducer(request, timeout=TIMEOUT_S)
        return {"producer_id": self.producer.producer_id, "epoch": self.producer.epoch}

    def produce(self, step: Step) -> Step:
        request = log.ProduceRequest(topic=self.topic, rows=rows(step["rows"]))
        request.leader_only = step.get("leader_only", False)
        if "key" in step:
            request.routing_key = step["key"].encode()
        else:
            request.partition = step["partition"]
        if "sequence" in step:
            request.producer.CopyFrom(self.stamp(step["sequence"]))
        if "expected_offset" in step:
            request.expected_offset = step["expected_offset"]
        return produced(self.at(step).Produce(request, timeout=TIMEOUT_S))

    def produce_stream(self, step: Step) -> Step:
        requests = [log.ProduceStreamRequest(tag=n) for n in range(1, len(step["batches"]) + 1)]
        for request, batch in zip(requests, step["batches"], strict=True):
            request.produce.topic = self.topic
            request.produce.partition = step["partition"]
            request.produce.rows.CopyFrom(rows(batch))
            request.produce.producer.CopyFrom(self.stamp(request.tag))
            request.produce.producer.previous_sequence = request.tag - 1
        answers = self.at(step).ProduceStream(iter(requests), timeout=TIMEOUT_S)
        return {"answers": [{"tag": one.tag, **produced(one.result)} for one in answers]}

    def produce_many(self, step: Step) -> Step:
        producer, acked = Producer(self.addresses, self.topic), list[Step]()
        for number in range(step["count"]):
            value = f"record-{number}"
            answer = producer.send(step["partition"], [value.encode()])
            at = {"partition": answer.partition, "offset": answer.base_offset}
            acked.append({"value": value, **at})
            progress(value)
        return {"count": len(acked), "acked": acked}

    def position(self, step: Step) -> log.Position:
        position = log.Position(topic=self.topic, partition=step["partition"])
        if "offset" in step:
            position.offset = step["offset"]
        if "time_ms" in step:
            position.time_ms = step["time_ms"]
        return position

    def read(self, step: Step) -> Step:
        position = self.position(step)
        return listed(list(read(self.addresses, position)), position)

    def follow(self, step: Step) -> Step:
        position, records = self.position(step), list[Record]()
        for record in read(self.addresses, position, follow=True):
            records.append(record)
            progress(record.value.decode())
            if len(records) == step["count"]:
                break
        return listed(records, position)

    def create_topic(self, step: Step) -> Step:
        request = topics.CreateTopicRequest(name=step["name"], request_id=step["request_id"])
        request.partition_count = step["partitions"]
        request.replication_factor = step.get("replication_factor", 0)
        return told(self.topics.CreateTopic(request, timeout=TIMEOUT_S).topic)

    def get_topic(self, step: Step) -> Step:
        request = topics.GetTopicRequest(name=step["name"])
        return told(self.topics.GetTopic(request, timeout=TIMEOUT_S).topic)

    def list_topics(self, step: Step) -> Step:
        request, pages = topics.ListTopicsRequest(page_size=step["page_size"]), list[list[str]]()
        while not pages or request.page_token:
            answer = self.topics.ListTopics(request, timeout=TIMEOUT_S)
            pages.append([topic.name for topic in answer.topics])
            request.page_token = answer.next_page_token
        names = [name for page in pages for name in page]
        return {"names": names, "page_count": len(pages), "largest_page": max(map(len, pages))}

    def update_topic(self, step: Step) -> Step:
        request = topics.UpdateTopicRequest(name=step["name"], request_id=step["request_id"])
        request.config.retention_ms = step["retention_ms"]
        return told(self.topics.UpdateTopic(request, timeout=TIMEOUT_S).topic)

    def delete_topic(self, step: Step) -> Step:
        request = topics.DeleteTopicRequest(name=step["name"], request_id=step["request_id"])
        self.topics.DeleteTopic(request, timeout=TIMEOUT_S)
        return {"deleted": True}

    def consume(self, step: Step) -> Step:
        """Until so many records are there or, without a count, until the group has no lag."""
        records = list[Record]()

        def handle(record: Record | None) -> bool:
            if record is not None:
                records.append(record)
                progress(record.value.decode())
            if "count" in step:
                return bool(len(records) < step["count"])
            return record is not None or any(
                partition["lag"] for partition in self.get_group(step)["partitions"]
            )

        consume(self.addresses, JoinGroup(group=step["group"], topics=[self.topic]), handle)
        return {"values": [record.value.decode() for record in records]}

    def get_group(self, step: Step) -> Step:
        request = GetGroupRequest(group=step["group"])
        group = self.groups.GetGroup(request, timeout=TIMEOUT_S).group
        partitions = [
            {
                "topic": each.topic,
                "partition": each.partition,
                "latest": each.latest,
                "lag": each.lag_records,
                **(
                    {"committed": each.committed_offset}
                    if each.HasField("committed_offset")
                    else {}
                ),
            }
            for each in group.partitions
        ]
        return {"name": group.name, "partitions": partitions}

    def watch(self, step: Step) -> Step:
        """Until the first of the topics is deleted."""
        messages, names = list[Step](), step["names"]
        for change in watch(self.addresses, names):
            found: Step = {"version": change.version, "is_snapshot": change.is_snapshot}
            found |= {"has_more": change.has_more, "leaders": leaders(change)}
            messages.append({**found, "deleted": list(change.deleted_topics)})
            for leader in leaders(change):
                progress(leader)
            if names[0] in change.deleted_topics:
                break
        return {"messages": messages}


def rows(written: list[Step]) -> Rows:
    return Rows(records=[row(each) for each in written])


def row(written: Step) -> Record:
    record = Record(
        headers=[Header(name=n, value=v.encode()) for n, v in written.get("headers", [])]
    )
    if "key" in written:
        record.key = written["key"].encode()
    if "value" in written:
        record.value = written["value"].encode()
    return record


def produced(answer: log.ProduceResponse) -> Step:
    names = ("partition", "base_offset", "end_offset", "term", "index", "replicas", "fsynced")
    return {name: getattr(answer, name) for name in (*names, "duplicate")}


def listed(records: list[Record], position: log.Position) -> Step:
    seen = list(map(fields, records))
    values = [each.get("value") for each in seen]
    return {"rows": seen, "values": values, "next_offset": position.offset}


def leaders(change: WatchClusterResponse) -> list[str]:
    """Who leads, as far as the message says so."""
    places = [(topic.name, each) for topic in change.topics for each in topic.partitions]
    places += [(each.topic, each.partition) for each in change.partitions]
    return [
        f"{topic} {each.partition} {each.leader_address}"
        for topic, each in places
        if each.leader_address
    ]


def fields(record: Record) -> Step:
    headers = [[each.name, each.value.decode()] for each in record.headers]
    found: Step = {"offset": record.offset, "headers": headers}
    if record.HasField("key"):
        found["key"] = record.key.decode()
    if record.HasField("value"):
        found["value"] = record.value.decode()
    return found


def told(topic: topics.Topic) -> Step:
    found: Step = {"name": topic.name, "topic_id": topic.topic_id}
    found["partition_count"] = len(topic.partitions)
    found["replication_factor"] = topic.replication_factor
    if topic.config.HasField("retention_ms"):
        found["retention_ms"] = topic.config.retention_ms
    return found


def progress(value: str) -> None:
    print("progress", value, file=sys.stderr, flush=True)


def results(orders: Step) -> Iterator[Step]:
    program = Program(orders["addresses"], orders["topic"])
    for step in orders["steps"]:
        operation: Callable[[Step], Step] = getattr(program, step["op"])
        try:
            yield operation(step)
        except grpc.RpcError as error:
            yield {"error": describe(error)}


if __name__ == "__main__":
    print(json.dumps({"results": list(results(json.load(sys.stdin)))}))
