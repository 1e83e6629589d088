//! The worker of a server's own process: it speaks with the scheduler over channels.

use std::time::Duration;

use kiln_cas::stores::Storage;
use kiln_executor::session::SessionEnd;
use kiln_executor::{Worker, WorkerConfig, WorkerError, WorkerStatus};
use kiln_scheduler::Scheduler;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::front::health::Readiness;

/// How long the worker may take to stop what still runs after the drain time, and to say so.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait for the next session after one was lost: the scheduler of this process may have
/// lost its Redis.
const NEXT_SESSION: Duration = Duration::from_millis(200);

/// A worker before its first session.
pub struct Prepared {
    worker: Worker,
    slots: u32,
}

/// A worker that runs actions of this process's scheduler.
pub struct OwnWorker {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Starts the server's own worker without giving it work; `None` where `config` is, since workers
/// join from elsewhere then.
pub async fn prepare(
    config: Option<WorkerConfig>,
    storage: &Storage,
) -> Result<Option<Prepared>, WorkerError> {
    let Some(mut config) = config else { return Ok(None) };
    config.premises = Some(storage.premises());
    let slots = config.slots;
    let worker = Worker::start(config, storage.blobs.clone()).await?;
    Ok(Some(Prepared { worker, slots }))
}

impl Prepared {
    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub fn status(&self) -> WorkerStatus {
        self.worker.status()
    }

    pub fn not_enforced(&self) -> Vec<String> {
        self.worker.not_enforced()
    }
}

impl OwnWorker {
    /// Starts the worker on the scheduler; without it the server is not ready, as `readiness` and
    /// `grpc` are told.
    pub fn start(
        prepared: Prepared,
        scheduler: Scheduler,
        (readiness, grpc): (Readiness, HealthReporter),
    ) -> Self {
        let stop = CancellationToken::new();
        // In a box, since it is handed on from here to there.
        let running = Box::pin(run(prepared.worker, scheduler, stop.clone()));
        let task = tokio::spawn(async move {
            readiness.needs("the worker of this server", &grpc, running).await;
        });
        Self { task, stop }
    }

    /// Ends the worker, which gives back what it still runs.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(GIVE_BACK_WITHIN, self.task).await.is_err() {
            tracing::warn!("the worker did not end: what it runs is lost");
        }
    }
}

/// Runs the worker until it has drained; a session that is lost before is followed by another.
async fn run(mut worker: Worker, scheduler: Scheduler, stop: CancellationToken) {
    loop {
        let (outgoing, incoming) = scheduler.open_session();
        match worker.session(incoming, outgoing, &stop).await {
            SessionEnd::Drained => break,
            SessionEnd::Lost if stop.is_cancelled() => break,
            SessionEnd::Lost => worker.away(NEXT_SESSION, &stop).await,
        }
    }
    if !stop.is_cancelled() {
        tracing::info!(
            "the worker of this server has drained: no action runs here until the server starts again"
        );
    }
    worker.stop().await;
}
