package main

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	api "rakit.test/conformance/stubs/apiv1"
)

// Read gives handle the records from a position, to the log's end or, when it follows, until handle returns false. It
// returns where to go on. When its node goes away it goes on with another one.
func Read(addresses []string, start *api.Position, follow bool, handle func(*api.Record) bool) (int64, error) {
	var next int64
	for number := 0; ; number++ {
		address := addresses[number%len(addresses)]
		channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return next, err
		}
		err = readFrom(channel, start, follow, func(record *api.Record) bool {
			next = record.Offset + 1
			start.Start = &api.Position_Offset{Offset: next} // in place of a time or an edge, too
			return handle(record)
		}, &next)
		_ = channel.Close()
		if status.Code(err) != codes.Unavailable {
			return next, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func readFrom(channel *grpc.ClientConn, start *api.Position, follow bool, handle func(*api.Record) bool, next *int64) error {
	request := &api.ReadRequest{Positions: []*api.Position{start}, Follow: follow}
	stream, err := api.NewLogServiceClient(channel).Read(context.Background(), request)
	for err == nil {
		var answer *api.ReadResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		for _, record := range answer.GetData().GetRecords() {
			if !handle(record) {
				return nil
			}
		}
		if end := answer.GetEnd(); end != nil {
			*next = end.NextOffset
		} // A heartbeat says that the stream is alive.
	}
	if err == io.EOF {
		return nil
	}
	return err
}
