package conformance;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Predicate;
import rakit.api.v1.*;
import rakit.api.v1.Record; // java.lang has one, too

/** A member of a consumer group: takes its share, commits what it has done, survives its node. */
final class Consumer implements StreamObserver<SubscribeResponse> {
  private static final Metadata.Key<String> REASON = Metadata.Key.of("rakit-reason", Metadata.ASCII_STRING_MARSHALLER);
  private final CompletableFuture<Throwable> ended = new CompletableFuture<>();
  private final JoinGroup.Builder join;
  private final Predicate<Record> handle;
  private final StreamObserver<SubscribeRequest> requests;
  private int underWay;
  private boolean enough;
  private boolean left;

  /** Gives each record to {@code handle}, and null now and then, until it returns false. */
  static void consume(List<String> addresses, JoinGroup.Builder join, Predicate<Record> handle) {
    join.setStart(Edge.EDGE_EARLIEST);
    for (int number = 0; ; number++) {
      String address = addresses.get(number % addresses.size());
      ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
      Throwable error = new Consumer(channel, join, handle).ended.join();
      channel.shutdownNow();
      if (error == null) {
        return;
      }
      Metadata trailers = Status.trailersFromThrowable(error);
      if (trailers != null && "MEMBER_FENCED".equals(trailers.get(REASON))) {
        join.clearResumeToken(); // the session is over: begin another one
      } else if (Status.fromThrowable(error).getCode() != Status.Code.UNAVAILABLE) {
        throw new StatusRuntimeException(Status.fromThrowable(error), trailers);
      } // else any node resumes the session
      Pause.milliseconds(100);
    }
  }

  private Consumer(ManagedChannel channel, JoinGroup.Builder join, Predicate<Record> handle) {
    this.join = join;
    this.handle = handle;
    requests = GroupServiceGrpc.newStub(channel).subscribe(this);
    requests.onNext(SubscribeRequest.newBuilder().setJoin(join).build());
  }

  @Override
  public void onNext(SubscribeResponse event) {
    SubscribeRequest.Builder answer = SubscribeRequest.newBuilder();
    switch (event.getEventCase()) {
      case JOINED -> join.setResumeToken(event.getJoined().getResumeToken());
      case RECORDS -> {
        PartitionData data = event.getRecords().getData();
        for (int i = 0; i < data.getRecordsCount() && !enough; i++) {
          enough = !handle.test(data.getRecords(i));
          OffsetCommit.Builder done = OffsetCommit.newBuilder().setOffset(data.getRecords(i).getOffset() + 1);
          done.setTopic(data.getTopic()).setPartition(data.getPartition());
          answer.setCommit(CommitRequest.newBuilder().setTag(1).addOffsets(done));
        }
      }
      // All that was handed out is done and committed.
      case REVOKING -> answer.getRevokedBuilder().addAllPartitions(event.getRevoking().getPartitionsList());
      // Or refused, when another member has the partition by now.
      case COMMITTED -> underWay -= 1;
      case HEARTBEAT -> enough = enough || !handle.test(null);
      default -> { }
    }
    underWay += answer.hasCommit() ? 1 : 0;
    if (answer.getRequestCase() != SubscribeRequest.RequestCase.REQUEST_NOT_SET) {
      requests.onNext(answer.build());
    }
    if (enough && underWay == 0 && !left) {
      left = true;
      requests.onNext(SubscribeRequest.newBuilder().setLeave(LeaveRequest.getDefaultInstance()).build());
    }
  }

  @Override
  public void onError(Throwable error) {
    ended.complete(error);
  }

  @Override
  public void onCompleted() {
    ended.complete(null);
  }
}
