//! The queue with its fan-outs: their operations are found, waited for and cancelled as all others are.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_protos::worker::{Hello, SchedulerMessage};
use tokio::sync::mpsc;

use super::{FIRST, FanOuts};
use crate::api::{Matches, NotTaken, OperationState, Queue, Report, Seat, Ticket, Unavailable};
use crate::job::Job;
use crate::queue::{LeaseId, OperationId, TaskId, WorkerId};
use crate::snapshot::Snapshot;

/// A queue that also finds, lists and cancels fan-outs.
pub(crate) struct WithFanOuts {
    pub queue: Arc<dyn Queue>,
    pub fan_outs: Arc<FanOuts>,
}

impl FanOuts {
    /// Lists at most `limit` operations of fan-outs after `after` that `matches` accepts.
    fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Vec<OperationState> {
        let all = self.all();
        let from = after.map_or(TaskId(FIRST), |after| after.task);
        let requests = all.by_id.range(from..).flat_map(|(_, waited)| {
            (0..waited.requests()).filter_map(|request| waited.state(request))
        });
        let later = requests.filter(|state| after.is_none_or(|after| state.id > after));
        later.filter(|state| matches(state)).take(limit).collect()
    }

    /// Forgets a fan-out that has ended. Returns whether there is one of this name; one that runs
    /// stays.
    fn forget(&self, name: &str) -> bool {
        let Some((waited, request)) = self.find(name) else { return false };
        if request == 0 && waited.is_over() {
            let mut all = self.all();
            all.finished.retain(|id| *id != waited.id);
            all.forget(waited.id);
        }
        true
    }

    /// Returns when no fan-out is left that has not ended.
    async fn settled(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

#[async_trait]
impl Queue for WithFanOuts {
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken> {
        self.queue.submit(job).await
    }

    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable> {
        match self.fan_outs.find(name) {
            Some((waited, request)) => Ok(waited.ticket(request)),
            None => self.queue.attach(name).await,
        }
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        match self.fan_outs.find(name) {
            Some((waited, request)) => Ok(waited.state(request)),
            None => self.queue.find(name).await,
        }
    }

    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        let of_queue = after.is_none_or(|after| after.task < TaskId(FIRST));
        let mut found = Vec::new();
        if of_queue {
            found = self.queue.list(after, limit, matches).await?;
        }
        let after = after.filter(|_| !of_queue);
        let room = limit.saturating_sub(found.len());
        found.extend(self.fan_outs.list(after, room, matches));
        Ok(found)
    }

    async fn cancel(&self, name: &str) -> Result<bool, Unavailable> {
        let Some((waited, request)) = self.fan_outs.find(name) else {
            return self.queue.cancel(name).await;
        };
        waited.cancel(request, &self.fan_outs.tools.completion);
        Ok(true)
    }

    async fn forget(&self, name: &str) -> Result<bool, Unavailable> {
        if self.fan_outs.forget(name) { Ok(true) } else { self.queue.forget(name).await }
    }

    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        self.queue.join(hello, outbound).await
    }

    async fn report(&self, worker: WorkerId, report: Report) {
        self.queue.report(worker, report).await;
    }

    async fn leave(&self, worker: WorkerId) {
        self.queue.leave(worker).await;
    }

    fn lease_id(&self, name: &str) -> LeaseId {
        self.queue.lease_id(name)
    }

    async fn drain(&self) {
        self.queue.drain().await;
        // Fan-outs of which parts still wait end with the server, as whatever waits does.
        let settled = tokio::time::timeout(super::SETTLE, self.fan_outs.settled());
        let _ = settled.await;
    }

    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable> {
        self.queue.drain_worker(name).await
    }

    fn close(&self) {
        self.queue.close();
    }

    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        self.queue.snapshot().await
    }
}
