package conformance;

import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.List;
import java.util.function.Predicate;
import rakit.api.v1.*;

/** A watch of the cluster: which node leads each partition, and what changes. */
final class Watcher {
  private Watcher() {}

  /**
   * Gives what there is of some topics to {@code handle}, and then what changes, until it returns false. When its node
   * goes away the next one begins anew, with a snapshot and version 1.
   */
  static void watch(List<String> addresses, List<String> topics, Predicate<WatchClusterResponse> handle) {
    WatchClusterRequest request = WatchClusterRequest.newBuilder().addAllTopics(topics).build();
    for (int number = 0; ; number++) {
      String address = addresses.get(number % addresses.size());
      ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
      try (Context.CancellableContext context = Context.current().withCancellation()) {
        context.run(() -> watchAt(channel, request, handle));
        return;
      } catch (StatusRuntimeException error) {
        if (error.getStatus().getCode() != Status.Code.UNAVAILABLE) {
          throw error;
        }
        Pause.milliseconds(100); // then the next node
      } finally {
        channel.shutdownNow();
      }
    }
  }

  private static void watchAt(
      ManagedChannel channel, WatchClusterRequest request, Predicate<WatchClusterResponse> handle) {
    Iterator<WatchClusterResponse> changes = ClusterServiceGrpc.newBlockingStub(channel).watchCluster(request);
    while (changes.hasNext() && handle.test(changes.next())) {
      continue;
    }
  }
}
