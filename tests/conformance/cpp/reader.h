// A reader that goes on where it was when its node goes away.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "rakit/api/v1/log_service.grpc.pb.h"

// Gives the records from a position to `handle`, to the log's end or, when it follows, until `handle` returns false.
// Afterwards the position is where to go on.
inline grpc::Status Read(const std::vector<std::string>& addresses, rakit::api::v1::Position* start, bool follow,
                         const std::function<bool(const rakit::api::v1::Record&)>& handle) {
  for (size_t number = 0;; ++number) {
    const auto& address = addresses[number % addresses.size()];
    auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
    auto stub = rakit::api::v1::LogService::NewStub(channel);
    rakit::api::v1::ReadRequest request;
    *request.add_positions() = *start;
    request.set_follow(follow);
    grpc::ClientContext context;
    auto stream = stub->Read(&context, request);
    rakit::api::v1::ReadResponse answer;
    bool enough = false;
    while (!enough && stream->Read(&answer)) {  // a heartbeat has neither records nor an end
      for (const auto& record : answer.data().records()) {
        start->set_offset(record.offset() + 1);  // in place of a time or an edge, too
        enough = !handle(record);
        if (enough) break;
      }
      if (answer.has_end()) start->set_offset(answer.end().next_offset());
    }
    if (enough) context.TryCancel();
    const auto status = stream->Finish();
    if (enough) return grpc::Status::OK;
    if (status.error_code() != grpc::UNAVAILABLE) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // then the next node
  }
}
