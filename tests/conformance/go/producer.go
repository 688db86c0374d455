package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	api "rakit.test/conformance/stubs/apiv1"
)

// Producer stores each batch once, whichever nodes die meanwhile. It sends one batch at a time, to any node.
type Producer struct {
	stubs    []api.LogServiceClient
	topic    string
	me       *api.InitProducerResponse
	sequence int64
}

// NewProducer asks the cluster for a producer id.
func NewProducer(addresses []string, topic string) (*Producer, error) {
	p := &Producer{topic: topic}
	for _, address := range addresses {
		channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		p.stubs = append(p.stubs, api.NewLogServiceClient(channel))
	}
	return p, p.call(func(ctx context.Context, stub api.LogServiceClient) (err error) {
		p.me, err = stub.InitProducer(ctx, &api.InitProducerRequest{})
		return err
	})
}

// Send returns once a majority has the batch on disk.
func (p *Producer) Send(partition int32, values ...[]byte) (answer *api.ProduceResponse, err error) {
	p.sequence++
	rows := &api.Rows{}
	for _, value := range values {
		rows.Records = append(rows.Records, &api.Record{Value: value})
	}
	request := &api.ProduceRequest{
		Topic:    p.topic,
		Target:   &api.ProduceRequest_Partition{Partition: partition},
		Batch:    &api.ProduceRequest_Rows{Rows: rows},
		Producer: &api.ProducerStamp{ProducerId: p.me.ProducerId, Epoch: p.me.Epoch, Sequence: p.sequence},
	}
	err = p.call(func(ctx context.Context, stub api.LogServiceClient) (err error) {
		answer, err = stub.Produce(ctx, request)
		return err
	})
	return answer, err
}

// call tries again, with the same sequence, where another attempt may help. All other errors are for the caller.
func (p *Producer) call(attempt func(context.Context, api.LogServiceClient) error) error {
	for end := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := attempt(ctx, p.stubs[0])
		cancel()
		code := status.Code(err)
		if (code != codes.Unavailable && code != codes.DeadlineExceeded) || time.Now().After(end) {
			return err
		}
		p.stubs = append(p.stubs[1:], p.stubs[0]) // the next node
		time.Sleep(100 * time.Millisecond)
	}
}
