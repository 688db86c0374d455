// The Go program: does the steps that it reads on stdin, and says what came of each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "rakit.test/conformance/stubs/apiv1"
)

type fields = map[string]any

// Row is a record as a step writes it. What is absent is null.
type Row struct {
	Key     *string     `json:"key"`
	Value   *string     `json:"value"`
	Headers [][2]string `json:"headers"`
}

// Step is one thing to do. Each operation looks at the fields that concern it.
type Step struct {
	Op                string   `json:"op"`
	At                string   `json:"at"`
	Name              string   `json:"name"`
	Group             string   `json:"group"`
	Key               *string  `json:"key"`
	Partition         int32    `json:"partition"`
	Partitions        int32    `json:"partitions"`
	ReplicationFactor int32    `json:"replication_factor"`
	Rows              []Row    `json:"rows"`
	Batches           [][]Row  `json:"batches"`
	Sequence          *int64   `json:"sequence"`
	ExpectedOffset    *int64   `json:"expected_offset"`
	LeaderOnly        bool     `json:"leader_only"`
	Offset            *int64   `json:"offset"`
	TimeMs            *int64   `json:"time_ms"`
	Count             *int     `json:"count"`
	PageSize          int32    `json:"page_size"`
	RetentionMs       int64    `json:"retention_ms"`
	RequestID         string   `json:"request_id"`
	Names             []string `json:"names"`
}

// Program keeps what the steps share.
type Program struct {
	Addresses []string `json:"addresses"`
	Topic     string   `json:"topic"`
	Steps     []Step   `json:"steps"`

	producer *api.InitProducerResponse
	trailers metadata.MD
}

func main() {
	program := &Program{}
	if err := json.NewDecoder(os.Stdin).Decode(program); err != nil {
		panic(err)
	}
	results := []fields{}
	for _, step := range program.Steps {
		program.trailers = metadata.MD{}
		result, err := program.do(step)
		if _, ours := status.FromError(err); err != nil && !ours {
			panic(err)
		} else if err != nil {
			result = fields{"error": Describe(err, program.trailers)}
		}
		results = append(results, result)
	}
	if err := json.NewEncoder(os.Stdout).Encode(fields{"results": results}); err != nil {
		panic(err)
	}
}

func (p *Program) do(step Step) (fields, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch step.Op {
	case "init_producer":
		answer, err := p.log(step).InitProducer(ctx, &api.InitProducerRequest{ProducerName: step.Name}, p.collect())
		p.producer = answer
		return fields{"producer_id": answer.GetProducerId(), "epoch": answer.GetEpoch()}, err
	case "produce":
		return p.produce(ctx, step)
	case "produce_stream":
		return p.produceStream(ctx, step)
	case "produce_many":
		return p.produceMany(step)
	case "read", "follow":
		return p.read(step)
	case "consume":
		return p.consume(step)
	case "get_group":
		return p.getGroup(step.Group)
	case "watch":
		return p.watch(step)
	default:
		return p.doTopic(ctx, step)
	}
}

func (p *Program) doTopic(ctx context.Context, step Step) (fields, error) {
	stub := api.NewTopicServiceClient(p.channel(step))
	switch step.Op {
	case "create_topic":
		answer, err := stub.CreateTopic(ctx, &api.CreateTopicRequest{
			Name:              step.Name,
			PartitionCount:    step.Partitions,
			ReplicationFactor: step.ReplicationFactor,
			RequestId:         step.RequestID,
		}, p.collect())
		return told(answer.GetTopic()), err
	case "get_topic":
		answer, err := stub.GetTopic(ctx, &api.GetTopicRequest{Name: step.Name}, p.collect())
		return told(answer.GetTopic()), err
	case "list_topics":
		return listTopics(ctx, stub, step.PageSize)
	case "update_topic":
		config := &api.TopicConfig{RetentionMs: &step.RetentionMs}
		answer, err := stub.UpdateTopic(ctx, &api.UpdateTopicRequest{Name: step.Name, Config: config, RequestId: step.RequestID}, p.collect())
		return told(answer.GetTopic()), err
	case "delete_topic":
		_, err := stub.DeleteTopic(ctx, &api.DeleteTopicRequest{Name: step.Name, RequestId: step.RequestID}, p.collect())
		return fields{"deleted": true}, err
	default:
		return nil, fmt.Errorf("unknown operation %q", step.Op)
	}
}

func listTopics(ctx context.Context, stub api.TopicServiceClient, pageSize int32) (fields, error) {
	names, pages, largest := []string{}, 0, 0
	for token := ""; pages == 0 || token != ""; pages++ {
		answer, err := stub.ListTopics(ctx, &api.ListTopicsRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, topic := range answer.Topics {
			names = append(names, topic.Name)
		}
		largest = max(largest, len(answer.Topics))
		token = answer.NextPageToken
	}
	return fields{"names": names, "page_count": pages, "largest_page": largest}, nil
}

func (p *Program) produce(ctx context.Context, step Step) (fields, error) {
	request := &api.ProduceRequest{
		Topic:          p.Topic,
		Target:         &api.ProduceRequest_Partition{Partition: step.Partition},
		Batch:          &api.ProduceRequest_Rows{Rows: rows(step.Rows)},
		ExpectedOffset: step.ExpectedOffset,
		LeaderOnly:     step.LeaderOnly,
	}
	if step.Key != nil {
		request.Target = &api.ProduceRequest_RoutingKey{RoutingKey: []byte(*step.Key)}
	}
	if step.Sequence != nil {
		request.Producer = p.stamp(*step.Sequence)
	}
	answer, err := p.log(step).Produce(ctx, request, p.collect())
	return produced(answer), err
}

func (p *Program) produceStream(ctx context.Context, step Step) (fields, error) {
	stream, err := p.log(step).ProduceStream(ctx)
	if err != nil {
		return nil, err
	}
	for number, batch := range step.Batches {
		stamp, previous := p.stamp(int64(number+1)), int64(number)
		stamp.PreviousSequence = &previous
		request := &api.ProduceRequest{
			Topic:    p.Topic,
			Target:   &api.ProduceRequest_Partition{Partition: step.Partition},
			Batch:    &api.ProduceRequest_Rows{Rows: rows(batch)},
			Producer: stamp,
		}
		message := &api.ProduceStreamRequest{Tag: stamp.Sequence, Request: &api.ProduceStreamRequest_Produce{Produce: request}}
		if err := stream.Send(message); err != nil {
			break // the reason comes with the answers
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	answers := []fields{}
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return fields{"answers": answers}, nil
		} else if err != nil {
			return nil, err
		}
		result := produced(answer.GetResult())
		result["tag"] = answer.Tag
		answers = append(answers, result)
	}
}

func (p *Program) produceMany(step Step) (fields, error) {
	producer, err := NewProducer(p.Addresses, p.Topic)
	if err != nil {
		return nil, err
	}
	acked := []fields{}
	for number := range *step.Count {
		value := fmt.Sprintf("record-%d", number)
		answer, err := producer.Send(step.Partition, []byte(value))
		if err != nil {
			return nil, err
		}
		acked = append(acked, fields{"value": value, "partition": answer.Partition, "offset": answer.BaseOffset})
		progress(value)
	}
	return fields{"count": len(acked), "acked": acked}, nil
}

func (p *Program) read(step Step) (fields, error) {
	start := &api.Position{Topic: p.Topic, Partition: step.Partition}
	if step.Offset != nil {
		start.Start = &api.Position_Offset{Offset: *step.Offset}
	} else if step.TimeMs != nil {
		start.Start = &api.Position_TimeMs{TimeMs: *step.TimeMs}
	}
	seen, values := []fields{}, []any{}
	next, err := Read(p.Addresses, start, step.Op == "follow", func(record *api.Record) bool {
		seen = append(seen, recorded(record))
		values = append(values, seen[len(seen)-1]["value"])
		if step.Op == "follow" {
			progress(string(record.Value))
		}
		return step.Count == nil || len(seen) < *step.Count
	})
	return fields{"rows": seen, "values": values, "next_offset": next}, err
}

// consume takes so many records or, without a count, all until the group has no lag.
func (p *Program) consume(step Step) (fields, error) {
	values := []string{}
	var failed error
	err := Consume(p.Addresses, &api.JoinGroup{Group: step.Group, Topics: []string{p.Topic}}, func(record *api.Record) bool {
		if record != nil {
			values = append(values, string(record.Value))
			progress(string(record.Value))
		}
		if step.Count != nil {
			return len(values) < *step.Count
		} else if record != nil {
			return true
		}
		var group fields
		if group, failed = p.getGroup(step.Group); failed != nil {
			return false
		}
		for _, each := range group["partitions"].([]fields) {
			if each["lag"].(int64) > 0 {
				return true
			}
		}
		return false
	})
	if err == nil {
		err = failed
	}
	return fields{"values": values}, err
}

func (p *Program) getGroup(name string) (fields, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stub := api.NewGroupServiceClient(p.channel(Step{}))
	answer, err := stub.GetGroup(ctx, &api.GetGroupRequest{Group: name}, p.collect())
	partitions := []fields{}
	for _, each := range answer.GetGroup().GetPartitions() {
		found := fields{"topic": each.Topic, "partition": each.Partition, "latest": each.Latest, "lag": each.LagRecords}
		if each.CommittedOffset != nil {
			found["committed"] = *each.CommittedOffset
		}
		partitions = append(partitions, found)
	}
	return fields{"name": answer.GetGroup().GetName(), "partitions": partitions}, err
}

// watch goes on until the first of the topics is deleted.
func (p *Program) watch(step Step) (fields, error) {
	messages := []fields{}
	err := Watch(p.Addresses, step.Names, func(change *api.WatchClusterResponse) bool {
		leaders := leaders(change)
		messages = append(messages, fields{
			"version": change.Version, "is_snapshot": change.IsSnapshot, "has_more": change.HasMore,
			"leaders": leaders, "deleted": append([]string{}, change.DeletedTopics...),
		})
		for _, leader := range leaders {
			progress(leader)
		}
		return !slices.Contains(change.DeletedTopics, step.Names[0])
	})
	return fields{"messages": messages}, err
}

func (p *Program) channel(step Step) *grpc.ClientConn {
	address := step.At
	if address == "" {
		address = p.Addresses[0]
	}
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	return channel
}

func (p *Program) log(step Step) api.LogServiceClient {
	return api.NewLogServiceClient(p.channel(step))
}

func (p *Program) collect() grpc.CallOption { return grpc.Trailer(&p.trailers) }

func (p *Program) stamp(sequence int64) *api.ProducerStamp {
	return &api.ProducerStamp{ProducerId: p.producer.ProducerId, Epoch: p.producer.Epoch, Sequence: sequence}
}

func progress(value string) { fmt.Fprintln(os.Stderr, "progress", value) }

func rows(written []Row) *api.Rows {
	rows := &api.Rows{}
	for _, row := range written {
		record := &api.Record{Key: raw(row.Key), Value: raw(row.Value)}
		for _, header := range row.Headers {
			record.Headers = append(record.Headers, &api.Header{Name: header[0], Value: []byte(header[1])})
		}
		rows.Records = append(rows.Records, record)
	}
	return rows
}

// raw keeps null and empty apart: an optional bytes field is absent when it is nil.
func raw(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}

func produced(answer *api.ProduceResponse) fields {
	return fields{
		"partition": answer.GetPartition(), "base_offset": answer.GetBaseOffset(), "end_offset": answer.GetEndOffset(),
		"term": answer.GetTerm(), "index": answer.GetIndex(), "replicas": answer.GetReplicas(),
		"fsynced": answer.GetFsynced(), "duplicate": answer.GetDuplicate(),
	}
}

// leaders tells who leads, as far as the message says so.
func leaders(change *api.WatchClusterResponse) []string {
	found := []string{}
	add := func(topic string, partition *api.Partition) {
		if partition.LeaderAddress != "" {
			found = append(found, fmt.Sprintf("%s %d %s", topic, partition.Partition, partition.LeaderAddress))
		}
	}
	for _, topic := range change.Topics {
		for _, partition := range topic.Partitions {
			add(topic.Name, partition)
		}
	}
	for _, each := range change.Partitions {
		add(each.Topic, each.Partition)
	}
	return found
}

func recorded(record *api.Record) fields {
	headers := [][2]string{}
	for _, header := range record.Headers {
		headers = append(headers, [2]string{header.Name, string(header.Value)})
	}
	found := fields{"offset": record.Offset, "headers": headers}
	if record.Key != nil {
		found["key"] = string(record.Key)
	}
	if record.Value != nil {
		found["value"] = string(record.Value)
	}
	return found
}

func told(topic *api.Topic) fields {
	found := fields{
		"name": topic.GetName(), "topic_id": topic.GetTopicId(), "partition_count": len(topic.GetPartitions()),
		"replication_factor": topic.GetReplicationFactor(),
	}
	if topic.GetConfig() != nil && topic.Config.RetentionMs != nil {
		found["retention_ms"] = topic.Config.GetRetentionMs()
	}
	return found
}
