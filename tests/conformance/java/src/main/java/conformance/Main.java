package conformance;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import rakit.api.v1.*;
import rakit.api.v1.Record; // java.lang has one, too

/** The Java program: does the steps that it reads on stdin, and says what came of each. */
public final class Main {
  private static final long TIMEOUT_S = 20;
  private final List<String> addresses = new ArrayList<>();
  private final Map<String, ManagedChannel> channels = new HashMap<>();
  private final String topic;
  private InitProducerResponse me;

  private Main(JsonObject orders) {
    orders.getAsJsonArray("addresses").forEach(each -> addresses.add(each.getAsString()));
    topic = orders.get("topic").getAsString();
  }

  public static void main(String[] arguments) throws Exception {
    InputStreamReader in = new InputStreamReader(System.in, StandardCharsets.UTF_8);
    JsonObject orders = JsonParser.parseReader(in).getAsJsonObject();
    Main program = new Main(orders);
    List<Map<String, ?>> results = new ArrayList<>();
    for (JsonElement step : orders.getAsJsonArray("steps")) {
      try {
        results.add(program.step(step.getAsJsonObject()));
      } catch (StatusRuntimeException error) {
        results.add(Map.of("error", Errors.describe(error)));
      }
    }
    System.out.println(new Gson().toJson(Map.of("results", results)));
    program.channels.values().forEach(ManagedChannel::shutdownNow);
  }

  private Map<String, ?> step(JsonObject step) throws Exception {
    return switch (text(step, "op")) {
      case "init_producer" -> initProducer(step);
      case "produce" -> produced(log(step).produce(request(step)));
      case "produce_stream" -> produceStream(step);
      case "produce_many" -> produceMany(step);
      case "read" -> read(step, false);
      case "follow" -> read(step, true);
      case "create_topic" -> told(topics().createTopic(CreateTopicRequest.newBuilder()
          .setName(text(step, "name"))
          .setPartitionCount(step.get("partitions").getAsInt())
          .setReplicationFactor(step.has("replication_factor") ? step.get("replication_factor").getAsInt() : 0)
          .setRequestId(text(step, "request_id"))
          .build()).getTopic());
      case "get_topic" -> told(topics().getTopic(
          GetTopicRequest.newBuilder().setName(text(step, "name")).build()).getTopic());
      case "list_topics" -> listTopics(step);
      case "update_topic" -> told(topics().updateTopic(UpdateTopicRequest.newBuilder()
          .setName(text(step, "name"))
          .setConfig(TopicConfig.newBuilder().setRetentionMs(step.get("retention_ms").getAsLong()))
          .setRequestId(text(step, "request_id"))
          .build()).getTopic());
      case "delete_topic" -> {
        topics().deleteTopic(DeleteTopicRequest.newBuilder()
            .setName(text(step, "name")).setRequestId(text(step, "request_id")).build());
        yield Map.of("deleted", true);
      }
      case "consume" -> consume(step);
      case "watch" -> watch(step);
      case "get_group" -> getGroup(text(step, "group"));
      default -> throw new IllegalArgumentException("unknown operation " + step);
    };
  }

  private Map<String, ?> initProducer(JsonObject step) {
    String name = step.has("name") ? text(step, "name") : "";
    me = log(step).initProducer(InitProducerRequest.newBuilder().setProducerName(name).build());
    return Map.of("producer_id", me.getProducerId(), "epoch", me.getEpoch());
  }

  private ProduceRequest request(JsonObject step) {
    ProduceRequest.Builder request = ProduceRequest.newBuilder().setTopic(topic).setRows(rows(step.get("rows")));
    if (step.has("key")) {
      request.setRoutingKey(ByteString.copyFromUtf8(text(step, "key")));
    } else {
      request.setPartition(step.get("partition").getAsInt());
    }
    if (step.has("sequence")) {
      request.setProducer(stamp(step.get("sequence").getAsLong()));
    }
    if (step.has("expected_offset")) {
      request.setExpectedOffset(step.get("expected_offset").getAsLong());
    }
    return request.setLeaderOnly(step.has("leader_only")).build();
  }

  private Map<String, ?> produceStream(JsonObject step) throws Exception {
    List<Map<String, Object>> answers = new ArrayList<>();
    CompletableFuture<Void> ended = new CompletableFuture<>();
    StreamObserver<ProduceStreamRequest> requests = LogServiceGrpc.newStub(channel(step)).produceStream(
        new StreamObserver<ProduceStreamResponse>() {
          @Override
          public void onNext(ProduceStreamResponse answer) {
            Map<String, Object> found = produced(answer.getResult());
            found.put("tag", answer.getTag());
            answers.add(found);
          }

          @Override
          public void onError(Throwable error) {
            ended.completeExceptionally(error);
          }

          @Override
          public void onCompleted() {
            ended.complete(null);
          }
        });
    long tag = 0;
    for (JsonElement batch : step.getAsJsonArray("batches")) {
      ProducerStamp.Builder stamp = stamp(tag + 1).toBuilder().setPreviousSequence(tag);
      ProduceRequest.Builder produce = ProduceRequest.newBuilder().setTopic(topic).setProducer(stamp);
      produce.setPartition(step.get("partition").getAsInt()).setRows(rows(batch));
      tag += 1;
      requests.onNext(ProduceStreamRequest.newBuilder().setTag(tag).setProduce(produce).build());
    }
    requests.onCompleted();
    ended.get(TIMEOUT_S, TimeUnit.SECONDS);
    return Map.of("answers", answers);
  }

  private Map<String, ?> produceMany(JsonObject step) {
    List<Map<String, ?>> acked = new ArrayList<>();
    try (Producer producer = new Producer(addresses, topic)) {
      for (int number = 0; number < step.get("count").getAsInt(); number++) {
        String value = "record-" + number;
        List<byte[]> values = List.of(value.getBytes(StandardCharsets.UTF_8));
        ProduceResponse answer = producer.send(step.get("partition").getAsInt(), values);
        acked.add(Map.of("value", value, "partition", answer.getPartition(), "offset", answer.getBaseOffset()));
        progress(value);
      }
    }
    return Map.of("count", acked.size(), "acked", acked);
  }

  private Map<String, ?> read(JsonObject step, boolean follow) {
    Position.Builder start = Position.newBuilder().setTopic(topic).setPartition(step.get("partition").getAsInt());
    if (step.has("offset")) {
      start.setOffset(step.get("offset").getAsLong());
    } else if (step.has("time_ms")) {
      start.setTimeMs(step.get("time_ms").getAsLong());
    }
    List<Map<String, ?>> seen = new ArrayList<>();
    Reader.read(addresses, start, follow, record -> {
      seen.add(fields(record));
      if (follow) {
        progress(record.getValue().toStringUtf8());
      }
      return !step.has("count") || seen.size() < step.get("count").getAsInt();
    });
    List<Object> values = new ArrayList<>();
    seen.forEach(each -> values.add(each.get("value")));
    return Map.of("rows", seen, "values", values, "next_offset", start.getOffset());
  }

  private Map<String, ?> listTopics(JsonObject step) {
    List<String> names = new ArrayList<>();
    int pages = 0;
    int largest = 0;
    ListTopicsRequest.Builder request = ListTopicsRequest.newBuilder().setPageSize(step.get("page_size").getAsInt());
    do {
      ListTopicsResponse answer = topics().listTopics(request.build());
      answer.getTopicsList().forEach(each -> names.add(each.getName()));
      pages += 1;
      largest = Math.max(largest, answer.getTopicsCount());
      request.setPageToken(answer.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
    return Map.of("names", names, "page_count", pages, "largest_page", largest);
  }

  /** So many records or, without a count, all until the group has no lag. */
  private Map<String, ?> consume(JsonObject step) {
    List<String> values = new ArrayList<>();
    JoinGroup.Builder join = JoinGroup.newBuilder().setGroup(text(step, "group")).addTopics(topic);
    Consumer.consume(addresses, join, record -> {
      if (record != null) {
        values.add(record.getValue().toStringUtf8());
        progress(record.getValue().toStringUtf8());
      }
      if (step.has("count")) {
        return values.size() < step.get("count").getAsInt();
      }
      return record != null
          || group(text(step, "group")).getPartitionsList().stream().anyMatch(each -> each.getLagRecords() > 0);
    });
    return Map.of("values", values);
  }

  /** Until the first of the topics is deleted. */
  private Map<String, ?> watch(JsonObject step) {
    List<String> names = new ArrayList<>();
    step.getAsJsonArray("names").forEach(each -> names.add(each.getAsString()));
    List<Map<String, ?>> messages = new ArrayList<>();
    Watcher.watch(addresses, names, change -> {
      List<String> leaders = leaders(change);
      messages.add(Map.of(
          "version", change.getVersion(),
          "is_snapshot", change.getIsSnapshot(),
          "has_more", change.getHasMore(),
          "leaders", leaders,
          "deleted", List.copyOf(change.getDeletedTopicsList())));
      leaders.forEach(Main::progress);
      return !change.getDeletedTopicsList().contains(names.get(0));
    });
    return Map.of("messages", messages);
  }

  /** Who leads, as far as the message says so. */
  private static List<String> leaders(WatchClusterResponse change) {
    List<PartitionChange> places = new ArrayList<>(change.getPartitionsList());
    for (Topic topic : change.getTopicsList()) {
      topic.getPartitionsList().forEach(each -> places.add(
          PartitionChange.newBuilder().setTopic(topic.getName()).setPartition(each).build()));
    }
    return places.stream()
        .filter(each -> !each.getPartition().getLeaderAddress().isEmpty())
        .map(each -> each.getTopic() + " " + each.getPartition().getPartition()
            + " " + each.getPartition().getLeaderAddress())
        .toList();
  }

  private Group group(String name) {
    GroupServiceGrpc.GroupServiceBlockingStub stub = GroupServiceGrpc.newBlockingStub(channel(new JsonObject()));
    GetGroupRequest request = GetGroupRequest.newBuilder().setGroup(name).build();
    return stub.withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS).getGroup(request).getGroup();
  }

  private Map<String, ?> getGroup(String name) {
    List<Map<String, ?>> partitions = new ArrayList<>();
    Group group = group(name);
    for (GroupPartition each : group.getPartitionsList()) {
      Map<String, Object> found = new HashMap<>(Map.of("topic", each.getTopic(), "partition", each.getPartition()));
      found.putAll(Map.of("latest", each.getLatest(), "lag", each.getLagRecords()));
      if (each.hasCommittedOffset()) {
        found.put("committed", each.getCommittedOffset());
      }
      partitions.add(found);
    }
    return Map.of("name", group.getName(), "partitions", partitions);
  }

  private ManagedChannel channel(JsonObject step) {
    String address = step.has("at") ? text(step, "at") : addresses.get(0);
    return channels.computeIfAbsent(
        address, each -> Grpc.newChannelBuilder(each, InsecureChannelCredentials.create()).build());
  }

  private LogServiceGrpc.LogServiceBlockingStub log(JsonObject step) {
    return LogServiceGrpc.newBlockingStub(channel(step)).withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private TopicServiceGrpc.TopicServiceBlockingStub topics() {
    ManagedChannel channel = channel(new JsonObject());
    return TopicServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private ProducerStamp stamp(long sequence) {
    return ProducerStamp.newBuilder()
        .setProducerId(me.getProducerId()).setEpoch(me.getEpoch()).setSequence(sequence).build();
  }

  private static String text(JsonObject step, String name) {
    return step.get(name).getAsString();
  }

  private static void progress(String value) {
    System.err.println("progress " + value);
  }

  private static Rows rows(JsonElement written) {
    Rows.Builder rows = Rows.newBuilder();
    for (JsonElement element : written.getAsJsonArray()) {
      JsonObject row = element.getAsJsonObject();
      Record.Builder record = rows.addRecordsBuilder();
      if (row.has("key")) {
        record.setKey(ByteString.copyFromUtf8(text(row, "key")));
      }
      if (row.has("value")) {
        record.setValue(ByteString.copyFromUtf8(text(row, "value")));
      }
      if (row.has("headers")) {
        row.getAsJsonArray("headers").forEach(header -> record.addHeadersBuilder()
            .setName(header.getAsJsonArray().get(0).getAsString())
            .setValue(ByteString.copyFromUtf8(header.getAsJsonArray().get(1).getAsString())));
      }
    }
    return rows.build();
  }

  private static Map<String, Object> produced(ProduceResponse answer) {
    Map<String, Object> found = new HashMap<>();
    found.put("partition", answer.getPartition());
    found.put("base_offset", answer.getBaseOffset());
    found.put("end_offset", answer.getEndOffset());
    found.put("term", answer.getTerm());
    found.put("index", answer.getIndex());
    found.put("replicas", answer.getReplicas());
    found.put("fsynced", answer.getFsynced());
    found.put("duplicate", answer.getDuplicate());
    return found;
  }

  private static Map<String, ?> fields(Record record) {
    List<List<String>> headers = new ArrayList<>();
    record.getHeadersList().forEach(each -> headers.add(List.of(each.getName(), each.getValue().toStringUtf8())));
    Map<String, Object> found = new HashMap<>(Map.of("offset", record.getOffset(), "headers", headers));
    if (record.hasKey()) {
      found.put("key", record.getKey().toStringUtf8());
    }
    if (record.hasValue()) {
      found.put("value", record.getValue().toStringUtf8());
    }
    return found;
  }

  private static Map<String, ?> told(Topic topic) {
    Map<String, Object> found = new HashMap<>(Map.of("name", topic.getName(), "topic_id", topic.getTopicId()));
    found.put("partition_count", topic.getPartitionsCount());
    found.put("replication_factor", topic.getReplicationFactor());
    if (topic.getConfig().hasRetentionMs()) {
      found.put("retention_ms", topic.getConfig().getRetentionMs());
    }
    return found;
  }
}
