//! The boundary between services and queue. The services know this trait alone; the
//! in-process queue is one implementation of it.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_protos::worker::{Hello, SchedulerMessage};
use tokio::sync::{mpsc, oneshot, watch};

use crate::job::{Finished, Job, Outcome};
use crate::queue::{LeaseId, OperationId, Phase, Refusal, WorkerId};
use crate::snapshot::Snapshot;

/// How far a task is.
#[derive(Debug, Clone)]
pub enum Stage {
    Queued,
    Executing,
    Done(Arc<Finished>),
}

/// What the requests of one task see.
#[derive(Debug, Clone)]
pub struct Update {
    pub stage: Stage,
    /// Requests that were cancelled while the task went on for others.
    pub cancelled: Vec<(u32, Arc<Finished>)>,
}

impl Update {
    pub fn stage_of(&self, request: u32) -> Stage {
        match self.cancelled.iter().find(|(cancelled, _)| *cancelled == request) {
            Some((_, finished)) => Stage::Done(finished.clone()),
            None => self.stage.clone(),
        }
    }
}

/// An operation as it is now.
#[derive(Debug, Clone)]
pub struct OperationState {
    pub id: OperationId,
    pub name: String,
    pub job: Arc<Job>,
    /// Who asked for this operation, of the several that a job may have; `None`: not known.
    pub owner: Option<Arc<str>>,
    pub streams: StreamNames,
    pub stage: Stage,
}

/// Names under which `ByteStream.Read` answers with stdout and stderr while they grow.
pub use kiln_cas::logs::LogNames as StreamNames;

/// A client's hold on an operation: while it lives, somebody waits.
pub struct Ticket {
    pub id: OperationId,
    pub name: String,
    pub job: Arc<Job>,
    pub owner: Option<Arc<str>>,
    pub streams: StreamNames,
    pub updates: watch::Receiver<Update>,
    /// Lets go of the operation when dropped.
    pub(crate) _hold: Box<dyn Any + Send + Sync>,
}

impl Ticket {
    pub fn stage(&mut self) -> Stage {
        self.updates.borrow_and_update().stage_of(self.id.request)
    }

    pub fn state(&mut self) -> OperationState {
        let stage = self.stage();
        OperationState {
            id: self.id,
            name: self.name.clone(),
            job: self.job.clone(),
            owner: self.owner.clone(),
            streams: self.streams.clone(),
            stage,
        }
    }
}

/// What a worker says about its leases.
#[derive(Debug)]
pub enum Report {
    Heartbeat(Vec<LeaseId>),
    Draining,
    Progress {
        lease: LeaseId,
        phase: Phase,
    },
    Output {
        lease: LeaseId,
        stderr: bool,
        offset: u64,
        data: Bytes,
    },
    Completed {
        lease: LeaseId,
        outcome: Outcome,
    },
    /// The action did not run to an end; another worker may try.
    Failed {
        lease: LeaseId,
        message: String,
    },
    /// The same because the worker drains, which is no fault of anybody's.
    Returned {
        lease: LeaseId,
        message: String,
    },
}

/// A worker's session as the queue knows it.
pub struct Seat {
    pub worker: WorkerId,
    /// Resolves when the queue takes the seat away.
    pub taken_away: oneshot::Receiver<()>,
}

/// Chooses operations. An alias, so that the reference's lifetime stays out of `async_trait`.
pub type Matches = dyn Fn(&OperationState) -> bool + Sync;

/// The queue cannot be asked, for now. In words, what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Why a job is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    Refused(Refusal),
    Unavailable(Unavailable),
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds a job, or joins one in flight.
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken>;

    /// Waits for an operation as well. `None`: no such operation.
    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable>;

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable>;

    /// Operations after `after` (exclusive) that `matches` accepts, oldest first.
    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable>;

    /// `false`: no such operation.
    async fn cancel(&self, name: &str) -> Result<bool, Unavailable>;

    /// The client is not interested any more; a running operation goes on.
    async fn forget(&self, name: &str) -> Result<bool, Unavailable>;

    /// A worker takes its seat; messages for it go to `outbound`.
    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat;

    async fn report(&self, worker: WorkerId, report: Report);

    async fn leave(&self, worker: WorkerId);

    /// The id of a lease as it was written in a message; `None`: not one of ours.
    fn parse_lease(&self, id: &str) -> Option<LeaseId>;

    /// Takes no new work; returns when nothing runs any more.
    async fn drain(&self);

    /// The worker of this name finishes what it runs. `false`: no such worker.
    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable>;

    /// Ends all sessions and all waiting at once.
    fn close(&self);

    async fn snapshot(&self) -> Result<Snapshot, Unavailable>;
}
