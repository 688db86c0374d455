//! A watch of the cluster: which node leads each partition, and what changes.
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::Status;

use crate::api::cluster_service_client::ClusterServiceClient;
use crate::api::{WatchClusterRequest, WatchClusterResponse};
use crate::reader::gone;

/// Gives what there is of some topics to `handle`, and then what changes, until `handle` returns false. When its node
/// goes away the next one begins anew, with a snapshot and version 1.
pub async fn watch(
    addresses: &[String],
    topics: &[String],
    mut handle: impl FnMut(WatchClusterResponse) -> bool,
) -> Result<(), Status> {
    for address in addresses.iter().cycle() {
        match watch_at(address, topics, &mut handle).await {
            Err(status) if gone(&status) => tokio::time::sleep(Duration::from_millis(100)).await, // then the next node
            ended => return ended,
        }
    }
    Ok(())
}

async fn watch_at(
    address: &str,
    topics: &[String],
    handle: &mut impl FnMut(WatchClusterResponse) -> bool,
) -> Result<(), Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let request = WatchClusterRequest { topics: topics.to_vec() };
    let mut stream = ClusterServiceClient::new(channel).watch_cluster(request).await?.into_inner();
    while let Some(change) = stream.message().await? {
        if !handle(change) {
            return Ok(());
        }
    }
    Ok(())
}
