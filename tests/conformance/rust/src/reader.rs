//! A reader that goes on where it was when its node goes away.
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::api::log_service_client::LogServiceClient;
use crate::api::position::Start;
use crate::api::read_response::Event;
use crate::api::{Position, ReadRequest, Record};

/// Gives the records from a position to `handle`, to the log's end or, when it follows, until `handle` returns false.
/// Afterwards the position is where to go on.
pub async fn read(
    addresses: &[String],
    start: &mut Position,
    follow: bool,
    mut handle: impl FnMut(Record) -> bool,
) -> Result<(), Status> {
    for address in addresses.iter().cycle() {
        match read_from(address, start, follow, &mut handle).await {
            Err(status) if gone(&status) => tokio::time::sleep(Duration::from_millis(100)).await, // then the next node
            ended => return ended,
        }
    }
    Ok(())
}

async fn read_from(
    address: &str,
    start: &mut Position,
    follow: bool,
    handle: &mut impl FnMut(Record) -> bool,
) -> Result<(), Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let request = ReadRequest { positions: vec![start.clone()], follow, ..Default::default() };
    let mut stream = LogServiceClient::new(channel).read(request).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        match answer.event {
            Some(Event::Data(data)) => {
                for record in data.records {
                    start.start = Some(Start::Offset(record.offset + 1)); // in place of a time or an edge, too
                    if !handle(record) {
                        return Ok(());
                    }
                }
            }
            Some(Event::End(end)) => start.start = Some(Start::Offset(end.next_offset)),
            _ => {} // a heartbeat says that the stream is alive
        }
    }
    Ok(())
}

/// A connection that breaks in the middle of an answer is UNKNOWN to tonic.
pub fn gone(status: &Status) -> bool {
    status.code() == Code::Unavailable || (status.code() == Code::Unknown && status.details().is_empty())
}
