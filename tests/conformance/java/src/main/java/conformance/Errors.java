package conformance;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.HashMap;
import java.util.Map;

/** What an error of the cluster says: the reason, the outcome and the facts that stand in error.proto. */
final class Errors {
  private Errors() {}

  static Map<String, Object> describe(StatusRuntimeException error) throws InvalidProtocolBufferException {
    Map<String, Object> found = new HashMap<>();
    found.put("code", error.getStatus().getCode().value());
    found.put("message", String.valueOf(error.getStatus().getDescription()));
    // For programs that cannot decode the details, two trailers say the same.
    found.put("trailers", Map.of("reason", said(error, "rakit-reason"), "outcome", said(error, "rakit-outcome")));
    Status status = StatusProto.fromThrowable(error);
    for (Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        found.put("reason", info.getReason());
        found.put("domain", info.getDomain());
        found.put("metadata", info.getMetadataMap());
        // Empty: this was no mutation. Without ErrorInfo: the outcome is UNKNOWN.
        found.put("outcome", info.getMetadataOrDefault("outcome", ""));
      }
    }
    return found;
  }

  private static String said(StatusRuntimeException error, String name) {
    Metadata trailers = error.getTrailers() == null ? new Metadata() : error.getTrailers();
    String value = trailers.get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER));
    return value == null ? "" : value;
  }
}
