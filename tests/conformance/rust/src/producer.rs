//! A producer that stores each batch once, whichever nodes die meanwhile. It sends one batch at a time, to any node.
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::api::log_service_client::LogServiceClient;
use crate::api::produce_request::{Batch, Target};
use crate::api::{InitProducerRequest, InitProducerResponse, ProduceRequest, ProduceResponse, ProducerStamp, Record, Rows};

pub struct Producer {
    stubs: Vec<LogServiceClient<Channel>>,
    topic: String,
    me: Option<InitProducerResponse>,
    sequence: i64,
}

impl Producer {
    pub fn new(addresses: &[String], topic: &str) -> Self {
        let channel = |address| Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        let stubs = addresses.iter().map(|address| LogServiceClient::new(channel(address))).collect();
        Self { stubs, topic: topic.into(), me: None, sequence: 0 }
    }

    /// Returns once a majority has the batch on disk.
    pub async fn send(&mut self, partition: i32, values: Vec<Vec<u8>>) -> Result<ProduceResponse, Status> {
        if self.me.is_none() {
            let name = InitProducerRequest::default();
            self.me = Some(self.call(&name, async |mut stub, request| stub.init_producer(request).await).await?);
        }
        let me = self.me.as_ref().expect("just asked for");
        self.sequence += 1;
        let records = values.into_iter().map(|value| Record { value: Some(value), ..Default::default() }).collect();
        let request = ProduceRequest {
            topic: self.topic.clone(),
            target: Some(Target::Partition(partition)),
            batch: Some(Batch::Rows(Rows { records })),
            producer: Some(ProducerStamp {
                producer_id: me.producer_id,
                epoch: me.epoch,
                sequence: self.sequence,
                ..Default::default()
            }),
            ..Default::default()
        };
        self.call(&request, async |mut stub, request| stub.produce(request).await).await
    }

    /// Tries again, with the same sequence, where another attempt may help. All else is for the caller.
    async fn call<M: Clone, T>(
        &mut self,
        message: &M,
        attempt: impl AsyncFn(LogServiceClient<Channel>, Request<M>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            // What the deadline of tonic's own ends is CANCELLED.
            let mut request = Request::new(message.clone());
            request.set_timeout(Duration::from_secs(5));
            match attempt(self.stubs[0].clone(), request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => {
                    let again = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
                    if !again.contains(&status.code()) || Instant::now() > end {
                        return Err(status);
                    }
                }
            }
            self.stubs.rotate_left(1); // the next node
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
