//! The scheduler's side of a session, driven by hand.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;

use kiln_cas::{Digest, SharedBlobStore};
use kiln_executor::session::SessionEnd;
use kiln_executor::{Worker, WorkerConfig};
use kiln_protos::reapi::ExecuteResponse;
use kiln_protos::worker::{
    self, CancelLease, Hello, Lease, SchedulerMessage, WorkerFailure, WorkerMessage, completed,
    scheduler_message, worker_message,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::PlainRunners;

/// A worker with plain runners, and the scheduler's end of its session.
pub struct Scheduler {
    pub to_worker: mpsc::Sender<SchedulerMessage>,
    pub from_worker: mpsc::Receiver<WorkerMessage>,
    pub hello: Hello,
    pub shutdown: CancellationToken,
    pub session: JoinHandle<(Worker, SessionEnd)>,
    /// How many actions were executed: each gets a lease id of its own by it.
    executed: usize,
}

pub fn config(directory: &Path, slots: u32) -> WorkerConfig {
    WorkerConfig::new("worker-1", directory.join("worker"), slots)
}

impl Scheduler {
    pub async fn start(config: WorkerConfig, store: SharedBlobStore) -> Self {
        let directory = config.work_dir.join("plain");
        let runners = Arc::new(PlainRunners { directory });
        let worker = Worker::with_runners(config, store, runners).await.unwrap();
        Self::resume(worker).await
    }

    pub async fn resume(mut worker: Worker) -> Self {
        let (to_worker, incoming) = mpsc::channel(16);
        let (outgoing, mut from_worker) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let session = tokio::spawn(async move {
            let end = worker.session(incoming, outgoing, &stop).await;
            (worker, end)
        });
        let hello = match from_worker.recv().await.unwrap().kind.unwrap() {
            worker_message::Kind::Hello(hello) => hello,
            other => panic!("{other:?} came before Hello"),
        };
        Self { to_worker, from_worker, hello, shutdown, session, executed: 0 }
    }

    pub async fn send(&self, kind: scheduler_message::Kind) {
        self.to_worker.send(SchedulerMessage { kind: Some(kind) }).await.unwrap();
    }

    pub async fn lease(&self, id: &str, action: Digest) {
        self.send(scheduler_message::Kind::Lease(lease(id, action))).await;
    }

    pub async fn cancel(&self, id: &str) {
        let cancel = CancelLease { lease_id: id.to_owned(), reason: "a test".to_owned() };
        self.send(scheduler_message::Kind::Cancel(cancel)).await;
    }

    pub async fn next(&mut self) -> worker_message::Kind {
        self.from_worker.recv().await.expect("the session is open").kind.unwrap()
    }

    /// Skips everything up to the end of a lease.
    pub async fn completed(&mut self) -> (String, Result<ExecuteResponse, WorkerFailure>) {
        loop {
            if let worker_message::Kind::Completed(completed) = self.next().await {
                return (completed.lease_id, outcome(completed.outcome.unwrap()));
            }
        }
    }

    /// Runs one action to its end.
    pub async fn execute(&mut self, action: Digest) -> Result<ExecuteResponse, WorkerFailure> {
        self.executed += 1;
        self.lease(&format!("lease {}", self.executed), action).await;
        self.completed().await.1
    }
}

fn outcome(outcome: completed::Outcome) -> Result<ExecuteResponse, WorkerFailure> {
    match outcome {
        completed::Outcome::ExecuteResponse(data) => Ok(ExecuteResponse::decode(data).unwrap()),
        completed::Outcome::Failure(failure) => Err(failure),
    }
}

pub fn lease(id: &str, action: Digest) -> Lease {
    Lease {
        lease_id: id.to_owned(),
        operation_name: format!("operations/{id}"),
        action: Some(worker::Digest { hash: action.hex(), size_bytes: action.size as i64 }),
        digest_function: action.function.to_wire().into(),
        attempt: 1,
        default_timeout_ms: 60_000,
        queued_at: 1_000_000_000,
        tools: Some(String::new()),
        ..Default::default()
    }
}
