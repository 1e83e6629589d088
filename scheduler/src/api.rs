//! What services ask of a queue. They know this trait alone.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_net::panics::Panicked;
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

/// The state of one task, as all requests that share it see it.
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
    pub(crate) hold: Box<dyn Hold>,
}

/// A client that waits for an operation, for as long as this lives.
pub(crate) trait Hold: Send + Sync {
    /// Lets go at once, because the client does not want the answer any more: it will not come
    /// back.
    fn give_up(self: Box<Self>);
}

impl Ticket {
    pub fn stage(&mut self) -> Stage {
        self.updates.borrow_and_update().stage_of(self.id.request)
    }

    /// Lets go of the operation at once, because its client does not want the answer any more. For
    /// a client that is merely gone and may come back, the ticket is dropped instead.
    pub fn give_up(self) {
        self.hold.give_up();
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

/// Waits for the end of an operation. `None`: the queue ends without one. `executes`: it runs.
pub(crate) async fn end_of(
    mut updates: watch::Receiver<Update>,
    request: u32,
    mut executes: impl FnMut(),
) -> Option<Arc<Finished>> {
    loop {
        let stage = updates.borrow_and_update().stage_of(request);
        match stage {
            Stage::Done(finished) => return Some(finished),
            Stage::Executing => executes(),
            Stage::Queued => {}
        }
        updates.changed().await.ok()?;
    }
}

/// What a worker says about its leases.
#[derive(Debug)]
pub enum Report {
    /// The names of all leases that the worker runs.
    Heartbeat(Vec<String>),
    Draining,
    /// The worker takes no leases, for the reason given, until it says `None`.
    Paused(Option<Arc<str>>),
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
    /// The worker has no room for it. `holds`: names of the leases that it has instead.
    Refused {
        lease: LeaseId,
        message: String,
        holds: Vec<String>,
    },
    /// The worker drains and gives the lease back without a result, which is no fault of the action
    /// or the worker.
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

impl From<Panicked> for Unavailable {
    fn from(panicked: Panicked) -> Self {
        Self(panicked.to_string())
    }
}

/// Why a job is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    Refused(Refusal),
    Unavailable(Unavailable),
}

impl From<Unavailable> for NotTaken {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
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

    /// The id of a lease by its name in a message. One of another queue has an id as well.
    fn lease_id(&self, name: &str) -> LeaseId;

    /// Takes no new work; returns when nothing runs any more.
    async fn drain(&self);

    /// The worker of this name finishes what it runs. `false`: no such worker.
    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable>;

    /// Ends all sessions and all waiting at once.
    fn close(&self);

    async fn snapshot(&self) -> Result<Snapshot, Unavailable>;
}
