//! A worker's sessions with a scheduler on another machine, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_net::grpc::{Connections, MAX_MESSAGE, is_refusal, pause};
use kiln_protos::worker::workers_client::WorkersClient;
use kiln_protos::worker::{SchedulerMessage, WorkerMessage};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::diagnostics::{SessionDiagnostics, explain};
use crate::session::SessionEnd;
use crate::worker::Worker;

/// Messages that wait in either direction.
const MESSAGES_WAITING: usize = 256;
/// A session that lasted this long was a good one: the next attempt comes soon.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// How long a server that refused the credentials is not asked again: they may be renewed.
const REFUSED_DELAY: Duration = Duration::from_secs(30);
/// How long the server may take to hear the last words of a worker that has drained.
const FAREWELL: Duration = Duration::from_secs(5);

/// Works for the scheduler behind `server` until `shutdown`, or until it tells the worker to
/// drain. When the connection is lost, what runs goes on for `WorkerConfig::absence`, and the
/// worker connects again and reports it.
pub async fn work_for(server: &Connections, worker: &mut Worker, shutdown: &CancellationToken) {
    let (mut failures, mut diagnostics) = (0, SessionDiagnostics::default());
    while !shutdown.is_cancelled() || worker.is_pending() {
        let (start, place) = (Instant::now(), server.place());
        match one_session(server, worker, shutdown).await {
            (SessionEnd::Drained, _) => return,
            (SessionEnd::Lost, Ended { reason, heard }) => {
                failures = if start.elapsed() > GOOD_SESSION { 1 } else { failures + 1 };
                let wait = if is_refusal(&reason) { REFUSED_DELAY } else { pause(failures) };
                if heard {
                    diagnostics.forget();
                }
                let words = explain(&reason, server.url(), heard);
                log_once(&mut diagnostics, server.url(), &reason, &words);
                worker.session_failed(format!("{}: {words}", server.url()));
                server.turn_from(place);
                worker.away(wait, shutdown).await;
            }
        }
    }
}

/// Why a connection ended, and whether the scheduler has said something before.
struct Ended {
    reason: Status,
    heard: bool,
}

fn log_once(diagnostics: &mut SessionDiagnostics, server: &str, reason: &Status, words: &str) {
    tracing::debug!(server, ?reason, "a session has ended");
    match diagnostics.due(server, words, Instant::now()) {
        None => {}
        Some(0) => tracing::warn!(server, "no session with the scheduler, trying again: {words}"),
        Some(times) => {
            tracing::warn!(server, times, "still no session with the scheduler: {words}");
        }
    }
}

/// Works in one session. Returns why its connection ended as well.
async fn one_session(
    server: &Connections,
    worker: &mut Worker,
    shutdown: &CancellationToken,
) -> (SessionEnd, Ended) {
    let (to_worker, incoming) = mpsc::channel(MESSAGES_WAITING);
    let (outgoing, from_worker) = mpsc::channel(MESSAGES_WAITING);
    let heard = Arc::new(AtomicBool::new(false));
    let bridge = tokio::spawn(bridge(server.clone(), from_worker, to_worker, heard.clone()));
    let end = worker.session(incoming, outgoing, shutdown).await;
    // Both ends of the worker's channels are gone now, so the bridge ends when the server does.
    let stop = bridge.abort_handle();
    let reason = match tokio::time::timeout(FAREWELL, bridge).await {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => Status::internal(error.to_string()),
        Err(_) => {
            stop.abort();
            Status::deadline_exceeded("the server did not close the session")
        }
    };
    (end, Ended { reason, heard: heard.load(Ordering::Relaxed) })
}

async fn bridge(
    server: Connections,
    from_worker: mpsc::Receiver<WorkerMessage>,
    to_worker: mpsc::Sender<SchedulerMessage>,
    heard: Arc<AtomicBool>,
) -> Status {
    match forward(server, from_worker, to_worker, &heard).await {
        Ok(()) => Status::ok("the server closed the session"),
        Err(status) => status,
    }
}

async fn forward(
    server: Connections,
    from_worker: mpsc::Receiver<WorkerMessage>,
    to_worker: mpsc::Sender<SchedulerMessage>,
    heard: &AtomicBool,
) -> Result<(), Status> {
    let mut client = WorkersClient::new(server.main()).max_decoding_message_size(MAX_MESSAGE);
    let mut messages = client.session(ReceiverStream::new(from_worker)).await?.into_inner();
    while let Some(message) = messages.message().await? {
        if !heard.swap(true, Ordering::Relaxed) {
            tracing::info!(server = server.url(), "a session with the scheduler has begun");
        }
        // A worker that has ended its session hears no more, but what it said must arrive.
        let _ = to_worker.send(message).await;
    }
    Ok(())
}
