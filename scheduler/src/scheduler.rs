//! The scheduler as a whole: what a server is wired with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_cas::redis::Redis;
use kiln_protos::worker::{SchedulerMessage, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::Unavailable;
use crate::completion::Completion;
use crate::config::{Parts, SchedulerConfig};
use crate::engine::{memory, redis};
use crate::session::{INBOUND_CAPACITY, OUTBOUND_CAPACITY, handshake, serve};
use crate::shared::Core;
use crate::snapshot::Snapshot;

/// Clones share one scheduler.
#[derive(Clone)]
pub struct Scheduler {
    core: Arc<Core>,
}

impl Scheduler {
    /// Must be called within a Tokio runtime.
    pub fn start(config: SchedulerConfig, parts: Parts) -> Self {
        let completion = Arc::new(Completion::new(parts.clone(), config.base_url.clone()));
        let queue = memory::start(&config, parts.logs.clone(), completion.clone());
        Self { core: Arc::new(Core::new(config, parts, Arc::new(queue), completion)) }
    }

    /// Starts a frontend of the queue in Redis at `server`, which any number of them share. Errors:
    /// Redis does not answer, or holds a queue of another version.
    pub async fn join(
        config: SchedulerConfig,
        parts: Parts,
        server: Redis,
    ) -> Result<Self, Unavailable> {
        let completion = Arc::new(Completion::new(parts.clone(), config.base_url.clone()));
        let logs = parts.logs.clone();
        let queue = redis::join(&config, server, logs, completion.clone()).await?;
        Ok(Self { core: Arc::new(Core::new(config, parts, Arc::new(queue), completion)) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// A session for a worker in this process, which speaks the same protocol as one over
    /// gRPC. It ends when either channel is dropped.
    pub fn open_session(&self) -> (mpsc::Sender<WorkerMessage>, mpsc::Receiver<SchedulerMessage>) {
        let (to_scheduler, inbound) = mpsc::channel(INBOUND_CAPACITY);
        let (outbound, from_scheduler) = mpsc::channel(OUTBOUND_CAPACITY);
        let queue = self.core.queue.clone();
        tokio::spawn(async move {
            let mut inbound = ReceiverStream::new(inbound);
            match handshake(&mut inbound).await {
                Ok(hello) => serve(queue, hello, inbound, outbound).await,
                Err(error) => tracing::error!(%error, "a local worker's session did not begin"),
            }
        });
        (to_scheduler, from_scheduler)
    }

    /// Takes no new work, lets running actions finish, then returns. Actions that wait keep
    /// waiting: [`Scheduler::shutdown`] ends them.
    pub async fn drain(&self) {
        self.core.queue.drain().await;
    }

    /// Ends all sessions and operation streams at once. Clients see UNAVAILABLE and try
    /// again elsewhere or later.
    pub fn shutdown(&self) {
        self.core.queue.close();
    }

    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let mut snapshot = self.core.queue.snapshot().await?;
        snapshot.cache_hits = self.core.cache_hits.load(Ordering::Relaxed);
        Ok(snapshot)
    }
}
