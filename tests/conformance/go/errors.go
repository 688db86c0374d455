package main

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Describe says what an error of the cluster says: the reason, the outcome and the facts that stand in error.proto.
// The trailers, which grpc.Trailer(&trailers) collects, say the first two to programs that cannot decode the details.
func Describe(err error, trailers metadata.MD) map[string]any {
	said, _ := status.FromError(err)
	found := map[string]any{"code": int(said.Code()), "message": said.Message()}
	found["trailers"] = map[string]string{
		"reason":  first(trailers["rakit-reason"]),
		"outcome": first(trailers["rakit-outcome"]),
	}
	for _, detail := range said.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			found["reason"] = info.Reason
			found["domain"] = info.Domain
			found["metadata"] = info.Metadata
			// Empty: this was no mutation. Without ErrorInfo: the outcome is UNKNOWN.
			found["outcome"] = info.Metadata["outcome"]
		}
	}
	return found
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
