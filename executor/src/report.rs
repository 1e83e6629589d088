//! The messages in which a worker reports on its leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use kiln_protos::worker::{
    self, Completed, Output, Progress, Stage, WorkerMessage, completed, worker_message,
};
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use crate::failure::Failure;
use crate::response::nanos;
use crate::sandbox::OutputStream;

/// Bytes of each stream sent while the action runs: one more than a reader is shown, so that
/// it sees the note that there is more. The whole stream is a blob in the end.
pub const MAX_LIVE_BYTES: u64 = kiln_cas::logs::MAX_LOG_BYTES as u64 + 1;

pub fn message(kind: worker_message::Kind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}

pub fn completed(
    lease_id: String,
    result: Result<kiln_protos::reapi::ExecuteResponse, Failure>,
) -> WorkerMessage {
    let outcome = match result {
        Ok(response) => completed::Outcome::ExecuteResponse(response.encode_to_vec().into()),
        Err(failure) => completed::Outcome::Failure(failure.to_wire()),
    };
    message(worker_message::Kind::Completed(Completed { lease_id, outcome: Some(outcome) }))
}

/// The message for a lease that was not taken. `holds`: the leases that the worker has instead.
pub fn refused(lease_id: String, why: &Failure, holds: Vec<String>) -> WorkerMessage {
    let failure = worker::WorkerFailure { held_lease_ids: holds, ..why.to_wire() };
    let outcome = Some(completed::Outcome::Failure(failure));
    message(worker_message::Kind::Completed(Completed { lease_id, outcome }))
}

/// Where messages of the open session go; `None`: no session is open.
pub type Outlet = watch::Receiver<Option<mpsc::Sender<WorkerMessage>>>;

/// Sends messages about one lease to the open session. What does not arrive there is sent again in
/// the next one.
#[derive(Clone)]
pub struct Reporter {
    pub lease_id: String,
    /// Whether stdout and stderr are wanted while the action runs.
    live: bool,
    outlet: Outlet,
    /// The number of the last stage that the action reached, and when it began.
    stage: Arc<(AtomicI64, AtomicI64)>,
}

impl Reporter {
    pub fn new(lease_id: String, live: bool, outlet: Outlet) -> Self {
        Self { lease_id, live, outlet, stage: Arc::default() }
    }

    pub async fn progress(&self, stage: Stage) {
        self.stage.0.store(i64::from(stage as i32), Ordering::Relaxed);
        self.stage.1.store(nanos(SystemTime::now()), Ordering::Relaxed);
        if let Some(message) = self.stage() {
            self.send(message).await;
        }
    }

    /// The message that says how far the action is.
    pub fn stage(&self) -> Option<WorkerMessage> {
        let stage = self.stage.0.load(Ordering::Relaxed) as i32;
        let at = self.stage.1.load(Ordering::Relaxed);
        let progress = Progress { lease_id: self.lease_id.clone(), stage, at };
        (stage != Stage::Unspecified as i32)
            .then(|| message(worker_message::Kind::Progress(progress)))
    }

    /// Returns when a session begins or ends; never where output is not wanted live.
    pub async fn session_changed(&mut self) {
        if !self.live || self.outlet.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Sends live output. `offset`: of the first byte of `data` in its stream. `false`: no session is open.
    pub async fn output(&self, stream: OutputStream, offset: u64, data: Bytes) -> bool {
        if !self.live || offset >= MAX_LIVE_BYTES {
            return true;
        }
        let stream = match stream {
            OutputStream::Stdout => worker::OutputStream::Stdout,
            OutputStream::Stderr => worker::OutputStream::Stderr,
        };
        let output =
            Output { lease_id: self.lease_id.clone(), stream: stream.into(), offset, data };
        self.send(message(worker_message::Kind::Output(output))).await
    }

    async fn send(&self, message: WorkerMessage) -> bool {
        let session = self.outlet.borrow().clone();
        match session {
            Some(session) => session.send(message).await.is_ok(),
            None => false,
        }
    }
}
