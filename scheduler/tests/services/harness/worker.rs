//! A worker that does what it is told.

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_protos::reapi;
use kiln_protos::worker::{
    Completed, Heartbeat, Hello, Lease, Output, OutputStream, Paused, Property, SchedulerMessage,
    WorkerFailure, WorkerMessage, completed, scheduler_message, worker_failure, worker_message,
};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;

pub fn hello(id: &str, slots: u32, properties: &[(&str, &str)]) -> WorkerMessage {
    let property = |(name, value): &(&str, &str)| Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let hello = Hello {
        worker_id: id.to_owned(),
        host_name: "host".to_owned(),
        slots,
        properties: properties.iter().map(property).collect(),
        version: "1".to_owned(),
        not_enforced: Vec::new(),
        lease_ids: Vec::new(),
        paused: String::new(),
    };
    WorkerMessage { kind: Some(worker_message::Kind::Hello(hello)) }
}

pub struct Worker {
    pub outbound: mpsc::Sender<WorkerMessage>,
    pub inbound: Streaming<SchedulerMessage>,
}

impl Worker {
    /// Returns the next message of the scheduler, or `None` once the session is over.
    pub async fn next(&mut self) -> Option<scheduler_message::Kind> {
        self.inbound.next().await?.ok()?.kind
    }

    pub async fn lease(&mut self) -> Lease {
        match self.next().await {
            Some(scheduler_message::Kind::Lease(lease)) => lease,
            other => panic!("not a lease: {other:?}"),
        }
    }

    pub async fn say(&self, kind: worker_message::Kind) {
        self.outbound.send(WorkerMessage { kind: Some(kind) }).await.unwrap();
    }

    /// Sends `text` as output of the lease. `offset` is the place of its first byte in the stream.
    pub async fn print(
        &self,
        lease: &Lease,
        stream: OutputStream,
        offset: u64,
        text: &'static str,
    ) {
        let lease_id = lease.lease_id.clone();
        let data = Bytes::from_static(text.as_bytes());
        let output = Output { lease_id, stream: stream as i32, offset, data };
        self.say(worker_message::Kind::Output(output)).await;
    }

    pub async fn answer(&self, lease: &Lease, response: reapi::ExecuteResponse) {
        let outcome = completed::Outcome::ExecuteResponse(response.encode_to_vec().into());
        self.complete(lease, outcome).await;
    }

    pub async fn succeed(&self, lease: &Lease) {
        self.answer(lease, exited(0)).await;
    }

    pub async fn fail(&self, lease: &Lease, failure: WorkerFailure) {
        self.complete(lease, completed::Outcome::Failure(failure)).await;
    }

    pub async fn succeed_next(&mut self) {
        self.answer_next(exited(0)).await;
    }

    pub async fn answer_next(&mut self, response: reapi::ExecuteResponse) {
        let lease = self.lease().await;
        self.answer(&lease, response).await;
    }

    pub async fn fail_next(&mut self, failure: WorkerFailure) {
        let lease = self.lease().await;
        self.fail(&lease, failure).await;
    }

    pub async fn heartbeat(&self, leases: &[&Lease]) {
        let lease_ids = leases.iter().map(|lease| lease.lease_id.clone()).collect();
        self.say(worker_message::Kind::Heartbeat(Heartbeat { lease_ids })).await;
    }

    /// Takes no lease until it is said with no reason.
    pub async fn pause(&self, reason: &str) {
        let reason = reason.to_owned();
        self.say(worker_message::Kind::Paused(Paused { reason })).await;
    }

    /// Has no room for the lease, but `holds` these.
    pub async fn refuse(&self, lease: &Lease, holds: &[&str]) {
        let held_lease_ids = holds.iter().map(|id| (*id).to_owned()).collect();
        let failure = failure(worker_failure::Kind::Refused, "no room");
        self.fail(lease, WorkerFailure { held_lease_ids, ..failure }).await;
    }

    pub async fn cancelled(&mut self) -> String {
        match self.next().await {
            Some(scheduler_message::Kind::Cancel(cancel)) => cancel.lease_id,
            other => panic!("not a cancellation: {other:?}"),
        }
    }

    async fn complete(&self, lease: &Lease, outcome: completed::Outcome) {
        let lease_id = lease.lease_id.clone();
        let completed = Completed { lease_id, outcome: Some(outcome) };
        self.say(worker_message::Kind::Completed(completed)).await;
    }
}

pub fn exited(exit_code: i32) -> reapi::ExecuteResponse {
    let result = reapi::ActionResult { exit_code, ..Default::default() };
    reapi::ExecuteResponse { result: Some(result), ..Default::default() }
}

pub fn failure(kind: worker_failure::Kind, message: &str) -> WorkerFailure {
    WorkerFailure { kind: kind as i32, message: message.to_owned(), ..WorkerFailure::default() }
}
