//! The Rust program: does the steps that it reads on stdin, and says what came of each.
mod consumer;
mod errors;
mod producer;
mod reader;
mod watcher;

// [stubs]
#[allow(dead_code)]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
}
// [/stubs]

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{json, Value};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use stubs::google::rpc as google_rpc;
use stubs::rakit::api::v1 as api;

use api::group_service_client::GroupServiceClient;
use api::log_service_client::LogServiceClient;
use api::position::Start;
use api::produce_request::{Batch, Target};
use api::topic_service_client::TopicServiceClient;

struct Program {
    addresses: Vec<String>,
    topic: String,
    channels: HashMap<String, Channel>,
    me: api::InitProducerResponse,
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    request
}

fn text(step: &Value, name: &str) -> String {
    step[name].as_str().unwrap_or_default().into()
}

fn number(step: &Value, name: &str) -> i32 {
    step[name].as_i64().unwrap_or_default() as i32
}

fn progress(value: &str) {
    eprintln!("progress {value}");
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into()
}

fn rows(written: &Value) -> api::Rows {
    let bytes = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let header = |pair: &Value| api::Header { name: pair[0].as_str().unwrap_or_default().into(), value: bytes(&pair[1]).unwrap_or_default() };
    let record = |row: &Value| api::Record {
        key: bytes(&row["key"]),
        value: bytes(&row["value"]),
        headers: row["headers"].as_array().into_iter().flatten().map(header).collect(),
        ..Default::default()
    };
    api::Rows { records: written.as_array().into_iter().flatten().map(record).collect() }
}

fn fields(record: &api::Record) -> Value {
    let headers: Vec<_> = record.headers.iter().map(|each| json!([each.name, string(&each.value)])).collect();
    let mut found = json!({ "offset": record.offset, "headers": headers });
    if let Some(key) = &record.key {
        found["key"] = json!(string(key));
    }
    if let Some(value) = &record.value {
        found["value"] = json!(string(value));
    }
    found
}

fn produced(answer: &api::ProduceResponse) -> Value {
    json!({
        "partition": answer.partition, "base_offset": answer.base_offset, "end_offset": answer.end_offset,
        "term": answer.term, "index": answer.index, "replicas": answer.replicas,
        "fsynced": answer.fsynced, "duplicate": answer.duplicate,
    })
}

fn told(topic: Option<api::Topic>) -> Value {
    let topic = topic.unwrap_or_default();
    let mut found = json!({
        "name": topic.name, "topic_id": topic.topic_id, "partition_count": topic.partitions.len(),
        "replication_factor": topic.replication_factor,
    });
    if let Some(retention) = topic.config.and_then(|config| config.retention_ms) {
        found["retention_ms"] = json!(retention);
    }
    found
}

impl Program {
    fn channel(&mut self, step: &Value) -> Channel {
        let address = step["at"].as_str().unwrap_or(&self.addresses[0]).to_string();
        let lazily = || Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        self.channels.entry(address.clone()).or_insert_with(lazily).clone()
    }

    fn log(&mut self, step: &Value) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel(step))
    }

    fn stamp(&self, sequence: i64, previous_sequence: Option<i64>) -> api::ProducerStamp {
        let me = &self.me;
        api::ProducerStamp { producer_id: me.producer_id, epoch: me.epoch, sequence, previous_sequence }
    }

    async fn step(&mut self, step: &Value) -> Result<Value, Status> {
        match step["op"].as_str().unwrap_or_default() {
            "init_producer" => {
                let request = api::InitProducerRequest { producer_name: text(step, "name") };
                self.me = self.log(step).init_producer(limited(request)).await?.into_inner();
                Ok(json!({ "producer_id": self.me.producer_id, "epoch": self.me.epoch }))
            }
            "produce" => self.produce(step).await,
            "produce_stream" => self.produce_stream(step).await,
            "produce_many" => self.produce_many(step).await,
            "read" => self.read(step, false).await,
            "follow" => self.read(step, true).await,
            "consume" => self.consume(step).await,
            "watch" => self.watch(step).await,
            "get_group" => {
                let channel = self.channel(step);
                get_group(channel, &text(step, "group")).await
            }
            _ => self.topic_step(step).await,
        }
    }

    async fn topic_step(&mut self, step: &Value) -> Result<Value, Status> {
        let mut stub = TopicServiceClient::new(self.channel(step));
        let (name, request_id) = (text(step, "name"), text(step, "request_id"));
        match step["op"].as_str().unwrap_or_default() {
            "create_topic" => {
                let request = api::CreateTopicRequest {
                    name,
                    partition_count: number(step, "partitions"),
                    replication_factor: number(step, "replication_factor"),
                    request_id,
                    ..Default::default()
                };
                Ok(told(stub.create_topic(limited(request)).await?.into_inner().topic))
            }
            "get_topic" => {
                let request = api::GetTopicRequest { name };
                Ok(told(stub.get_topic(limited(request)).await?.into_inner().topic))
            }
            "list_topics" => {
                let (mut names, mut pages, mut largest) = (Vec::new(), 0, 0);
                let mut request = api::ListTopicsRequest { page_size: number(step, "page_size"), ..Default::default() };
                while pages == 0 || !request.page_token.is_empty() {
                    let answer = stub.list_topics(limited(request.clone())).await?.into_inner();
                    pages += 1;
                    largest = largest.max(answer.topics.len());
                    names.extend(answer.topics.into_iter().map(|topic| topic.name));
                    request.page_token = answer.next_page_token;
                }
                Ok(json!({ "names": names, "page_count": pages, "largest_page": largest }))
            }
            "update_topic" => {
                let config = api::TopicConfig { retention_ms: step["retention_ms"].as_i64(), ..Default::default() };
                let request = api::UpdateTopicRequest { name, config: Some(config), request_id, ..Default::default() };
                Ok(told(stub.update_topic(limited(request)).await?.into_inner().topic))
            }
            "delete_topic" => {
                stub.delete_topic(limited(api::DeleteTopicRequest { name, request_id })).await?;
                Ok(json!({ "deleted": true }))
            }
            unknown => panic!("unknown operation {unknown}"),
        }
    }

    fn request(&self, step: &Value, batch: &Value) -> api::ProduceRequest {
        let target = match step["key"].as_str() {
            Some(key) => Target::RoutingKey(key.as_bytes().to_vec()),
            None => Target::Partition(number(step, "partition")),
        };
        api::ProduceRequest {
            topic: self.topic.clone(),
            target: Some(target),
            batch: Some(Batch::Rows(rows(batch))),
            producer: step["sequence"].as_i64().map(|sequence| self.stamp(sequence, None)),
            expected_offset: step["expected_offset"].as_i64(),
            leader_only: step["leader_only"].as_bool().unwrap_or_default(),
            ..Default::default()
        }
    }

    async fn produce(&mut self, step: &Value) -> Result<Value, Status> {
        let request = self.request(step, &step["rows"]);
        Ok(produced(&self.log(step).produce(limited(request)).await?.into_inner()))
    }

    async fn produce_stream(&mut self, step: &Value) -> Result<Value, Status> {
        let batches = step["batches"].as_array().into_iter().flatten();
        let requests: Vec<_> = (1..)
            .zip(batches)
            .map(|(tag, batch)| {
                let producer = Some(self.stamp(tag, Some(tag - 1)));
                let produce = api::ProduceRequest { producer, ..self.request(step, batch) };
                api::ProduceStreamRequest { tag, request: Some(api::produce_stream_request::Request::Produce(produce)) }
            })
            .collect();
        let mut stream = self.log(step).produce_stream(limited(tokio_stream::iter(requests))).await?.into_inner();
        let mut answers = Vec::new();
        while let Some(answer) = stream.message().await? {
            if let Some(api::produce_stream_response::Outcome::Result(result)) = &answer.outcome {
                let mut found = produced(result);
                found["tag"] = json!(answer.tag);
                answers.push(found);
            }
        }
        Ok(json!({ "answers": answers }))
    }

    async fn produce_many(&mut self, step: &Value) -> Result<Value, Status> {
        let mut producer = producer::Producer::new(&self.addresses, &self.topic);
        let mut acked = Vec::new();
        for number in 0..step["count"].as_i64().unwrap_or_default() {
            let value = format!("record-{number}");
            let answer = producer.send(self::number(step, "partition"), vec![value.clone().into_bytes()]).await?;
            progress(&value);
            acked.push(json!({ "value": value, "partition": answer.partition, "offset": answer.base_offset }));
        }
        Ok(json!({ "count": acked.len(), "acked": acked }))
    }

    async fn read(&mut self, step: &Value, follow: bool) -> Result<Value, Status> {
        let offset = step["offset"].as_i64().map(Start::Offset);
        let start = offset.or(step["time_ms"].as_i64().map(Start::TimeMs));
        let mut position =
            api::Position { topic: self.topic.clone(), partition: number(step, "partition"), start, ..Default::default() };
        let mut seen = Vec::new();
        let handle = |record: api::Record| {
            seen.push(fields(&record));
            if follow {
                progress(&string(record.value()));
            }
            step["count"].as_u64().is_none_or(|count| (seen.len() as u64) < count)
        };
        reader::read(&self.addresses, &mut position, follow, handle).await?;
        let values: Vec<_> = seen.iter().map(|each| each["value"].clone()).collect();
        let Some(Start::Offset(next_offset)) = position.start else { return Ok(json!({ "rows": seen })) };
        Ok(json!({ "rows": seen, "values": values, "next_offset": next_offset }))
    }

    /// So many records or, without a count, all until the group has no lag.
    async fn consume(&mut self, step: &Value) -> Result<Value, Status> {
        let (channel, group) = (self.channel(step), text(step, "group"));
        let mut join = api::JoinGroup { group: group.clone(), topics: vec![self.topic.clone()], ..Default::default() };
        let (mut values, mut failed) = (Vec::new(), None);
        let handle = async |record: Option<api::Record>| {
            if let Some(record) = &record {
                values.push(string(record.value()));
                progress(&string(record.value()));
            }
            match (step["count"].as_u64(), record) {
                (Some(count), _) => (values.len() as u64) < count,
                (None, Some(_)) => true,
                (None, None) => match get_group(channel.clone(), &group).await {
                    Ok(found) => found["partitions"].as_array().into_iter().flatten().any(|each| each["lag"] != json!(0)),
                    Err(status) => {
                        failed = Some(status);
                        false
                    }
                },
            }
        };
        consumer::consume(&self.addresses, &mut join, handle).await?;
        failed.map_or(Ok(json!({ "values": values })), Err)
    }

    /// Until the first of the topics is deleted.
    async fn watch(&mut self, step: &Value) -> Result<Value, Status> {
        let names = step["names"].as_array().into_iter().flatten();
        let names: Vec<String> = names.map(|name| name.as_str().unwrap_or_default().into()).collect();
        let mut messages = Vec::new();
        let handle = |change: api::WatchClusterResponse| {
            let leaders = leaders(&change);
            leaders.iter().for_each(|leader| progress(leader));
            messages.push(json!({
                "version": change.version,
                "is_snapshot": change.is_snapshot,
                "has_more": change.has_more,
                "leaders": leaders,
                "deleted": change.deleted_topics,
            }));
            !change.deleted_topics.contains(&names[0])
        };
        watcher::watch(&self.addresses, &names, handle).await?;
        Ok(json!({ "messages": messages }))
    }
}

/// Who leads, as far as the message says so.
fn leaders(change: &api::WatchClusterResponse) -> Vec<String> {
    let whole = change.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |each| (&topic.name, each)));
    let some = change.partitions.iter().filter_map(|each| Some((&each.topic, each.partition.as_ref()?)));
    whole
        .chain(some)
        .filter(|(_, each)| !each.leader_address.is_empty())
        .map(|(topic, each)| format!("{topic} {} {}", each.partition, each.leader_address))
        .collect()
}

async fn get_group(channel: Channel, name: &str) -> Result<Value, Status> {
    let request = api::GetGroupRequest { group: name.into(), ..Default::default() };
    let answer = GroupServiceClient::new(channel).get_group(limited(request)).await?.into_inner();
    let group = answer.group.unwrap_or_default();
    let partition = |each: &api::GroupPartition| {
        let mut found =
            json!({ "topic": each.topic, "partition": each.partition, "latest": each.latest, "lag": each.lag_records });
        if let Some(committed) = each.committed_offset {
            found["committed"] = json!(committed);
        }
        found
    };
    Ok(json!({ "name": group.name, "partitions": group.partitions.iter().map(partition).collect::<Vec<_>>() }))
}

#[tokio::main]
async fn main() {
    let orders: Value = serde_json::from_reader(std::io::stdin()).expect("orders on stdin");
    let addresses = orders["addresses"].as_array().into_iter().flatten();
    let mut program = Program {
        addresses: addresses.map(|address| address.as_str().unwrap_or_default().into()).collect(),
        topic: text(&orders, "topic"),
        channels: HashMap::new(),
        me: api::InitProducerResponse::default(),
    };
    let mut results = Vec::new();
    for step in orders["steps"].as_array().into_iter().flatten() {
        results.push(match program.step(step).await {
            Ok(result) => result,
            Err(status) => json!({ "error": errors::describe(&status) }),
        });
    }
    println!("{}", json!({ "results": results }));
}
