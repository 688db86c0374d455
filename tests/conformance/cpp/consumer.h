// A member of a consumer group: takes its share, commits what it has done, survives its node.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "rakit/api/v1/group_service.grpc.pb.h"

using Handle = std::function<bool(const rakit::api::v1::Record*)>;

// One stream. Ends when `handle` had enough, the last commit was answered, and the member has left.
inline grpc::Status Session(rakit::api::v1::GroupService::Stub* stub, grpc::ClientContext* context,
                            rakit::api::v1::JoinGroup* join, const Handle& handle) {
  using namespace rakit::api::v1;
  auto stream = stub->Subscribe(context);
  SubscribeRequest first;
  *first.mutable_join() = *join;
  stream->Write(first);  // a write that fails is explained by Finish
  int under_way = 0;
  bool enough = false, left = false;
  for (SubscribeResponse event; stream->Read(&event);) {
    SubscribeRequest request;
    if (event.has_joined()) {
      join->set_resume_token(event.joined().resume_token());
    } else if (event.has_records()) {
      const auto& data = event.records().data();
      for (int i = 0; i < data.records_size() && !enough; ++i) {
        enough = !handle(&data.records(i));
        auto* commit = request.mutable_commit();
        commit->set_tag(1);
        auto* place = commit->offsets_size() ? commit->mutable_offsets(0) : commit->add_offsets();
        place->set_topic(data.topic());
        place->set_partition(data.partition());
        place->set_offset(data.records(i).offset() + 1);
      }
    } else if (event.has_revoking()) {  // all that was handed out is done and committed
      *request.mutable_revoked()->mutable_partitions() = event.revoking().partitions();
    } else if (event.has_committed()) {  // or refused, when another member has the partition by now
      --under_way;
    } else if (event.has_heartbeat()) {
      enough = enough || !handle(nullptr);
    }
    under_way += request.has_commit();
    if (request.request_case() != SubscribeRequest::REQUEST_NOT_SET) stream->Write(request);
    if (enough && under_way == 0 && !left) {
      left = true;
      request.mutable_leave();
      stream->Write(request);
    }
  }
  return stream->Finish();
}

// Gives each record to `handle`, and null now and then, until it returns false.
inline grpc::Status Consume(const std::vector<std::string>& addresses, rakit::api::v1::JoinGroup* join,
                            const Handle& handle) {
  join->set_start(rakit::api::v1::EDGE_EARLIEST);
  for (size_t number = 0;; ++number) {
    const auto& address = addresses[number % addresses.size()];
    auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
    auto stub = rakit::api::v1::GroupService::NewStub(channel);
    grpc::ClientContext context;
    const auto status = Session(stub.get(), &context, join, handle);
    if (status.ok()) return status;
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto reason = trailers.find("rakit-reason");
    if (reason != trailers.end() && reason->second == "MEMBER_FENCED") {
      join->clear_resume_token();  // the session is over: begin another one
    } else if (status.error_code() != grpc::UNAVAILABLE) {
      return status;
    }  // else any node resumes the session
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}
