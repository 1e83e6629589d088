//! A worker's session: the same code for workers in this process and over gRPC.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kiln_net::panics::caught;
use kiln_protos::reapi::ExecuteResponse;
use kiln_protos::worker::{
    Completed, Hello, OutputStream, SchedulerMessage, Stage, WorkerFailure, WorkerMessage,
    completed, worker_failure, worker_message::Kind,
};
use prost::Message;
use tokio::sync::mpsc;

use crate::api::{Queue, Report, Seat};
use crate::job::Outcome;
use crate::queue::{LeaseId, Phase};

/// Messages to a worker that may wait to be read; beyond, the worker is lost. More than two
/// for each of [`MAX_SLOTS`].
pub const OUTBOUND_CAPACITY: usize = 16 * 1024;
/// Messages from a worker in this process that may wait to be read.
pub const INBOUND_CAPACITY: usize = 1024;
/// Actions that one worker may run at the same time.
pub const MAX_SLOTS: u32 = 4096;
/// Platform properties that one worker may offer.
pub const MAX_PROPERTIES: usize = 1024;
/// Leases that a worker may name at once: what it runs, and what it has not been heard about.
const MAX_LEASES: usize = 2 * MAX_SLOTS as usize;
/// Characters of a worker's reason for taking nothing; the rest is cut off.
const MAX_REASON: usize = 1024;
/// The longest worker id that is taken, in bytes.
pub const MAX_WORKER_ID: usize = 256;
/// How long a session may be open without a Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker whose connection broke comes back within this, and takes what it runs with it:
/// balancers that start again cut many connections at once. Until then it gets no more leases.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(3);

/// Reads the first message. The error says what is wrong with it.
pub async fn handshake(
    inbound: &mut (impl Stream<Item = WorkerMessage> + Unpin),
) -> Result<Hello, String> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.next()).await;
    let first = first.map_err(|_| format!("no Hello came within {HELLO_TIMEOUT:?}"))?;
    let Some(Kind::Hello(hello)) = first.and_then(|message| message.kind) else {
        return Err("the first message of a session must be Hello".to_owned());
    };
    if hello.worker_id.is_empty() || hello.worker_id.len() > MAX_WORKER_ID {
        return Err(format!("Hello.worker_id must have 1 to {MAX_WORKER_ID} bytes"));
    }
    if hello.worker_id.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("Hello.worker_id must have no spaces and no control characters".to_owned());
    }
    if hello.slots == 0 || hello.slots > MAX_SLOTS {
        return Err(format!("Hello.slots is {}, not within 1 to {MAX_SLOTS}", hello.slots));
    }
    if hello.properties.len() > MAX_PROPERTIES {
        let count = hello.properties.len();
        return Err(format!("Hello.properties has {count} entries, more than {MAX_PROPERTIES}"));
    }
    if hello.lease_ids.len() > MAX_LEASES {
        let count = hello.lease_ids.len();
        return Err(format!("Hello.lease_ids has {count} entries, more than {MAX_LEASES}"));
    }
    Ok(hello)
}

/// The queue's name for a worker. A worker that shows a credential is known together with it:
/// another credential's worker of the same id is another one, and takes over neither its seat nor
/// its leases. Ids have no spaces, so that no id looks like one with a credential.
pub fn known_as(worker_id: &str, credential: Option<&str>) -> String {
    match credential {
        Some(credential) => format!("{worker_id} ({credential})"),
        None => worker_id.to_owned(),
    }
}

/// `None`: the worker takes tasks.
pub(crate) fn pause_reason(text: &str) -> Option<Arc<str>> {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let reason: String = text.chars().map(printable).take(MAX_REASON).collect();
    Some(reason.trim().into()).filter(|reason: &Arc<str>| !reason.is_empty())
}

/// Serves a worker until it leaves or its seat is taken away.
pub async fn serve(
    queue: Arc<dyn Queue>,
    hello: Hello,
    mut inbound: impl Stream<Item = WorkerMessage> + Unpin,
    outbound: mpsc::Sender<SchedulerMessage>,
) {
    let name = hello.worker_id.clone();
    tracing::info!(worker = %name, slots = hello.slots, host = %hello.host_name, "a worker joined");
    let mut seat = queue.join(hello, outbound).await;
    if let Err(error) = caught(listen(queue.as_ref(), &mut seat, &mut inbound)).await {
        // Whoever is behind it comes back with what it runs.
        tracing::error!(%error, worker = %name, "a worker's session ends with a fault");
    }
    queue.leave(seat.worker).await;
    tracing::info!(worker = %name, "a worker's session ended");
}

/// Takes in what a worker says.
async fn listen(
    queue: &dyn Queue,
    seat: &mut Seat,
    inbound: &mut (impl Stream<Item = WorkerMessage> + Unpin),
) {
    let mut draining = false;
    loop {
        let message = tokio::select! {
            biased;
            message = inbound.next() => message,
            _ = &mut seat.taken_away => break,
        };
        let Some(message) = message else {
            if !draining {
                queue.report(seat.worker, Report::Draining).await;
                let _ = tokio::time::timeout(COMES_BACK_WITHIN, &mut seat.taken_away).await;
            }
            break;
        };
        draining |= matches!(message.kind, Some(Kind::Draining(_)));
        if let Some(report) = message.kind.and_then(|kind| report(queue, kind)) {
            queue.report(seat.worker, report).await;
        }
    }
}

/// The report that a worker's message means; `None`: the message says nothing here.
fn report(queue: &dyn Queue, kind: Kind) -> Option<Report> {
    Some(match kind {
        Kind::Hello(_) => return None,
        Kind::Draining(_) => Report::Draining,
        Kind::Heartbeat(heartbeat) => Report::Heartbeat(bounded(heartbeat.lease_ids)),
        Kind::Paused(paused) => Report::Paused(pause_reason(&paused.reason)),
        Kind::Progress(progress) => Report::Progress {
            lease: queue.lease_id(&progress.lease_id),
            phase: match progress.stage() {
                Stage::Unspecified => return None,
                Stage::FetchingInputs => Phase::FetchingInputs,
                Stage::Running => Phase::Running,
                Stage::UploadingOutputs => Phase::UploadingOutputs,
            },
        },
        Kind::Output(output) => Report::Output {
            lease: queue.lease_id(&output.lease_id),
            stderr: output.stream() == OutputStream::Stderr,
            offset: output.offset,
            data: output.data,
        },
        Kind::Completed(completed) => completion(queue, completed),
    })
}

fn bounded(mut leases: Vec<String>) -> Vec<String> {
    leases.truncate(MAX_LEASES);
    leases
}

fn completion(queue: &dyn Queue, completed: Completed) -> Report {
    let lease = queue.lease_id(&completed.lease_id);
    let failed = |message: String| Report::Failed { lease, message };
    match completed.outcome {
        Some(completed::Outcome::ExecuteResponse(bytes)) => match ExecuteResponse::decode(bytes) {
            Ok(response) if says_something(&response) => {
                Report::Completed { lease, outcome: Outcome::Response(Box::new(response)) }
            }
            Ok(_) => failed("the worker sent neither a result nor an error".to_owned()),
            Err(error) => failed(format!("the worker sent no ExecuteResponse: {error}")),
        },
        Some(completed::Outcome::Failure(failure)) => of_failure(lease, failure),
        None => failed("the worker sent a completion without an outcome".to_owned()),
    }
}

/// Success without a result would be read as an action that ran and left nothing.
fn says_something(response: &ExecuteResponse) -> bool {
    response.result.is_some() || response.status.as_ref().is_some_and(|status| status.code != 0)
}

fn of_failure(lease: LeaseId, failure: WorkerFailure) -> Report {
    use worker_failure::Kind;
    let kind = failure.kind();
    let message = failure.message;
    let outcome = match kind {
        Kind::MissingInputs => Outcome::MissingInputs { message, missing: failure.missing },
        Kind::InvalidAction => Outcome::InvalidAction(message),
        Kind::StoreFull => Outcome::StoreFull(message),
        Kind::Unspecified | Kind::Infrastructure => return Report::Failed { lease, message },
        Kind::Cancelled => {
            return Report::Failed { lease, message: format!("the worker stopped it: {message}") };
        }
        Kind::Draining => return Report::Returned { lease, message },
        Kind::Refused => {
            return Report::Refused { lease, message, holds: bounded(failure.held_lease_ids) };
        }
    };
    Report::Completed { lease, outcome }
}
