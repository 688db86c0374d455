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

// Watch gives handle what there is of some topics, and then what changes, until handle returns false. When its node goes
// away the next one begins anew, with a snapshot and version 1.
func Watch(addresses []string, topics []string, handle func(*api.WatchClusterResponse) bool) error {
	for number := 0; ; number++ {
		address := addresses[number%len(addresses)]
		channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		err = watchAt(channel, topics, handle)
		_ = channel.Close()
		if status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func watchAt(channel *grpc.ClientConn, topics []string, handle func(*api.WatchClusterResponse) bool) error {
	stream, err := api.NewClusterServiceClient(channel).WatchCluster(context.Background(), &api.WatchClusterRequest{Topics: topics})
	for err == nil {
		var change *api.WatchClusterResponse
		if change, err = stream.Recv(); err == nil && !handle(change) {
			return nil
		}
	}
	return err
}
