// A watch of the cluster: which node leads each partition, and what changes.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "rakit/api/v1/cluster_service.grpc.pb.h"

// Gives what there is of some topics to `handle`, and then what changes, until `handle` returns false. When its node goes
// away the next one begins anew, with a snapshot and version 1.
inline grpc::Status Watch(const std::vector<std::string>& addresses, const std::vector<std::string>& topics,
                          const std::function<bool(const rakit::api::v1::WatchClusterResponse&)>& handle) {
  rakit::api::v1::WatchClusterRequest request;
  request.mutable_topics()->Add(topics.begin(), topics.end());
  for (size_t number = 0;; ++number) {
    const auto& address = addresses[number % addresses.size()];
    auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
    auto stub = rakit::api::v1::ClusterService::NewStub(channel);
    grpc::ClientContext context;
    auto stream = stub->WatchCluster(&context, request);
    bool enough = false;
    for (rakit::api::v1::WatchClusterResponse change; !enough && stream->Read(&change);) enough = !handle(change);
    if (enough) context.TryCancel();
    const auto status = stream->Finish();
    if (enough) return grpc::Status::OK;
    if (status.error_code() != grpc::UNAVAILABLE) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // then the next node
  }
}
