//! What a frontend needs of a queue's state machine, wherever that is.

use std::sync::Arc;

use crate::api::Unavailable;
use crate::job::{Finished, Job};
use crate::queue::{Event, Joined, LeaseId, OperationId, Submit, TaskId, WorkerId};

use super::inner::Inner;
use super::told::{Told, WorkerInfo};

/// A queue's state machine: calls go in, what follows from them comes out.
pub trait Engine: Send + Sync + Sized + 'static {
    /// Whether heartbeats without news are told together with others', at the engine's own pace.
    const HEARTBEATS_TOGETHER: bool;

    /// Tells the engine what happened, or asks it. `react` gets all that follows. In an engine of
    /// this process it does so before anybody gets what follows from a later call, and without a
    /// task switch.
    fn call<T: Send>(
        &self,
        call: Call,
        react: impl FnOnce(Vec<Told>) -> T + Send,
    ) -> impl Future<Output = Result<T, Unavailable>> + Send;

    /// A client that waited at `frontend` does so no longer; one that `gave_up` does not want the
    /// answer any more. Does not block.
    fn left(frontend: &Arc<Inner<Self>>, id: OperationId, gave_up: bool);

    /// The frontend may have missed news: what it waits for is to be compared with what the engine knows. Does
    /// not block.
    fn doubt(&self);

    /// Ends the engine's work for this frontend: no more news comes from it.
    fn close(&self);
}

/// An event that a frontend tells the engine, or a question that it asks.
#[derive(Debug)]
pub enum Call {
    /// Followed by `Accepted` or `Refused`.
    Submit(Box<Submit>, Arc<Job>),
    /// A client waits as well. Followed by `Task` or `Unknown`.
    Attach(OperationId),
    /// The client is not interested any more; its operation is listed no longer.
    Forget(OperationId),
    /// Followed by `Task` or `Unknown`.
    Look(TaskId),
    /// Followed by `Task` for `count` tasks at most, `from` one on.
    Page { from: TaskId, count: usize },
    /// Followed by `Worker`, `Lane`, `Counters`, `Totals`, and by `Task` for `listed` tasks at
    /// most that wait and as many that run.
    Figures { listed: usize },
    /// The engine chooses the id of the session. Followed by `Joined`.
    Join(Joined, WorkerInfo),
    /// Followed by `Publish`, or `Stale`. `task`: as far as the frontend knows it.
    Completed { worker: WorkerId, lease: LeaseId, task: Option<TaskId> },
    /// The answer that came under this lease is durable.
    Published { task: TaskId, lease: LeaseId, answer: Arc<Finished> },
    /// Another event of clients and workers, as the state machine knows it.
    Event(Event),
    /// An operator drains the worker of this name. Followed by `Drain`, where there is one.
    DrainWorker(String),
    /// The frontend drains; these are its workers.
    Drain(Vec<WorkerId>),
}
