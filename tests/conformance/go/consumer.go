package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	api "rakit.test/conformance/stubs/apiv1"
)

// Consume is a member of a group. It gives each record to handle, and nil now and then, until handle returns false;
// it commits what is done, and goes on with another node when its own goes away.
func Consume(addresses []string, join *api.JoinGroup, handle func(*api.Record) bool) error {
	join.Start = api.Edge_EDGE_EARLIEST
	for number := 0; ; number++ {
		address := addresses[number%len(addresses)]
		channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		stream, err := api.NewGroupServiceClient(channel).Subscribe(context.Background())
		if err == nil {
			err = session(stream, join, handle)
		}
		fenced := stream != nil && len(stream.Trailer()["rakit-reason"]) > 0 && stream.Trailer()["rakit-reason"][0] == "MEMBER_FENCED"
		_ = channel.Close()
		if fenced {
			join.ResumeToken = nil // the session is over: begin another one
		} else if status.Code(err) != codes.Unavailable {
			return err
		} // else any node resumes the session
		time.Sleep(100 * time.Millisecond)
	}
}

// session is one stream. It ends when handle had enough, the last commit was answered, and the member has left.
func session(stream api.GroupService_SubscribeClient, join *api.JoinGroup, handle func(*api.Record) bool) error {
	// A send that fails says EOF; the reason comes with the next Recv.
	send := func(request *api.SubscribeRequest) { _ = stream.Send(request) }
	send(&api.SubscribeRequest{Request: &api.SubscribeRequest_Join{Join: join}})
	underWay, enough, left := 0, false, false
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch event := event.Event.(type) {
		case *api.SubscribeResponse_Joined:
			join.ResumeToken = event.Joined.ResumeToken
		case *api.SubscribeResponse_Records:
			data := event.Records.Data
			commit := &api.OffsetCommit{Topic: data.Topic, Partition: data.Partition}
			for i := 0; i < len(data.Records) && !enough; i++ {
				enough = !handle(data.Records[i])
				commit.Offset = data.Records[i].Offset + 1
			}
			if commit.Offset > 0 {
				commits := &api.CommitRequest{Tag: 1, Offsets: []*api.OffsetCommit{commit}}
				send(&api.SubscribeRequest{Request: &api.SubscribeRequest_Commit{Commit: commits}})
				underWay++
			}
		case *api.SubscribeResponse_Revoking: // all that was handed out is done and committed
			done := &api.RevokeDone{Partitions: event.Revoking.Partitions}
			send(&api.SubscribeRequest{Request: &api.SubscribeRequest_Revoked{Revoked: done}})
		case *api.SubscribeResponse_Committed: // or refused, when another member has the partition by now
			underWay--
		case *api.SubscribeResponse_Heartbeat:
			enough = enough || !handle(nil)
		}
		if enough && underWay == 0 && !left {
			left = true
			send(&api.SubscribeRequest{Request: &api.SubscribeRequest_Leave{Leave: &api.LeaveRequest{}}})
		}
	}
}
