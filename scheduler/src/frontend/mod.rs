//! What a server does with a queue: it takes clients' jobs and workers' reports in, tells the
//! queue's [`Engine`] of them, and carries out what follows.
//!
//! The engine decides, and there are two: the state machine in this process, and the same as a
//! script in Redis that any number of frontends share. Nothing is lost with one of these: its
//! workers join another one with what they run, its clients wait for their operations there, and
//! what it was about to publish runs again.

mod clients;
mod early;
pub mod engine;
mod go_on;
pub(crate) mod inner;
mod local;
pub(crate) mod react;
mod tell;
#[cfg(test)]
mod tests;
pub mod told;
mod under_way;
mod view;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use kiln_protos::worker::{Hello, SchedulerMessage};
use tokio::sync::mpsc;

use crate::api::{Matches, NotTaken, OperationState, Queue, Report, Seat, Ticket, Unavailable};
use crate::job::Job;
use crate::queue::{LeaseId, OperationId, WorkerId};
use crate::snapshot::Snapshot;

use engine::{Call, Engine};
use go_on::to_the_end;
use inner::Inner;
use react::Own;

/// See the module. Clones share one frontend.
#[derive(Clone)]
pub struct Frontend<E> {
    pub(crate) inner: Arc<Inner<E>>,
}

impl<E: Engine> Inner<E> {
    async fn drain(self: &Arc<Self>) {
        self.draining.store(true, Ordering::Release);
        let mut busy = self.busy.subscribe();
        let workers = self.lock().sessions.keys().copied().collect();
        if let Err(error) = self.tell(Call::Drain(workers), Own::default()).await {
            tracing::warn!(%error, "the queue was not told that this server drains");
        }
        self.count_busy(&self.lock());
        // The sender lives as long as `self`.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    fn close(&self) {
        self.draining.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        self.engine.close();
        let mut local = self.lock();
        self.end_if_closed(&mut local);
        self.count_busy(&local);
    }
}

#[async_trait]
impl<E: Engine> Queue for Frontend<E> {
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken> {
        to_the_end(self.inner.clone().submit(job)).await?.map_err(NotTaken::Refused)
    }

    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable> {
        to_the_end(self.inner.clone().attach(name.to_owned())).await
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        self.inner.find(name).await
    }

    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        self.inner.list(after, limit, matches).await
    }

    async fn cancel(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.cancel(name).await
    }

    async fn forget(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.forget(name).await
    }

    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        self.inner.join(hello, outbound).await
    }

    async fn report(&self, worker: WorkerId, report: Report) {
        self.inner.reported(worker, report).await;
    }

    async fn leave(&self, worker: WorkerId) {
        self.inner.leave(worker).await;
    }

    fn lease_id(&self, name: &str) -> LeaseId {
        self.inner.names.lease_id(name)
    }

    async fn drain(&self) {
        self.inner.drain().await;
    }

    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.drain_worker(name).await
    }

    fn close(&self) {
        self.inner.close();
    }

    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        self.inner.snapshot().await
    }
}
