//! What a running lease tells the scheduler.

use std::time::SystemTime;

use bytes::Bytes;
use kiln_protos::worker::{
    self, Completed, Output, Progress, Stage, WorkerMessage, completed, worker_message,
};
use prost::Message as _;
use tokio::sync::mpsc;

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

/// Sends for one lease. When the session is gone, nobody wants to know: errors are ignored.
#[derive(Clone)]
pub struct Reporter {
    pub lease_id: String,
    /// Whether stdout and stderr are wanted while the action runs.
    pub live: bool,
    pub outgoing: mpsc::Sender<WorkerMessage>,
}

impl Reporter {
    pub async fn progress(&self, stage: Stage) {
        let progress = Progress {
            lease_id: self.lease_id.clone(),
            stage: stage.into(),
            at: nanos(SystemTime::now()),
        };
        let _ = self.outgoing.send(message(worker_message::Kind::Progress(progress))).await;
    }

    /// `offset`: of the first byte of `data` in its stream.
    pub async fn output(&self, stream: OutputStream, offset: u64, data: Bytes) {
        if !self.live || offset >= MAX_LIVE_BYTES {
            return;
        }
        let stream = match stream {
            OutputStream::Stdout => worker::OutputStream::Stdout,
            OutputStream::Stderr => worker::OutputStream::Stderr,
        };
        let output =
            Output { lease_id: self.lease_id.clone(), stream: stream.into(), offset, data };
        let _ = self.outgoing.send(message(worker_message::Kind::Output(output))).await;
    }
}
