// A producer that stores each batch once, whichever nodes die meanwhile. It sends one batch at a time, to any node.
#pragma once
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "rakit/api/v1/log_service.grpc.pb.h"

class Producer {
 public:
  Producer(const std::vector<std::string>& addresses, std::string topic) : topic_(std::move(topic)) {
    for (const auto& address : addresses) {
      auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
      stubs_.push_back(rakit::api::v1::LogService::NewStub(channel));
    }
  }

  // Returns once a majority has the batch on disk, or with what another attempt does not mend.
  grpc::Status Send(int partition, const std::vector<std::string>& values, rakit::api::v1::ProduceResponse* answer) {
    using Stub = rakit::api::v1::LogService::Stub;
    if (me_.producer_id() == 0) {
      auto status = Call(&Stub::InitProducer, rakit::api::v1::InitProducerRequest(), &me_);
      if (!status.ok()) return status;
    }
    rakit::api::v1::ProduceRequest request;
    request.set_topic(topic_);
    request.set_partition(partition);
    for (const auto& value : values) request.mutable_rows()->add_records()->set_value(value);
    request.mutable_producer()->set_producer_id(me_.producer_id());
    request.mutable_producer()->set_epoch(me_.epoch());
    request.mutable_producer()->set_sequence(++sequence_);
    return Call(&Stub::Produce, request, answer);
  }

 private:
  // Tries again, with the same sequence, where another attempt may help.
  template <typename Method, typename Request, typename Answer>
  grpc::Status Call(Method method, const Request& request, Answer* answer) {
    const auto end = std::chrono::system_clock::now() + std::chrono::seconds(30);
    for (;;) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
      auto status = (stubs_.front().get()->*method)(&context, request, answer);
      const auto code = status.error_code();
      const bool again = code == grpc::UNAVAILABLE || code == grpc::DEADLINE_EXCEEDED;
      if (!again || std::chrono::system_clock::now() > end) return status;
      std::rotate(stubs_.begin(), stubs_.begin() + 1, stubs_.end());  // the next node
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  std::vector<std::unique_ptr<rakit::api::v1::LogService::Stub>> stubs_;
  std::string topic_;
  rakit::api::v1::InitProducerResponse me_;
  int64_t sequence_ = 0;
};
