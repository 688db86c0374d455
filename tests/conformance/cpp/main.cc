// The C++ program: does the steps that it reads on stdin, and says what came of each.
#include <algorithm>
#include <chrono>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <nlohmann/json.hpp>

#include "consumer.h"
#include "errors.h"
#include "producer.h"
#include "rakit/api/v1/topic_service.grpc.pb.h"
#include "reader.h"
#include "watcher.h"

using nlohmann::json;
using namespace rakit::api::v1;

namespace {

void Progress(const std::string& value) { std::cerr << "progress " << value << std::endl; }

void Fill(Rows* rows, const json& written) {
  for (const auto& row : written) {
    auto* record = rows->add_records();
    if (row.contains("key")) record->set_key(row["key"].get<std::string>());
    if (row.contains("value")) record->set_value(row["value"].get<std::string>());
    for (const auto& pair : row.value("headers", json::array())) {
      auto* header = record->add_headers();
      header->set_name(pair[0].get<std::string>());
      header->set_value(pair[1].get<std::string>());
    }
  }
}

json Fields(const Record& record) {
  json found = {{"offset", record.offset()}, {"headers", json::array()}};
  for (const auto& header : record.headers()) found["headers"].push_back({header.name(), header.value()});
  if (record.has_key()) found["key"] = record.key();
  if (record.has_value()) found["value"] = record.value();
  return found;
}

json Produced(const ProduceResponse& answer) {
  return {{"partition", answer.partition()},   {"base_offset", answer.base_offset()},
          {"end_offset", answer.end_offset()}, {"term", answer.term()},
          {"index", answer.index()},           {"replicas", answer.replicas()},
          {"fsynced", answer.fsynced()},       {"duplicate", answer.duplicate()}};
}

json Told(const Topic& topic) {
  json found = {{"name", topic.name()},
                {"topic_id", topic.topic_id()},
                {"partition_count", topic.partitions_size()},
                {"replication_factor", topic.replication_factor()}};
  if (topic.config().has_retention_ms()) found["retention_ms"] = topic.config().retention_ms();
  return found;
}

// Who leads, as far as the message says so.
std::vector<std::string> Leaders(const WatchClusterResponse& change) {
  std::vector<std::string> found;
  const auto add = [&](const std::string& topic, const Partition& each) {
    if (each.leader_address().empty()) return;
    found.push_back(topic + " " + std::to_string(each.partition()) + " " + each.leader_address());
  };
  for (const auto& topic : change.topics())
    for (const auto& partition : topic.partitions()) add(topic.name(), partition);
  for (const auto& each : change.partitions()) add(each.topic(), each.partition());
  return found;
}

// A call that failed; its context is there for the trailers.
struct Failed {
  Described error;
  std::string reason;
  std::string outcome;
};

class Program {
 public:
  explicit Program(const json& orders)
      : addresses_(orders["addresses"].get<std::vector<std::string>>()), topic_(orders["topic"]) {}

  json Do(const json& step) {
    const std::string op = step["op"];
    const std::map<std::string, json (Program::*)(const json&)> operations = {
        {"init_producer", &Program::InitProducer}, {"produce", &Program::Produce},
        {"produce_stream", &Program::ProduceStream}, {"produce_many", &Program::ProduceMany},
        {"read", &Program::ReadOne},               {"follow", &Program::ReadOne},
        {"create_topic", &Program::CreateTopic},   {"get_topic", &Program::GetTopic},
        {"list_topics", &Program::ListTopics},     {"update_topic", &Program::UpdateTopic},
        {"delete_topic", &Program::DeleteTopic},   {"consume", &Program::ConsumeSome},
        {"get_group", &Program::GetGroup},         {"watch", &Program::WatchSome}};
    const auto found = operations.find(op);
    if (found == operations.end()) throw std::runtime_error("unknown operation " + op);
    return (this->*found->second)(step);
  }

 private:
  using Context = grpc::ClientContext;

  // A context with a deadline, and what comes of the call that uses it.
  template <typename Attempt>
  void Call(Attempt attempt) {
    Context context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    const grpc::Status status = attempt(&context);
    if (!status.ok()) throw Failed{Describe(status), Trailer(context, "rakit-reason"), Trailer(context, "rakit-outcome")};
  }

  static void Check(const grpc::Status& status) {
    if (!status.ok()) throw Failed{Describe(status), "", ""};
  }

  std::shared_ptr<grpc::Channel> Channel(const json& step) {
    const auto address = step.value("at", addresses_.front());
    auto& channel = channels_[address];
    if (!channel) channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
    return channel;
  }

  std::unique_ptr<LogService::Stub> Log(const json& step) { return LogService::NewStub(Channel(step)); }
  std::unique_ptr<TopicService::Stub> Topics(const json& step) { return TopicService::NewStub(Channel(step)); }

  void Stamp(ProducerStamp* stamp, int64_t sequence) {
    stamp->set_producer_id(me_.producer_id());
    stamp->set_epoch(me_.epoch());
    stamp->set_sequence(sequence);
  }

  json InitProducer(const json& step) {
    InitProducerRequest request;
    request.set_producer_name(step.value("name", ""));
    Call([&](Context* context) { return Log(step)->InitProducer(context, request, &me_); });
    return {{"producer_id", me_.producer_id()}, {"epoch", me_.epoch()}};
  }

  json Produce(const json& step) {
    ProduceRequest request;
    request.set_topic(topic_);
    Fill(request.mutable_rows(), step["rows"]);
    request.set_leader_only(step.value("leader_only", false));
    if (step.contains("key")) {
      request.set_routing_key(step["key"].get<std::string>());
    } else {
      request.set_partition(step["partition"]);
    }
    if (step.contains("sequence")) Stamp(request.mutable_producer(), step["sequence"]);
    if (step.contains("expected_offset")) request.set_expected_offset(step["expected_offset"]);
    ProduceResponse answer;
    Call([&](Context* context) { return Log(step)->Produce(context, request, &answer); });
    return Produced(answer);
  }

  json ProduceStream(const json& step) {
    json answers = json::array();
    Call([&](Context* context) {
      auto stub = Log(step);
      auto stream = stub->ProduceStream(context);
      int64_t tag = 0;
      for (const auto& batch : step["batches"]) {
        ProduceStreamRequest request;
        auto* produce = request.mutable_produce();
        produce->set_topic(topic_);
        produce->set_partition(step["partition"]);
        Fill(produce->mutable_rows(), batch);
        produce->mutable_producer()->set_previous_sequence(tag);
        Stamp(produce->mutable_producer(), ++tag);
        request.set_tag(tag);
        if (!stream->Write(request)) break;  // the reason comes with Finish
      }
      stream->WritesDone();
      for (ProduceStreamResponse answer; stream->Read(&answer);) {
        auto found = Produced(answer.result());
        found["tag"] = answer.tag();
        answers.push_back(found);
      }
      return stream->Finish();
    });
    return {{"answers", answers}};
  }

  json ProduceMany(const json& step) {
    Producer producer(addresses_, topic_);
    json acked = json::array();
    for (int number = 0; number < step["count"].get<int>(); ++number) {
      const auto value = "record-" + std::to_string(number);
      ProduceResponse answer;
      Check(producer.Send(step["partition"], {value}, &answer));
      acked.push_back({{"value", value}, {"partition", answer.partition()}, {"offset", answer.base_offset()}});
      Progress(value);
    }
    return {{"count", acked.size()}, {"acked", acked}};
  }

  json ReadOne(const json& step) {
    const bool follow = step["op"] == "follow";
    Position start;
    start.set_topic(topic_);
    start.set_partition(step["partition"]);
    if (step.contains("offset")) start.set_offset(step["offset"]);
    if (step.contains("time_ms")) start.set_time_ms(step["time_ms"]);
    json rows = json::array(), values = json::array();
    Check(Read(addresses_, &start, follow, [&](const Record& record) {
      rows.push_back(Fields(record));
      values.push_back(rows.back().value("value", json()));
      if (follow) Progress(record.value());
      return !step.contains("count") || rows.size() < step["count"].get<size_t>();
    }));
    return {{"rows", rows}, {"values", values}, {"next_offset", start.offset()}};
  }

  json CreateTopic(const json& step) {
    CreateTopicRequest request;
    request.set_name(step["name"].get<std::string>());
    request.set_partition_count(step["partitions"]);
    request.set_replication_factor(step.value("replication_factor", 0));
    request.set_request_id(step["request_id"].get<std::string>());
    CreateTopicResponse answer;
    Call([&](Context* context) { return Topics(step)->CreateTopic(context, request, &answer); });
    return Told(answer.topic());
  }

  json GetTopic(const json& step) {
    GetTopicRequest request;
    request.set_name(step["name"].get<std::string>());
    GetTopicResponse answer;
    Call([&](Context* context) { return Topics(step)->GetTopic(context, request, &answer); });
    return Told(answer.topic());
  }

  json ListTopics(const json& step) {
    json names = json::array();
    int pages = 0, largest = 0;
    ListTopicsRequest request;
    request.set_page_size(step["page_size"]);
    do {
      ListTopicsResponse answer;
      Call([&](Context* context) { return Topics(step)->ListTopics(context, request, &answer); });
      for (const auto& topic : answer.topics()) names.push_back(topic.name());
      ++pages;
      largest = std::max(largest, answer.topics_size());
      request.set_page_token(answer.next_page_token());
    } while (!request.page_token().empty());
    return {{"names", names}, {"page_count", pages}, {"largest_page", largest}};
  }

  json UpdateTopic(const json& step) {
    UpdateTopicRequest request;
    request.set_name(step["name"].get<std::string>());
    request.mutable_config()->set_retention_ms(step["retention_ms"]);
    request.set_request_id(step["request_id"].get<std::string>());
    UpdateTopicResponse answer;
    Call([&](Context* context) { return Topics(step)->UpdateTopic(context, request, &answer); });
    return Told(answer.topic());
  }

  json DeleteTopic(const json& step) {
    DeleteTopicRequest request;
    request.set_name(step["name"].get<std::string>());
    request.set_request_id(step["request_id"].get<std::string>());
    DeleteTopicResponse answer;
    Call([&](Context* context) { return Topics(step)->DeleteTopic(context, request, &answer); });
    return {{"deleted", true}};
  }

  // So many records or, without a count, all until the group has no lag.
  json ConsumeSome(const json& step) {
    json values = json::array();
    JoinGroup join;
    join.set_group(step["group"].get<std::string>());
    join.add_topics(topic_);
    Check(Consume(addresses_, &join, [&](const Record* record) {
      if (record != nullptr) {
        values.push_back(record->value());
        Progress(record->value());
      }
      if (step.contains("count")) return values.size() < step["count"].get<size_t>();
      if (record != nullptr) return true;
      const json partitions = GetGroup(step)["partitions"];
      return std::any_of(partitions.begin(), partitions.end(), [](const json& each) { return each["lag"] > 0; });
    }));
    return {{"values", values}};
  }

  json GetGroup(const json& step) {
    GetGroupRequest request;
    request.set_group(step["group"].get<std::string>());
    GetGroupResponse answer;
    Call([&](Context* context) {
      return GroupService::NewStub(Channel(step))->GetGroup(context, request, &answer);
    });
    json partitions = json::array();
    for (const auto& each : answer.group().partitions()) {
      json found = {{"topic", each.topic()},
                    {"partition", each.partition()},
                    {"latest", each.latest()},
                    {"lag", each.lag_records()}};
      if (each.has_committed_offset()) found["committed"] = each.committed_offset();
      partitions.push_back(found);
    }
    return {{"name", answer.group().name()}, {"partitions", partitions}};
  }

  // Until the first of the topics is deleted.
  json WatchSome(const json& step) {
    const auto names = step["names"].get<std::vector<std::string>>();
    json messages = json::array();
    Check(Watch(addresses_, names, [&](const WatchClusterResponse& change) {
      const auto leaders = Leaders(change);
      const auto& deleted = change.deleted_topics();
      messages.push_back({{"version", change.version()},
                          {"is_snapshot", change.is_snapshot()},
                          {"has_more", change.has_more()},
                          {"leaders", leaders},
                          {"deleted", std::vector<std::string>(deleted.begin(), deleted.end())}});
      std::for_each(leaders.begin(), leaders.end(), Progress);
      return std::find(deleted.begin(), deleted.end(), names.front()) == deleted.end();
    }));
    return {{"messages", messages}};
  }

  std::vector<std::string> addresses_;
  std::string topic_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_;
  InitProducerResponse me_;
};

json Told(const Failed& failed) {
  const auto& error = failed.error;
  return {{"code", error.code},
          {"message", error.message},
          {"reason", error.reason},
          {"domain", error.domain},
          {"outcome", error.outcome},
          {"metadata", error.metadata},
          {"trailers", {{"reason", failed.reason}, {"outcome", failed.outcome}}}};
}

}  // namespace

int main() {
  const json orders = json::parse(std::cin);
  Program program(orders);
  json results = json::array();
  for (const auto& step : orders["steps"]) {
    try {
      results.push_back(program.Do(step));
    } catch (const Failed& failed) {
      results.push_back({{"error", Told(failed)}});
    }
  }
  std::cout << json{{"results", results}}.dump() << std::endl;
}
