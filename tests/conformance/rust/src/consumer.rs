//! A member of a consumer group: takes its share, commits what it has done, survives its node.
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::api::group_service_client::GroupServiceClient;
use crate::api::subscribe_request::Request;
use crate::api::subscribe_response::Event;
use crate::api::{CommitRequest, Edge, JoinGroup, LeaveRequest, OffsetCommit, Record, RevokeDone, SubscribeRequest};

/// Gives each record to `handle`, and nothing now and then, until it returns false.
pub async fn consume(
    addresses: &[String],
    join: &mut JoinGroup,
    mut handle: impl AsyncFnMut(Option<Record>) -> bool,
) -> Result<(), Status> {
    join.start = Edge::Earliest.into();
    for address in addresses.iter().cycle() {
        let Err(status) = session(address, join, &mut handle).await else { return Ok(()) };
        if status.metadata().get("rakit-reason").is_some_and(|reason| reason == "MEMBER_FENCED") {
            join.resume_token.clear(); // the session is over: begin another one
        } else if status.code() != Code::Unavailable && !(status.code() == Code::Unknown && status.details().is_empty()) {
            return Err(status);
        } // else any node resumes the session
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// One stream. Ends when `handle` had enough, the last commit was answered, and the member has left.
async fn session(
    address: &str,
    join: &mut JoinGroup,
    handle: &mut impl AsyncFnMut(Option<Record>) -> bool,
) -> Result<(), Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let (requests, sent) = mpsc::unbounded_channel();
    // What cannot be sent any more is explained by the answers' end.
    let send = |request| drop(requests.send(SubscribeRequest { request: Some(request) }));
    send(Request::Join(join.clone()));
    let call = GroupServiceClient::new(channel).subscribe(UnboundedReceiverStream::new(sent)).await?;
    let mut events = call.into_inner();
    let (mut under_way, mut enough, mut left) = (0, false, false);
    while let Some(answer) = events.message().await? {
        match answer.event {
            Some(Event::Joined(joined)) => join.resume_token = joined.resume_token,
            Some(Event::Records(delivery)) if !enough => {
                let data = delivery.data.unwrap_or_default();
                let mut done = OffsetCommit { topic: data.topic, partition: data.partition, ..Default::default() };
                for record in data.records {
                    done.offset = record.offset + 1;
                    enough = !handle(Some(record)).await;
                    if enough {
                        break;
                    }
                }
                if done.offset > 0 {
                    send(Request::Commit(CommitRequest { tag: 1, offsets: vec![done] }));
                    under_way += 1;
                }
            }
            // All that was handed out is done and committed.
            Some(Event::Revoking(revoking)) => send(Request::Revoked(RevokeDone { partitions: revoking.partitions })),
            // Or refused, when another member has the partition by now.
            Some(Event::Committed(_)) => under_way -= 1,
            Some(Event::Heartbeat(_)) => enough = enough || !handle(None).await,
            _ => {}
        }
        if enough && under_way == 0 && !left {
            left = true;
            send(Request::Leave(LeaveRequest {}));
        }
    }
    Ok(())
}
