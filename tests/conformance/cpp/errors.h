// What an error of the cluster says: the reason, the outcome and the facts that stand in error.proto.
#pragma once
#include <map>
#include <string>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

struct Described {
  int code = 0;
  std::string message;
  // Empty: no node of ours said it, so that the outcome of what was sent is UNKNOWN.
  std::string reason;
  std::string domain;
  // Empty: this was no mutation.
  std::string outcome;
  std::map<std::string, std::string> metadata;
};

inline Described Describe(const grpc::Status& status) {
  Described found;
  found.code = status.error_code();
  found.message = status.error_message();
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) {
      found.reason = info.reason();
      found.domain = info.domain();
      found.metadata = {info.metadata().begin(), info.metadata().end()};
      found.outcome = found.metadata["outcome"];
    }
  }
  return found;
}

// For programs that cannot decode the details, the trailers rakit-reason and rakit-outcome say the same.
inline std::string Trailer(const grpc::ClientContext& context, const std::string& name) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto found = trailers.find(name);
  return found == trailers.end() ? "" : std::string(found->second.begin(), found->second.end());
}
