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
import rakit.api.v1.Record; // java.lang has one, too

/** Reads one partition, and goes on where it was when its node goes away. */
final class Reader {
  private Reader() {}

  /**
   * Gives the records from a position to {@code handle}, to the log's end or, when it follows, until it returns false.
   * Afterwards the position is where to go on.
   */
  static void read(List<String> addresses, Position.Builder start, boolean follow, Predicate<Record> handle) {
    for (int number = 0; ; number++) {
      String address = addresses.get(number % addresses.size());
      ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
      try (Context.CancellableContext context = Context.current().withCancellation()) {
        context.run(() -> readFrom(channel, start, follow, handle));
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

  private static void readFrom(
      ManagedChannel channel, Position.Builder start, boolean follow, Predicate<Record> handle) {
    ReadRequest request = ReadRequest.newBuilder().addPositions(start).setFollow(follow).build();
    Iterator<ReadResponse> answers = LogServiceGrpc.newBlockingStub(channel).read(request);
    while (answers.hasNext()) {
      ReadResponse answer = answers.next(); // a heartbeat has neither records nor an end
      for (Record record : answer.getData().getRecordsList()) {
        start.setOffset(record.getOffset() + 1); // in place of a time or an edge, too
        if (!handle.test(record)) {
          return;
        }
      }
      if (answer.hasEnd()) {
        start.setOffset(answer.getEnd().getNextOffset());
      }
    }
  }
}
