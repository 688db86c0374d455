package conformance;

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import rakit.api.v1.*;

/** Stores each batch once, whichever nodes die meanwhile. Sends one batch at a time, to any node. */
final class Producer implements AutoCloseable {
  private final List<ManagedChannel> channels = new ArrayList<>();
  private final String topic;
  private final InitProducerResponse me;
  private long sequence;

  Producer(List<String> addresses, String topic) {
    for (String address : addresses) {
      channels.add(Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build());
    }
    this.topic = topic;
    me = call(stub -> stub.initProducer(InitProducerRequest.getDefaultInstance()));
  }

  /** Returns once a majority has the batch on disk. */
  ProduceResponse send(int partition, List<byte[]> values) {
    ProduceRequest.Builder request = ProduceRequest.newBuilder().setTopic(topic).setPartition(partition);
    for (byte[] value : values) {
      request.getRowsBuilder().addRecordsBuilder().setValue(ByteString.copyFrom(value));
    }
    sequence += 1;
    request.getProducerBuilder().setProducerId(me.getProducerId()).setEpoch(me.getEpoch()).setSequence(sequence);
    return call(stub -> stub.produce(request.build()));
  }

  /** Tries again, with the same sequence, where another attempt may help. All else is for the caller. */
  private <T> T call(Function<LogServiceGrpc.LogServiceBlockingStub, T> attempt) {
    for (Instant end = Instant.now().plus(Duration.ofSeconds(30)); ; ) {
      try {
        return attempt.apply(LogServiceGrpc.newBlockingStub(channels.get(0)).withDeadlineAfter(5, TimeUnit.SECONDS));
      } catch (StatusRuntimeException error) {
        Status.Code code = error.getStatus().getCode();
        boolean again = code == Status.Code.UNAVAILABLE || code == Status.Code.DEADLINE_EXCEEDED;
        if (!again || Instant.now().isAfter(end)) {
          throw error;
        }
        Collections.rotate(channels, -1); // the next node
        Pause.milliseconds(100);
      }
    }
  }

  @Override
  public void close() {
    channels.forEach(ManagedChannel::shutdownNow);
  }
}
