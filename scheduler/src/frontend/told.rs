//! What an engine says to a frontend.

use std::sync::Arc;

use bytes::Bytes;

use crate::api::Stage;
use crate::job::{Finished, Job, Request, Run, UnixNanos};
use crate::queue::{
    CancelReason, CloseReason, Counters, Ending, LeaseId, OperationId, Refusal, TaskId, WorkerId,
};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Queued,
    Leased,
    /// The worker has given its answer.
    Publishing,
    Finished,
}

/// The latest run of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// When the task was queued; 0 where the engine does not say it again.
    pub queued_at: UnixNanos,
    /// When a worker got the lease; 0: no worker ever had it.
    pub leased_at: UnixNanos,
    /// Name of the worker.
    pub worker: Arc<str>,
    /// The attempt's number, counted from 1; 0: no worker ever had it.
    pub number: u32,
}

/// A request for a task.
#[derive(Debug, Clone, Default)]
pub struct RequestStatus {
    pub owner: Option<Arc<str>>,
    pub cancelled: bool,
    /// The client said that it is not interested in the operation any more.
    pub forgotten: bool,
}

/// A task as it is now.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    pub task: TaskId,
    pub step: Step,
    pub job: Arc<Job>,
    pub attempt: Attempt,
    pub requests: Vec<RequestStatus>,
    pub ending: Option<Ending>,
    pub answer: Option<Arc<Finished>>,
}

/// All that the journal needs of a task.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    pub job: Arc<Job>,
    pub attempt: Attempt,
    /// For each request of the task, in order, whether it was cancelled.
    pub cancelled: Vec<bool>,
    /// The requests of the task but for the first, which is in the job.
    pub requests: Vec<Arc<Request>>,
}

/// The job and the first blobs that a worker needs to run a task.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub job: Arc<Job>,
    /// Blobs that the worker reads first.
    pub blobs: Vec<Bytes>,
}

/// One piece of news from the engine: an answer to a call, or what another frontend's call led to.
#[derive(Debug)]
pub enum Told {
    Accepted {
        id: OperationId,
        /// The job of the request that came first, where this one joined it.
        joined: Option<Arc<Job>>,
        step: Step,
        attempt: Attempt,
    },
    Refused(Refusal),
    Joined {
        worker: WorkerId,
    },
    Assign {
        worker: WorkerId,
        lease: LeaseId,
        task: TaskId,
        attempt: Attempt,
        /// `None`: the worker is at another frontend.
        assigned: Option<Assigned>,
    },
    /// A worker has a task, said to a frontend whose clients only wait for it.
    Leased {
        task: TaskId,
        attempt: Attempt,
    },
    Adopted {
        worker: WorkerId,
        lease: LeaseId,
        /// The task that the lease is for; `None`: its result is not wanted any more.
        task: Option<(TaskId, Arc<Job>)>,
        attempt: Attempt,
    },
    CancelLease {
        worker: WorkerId,
        lease: LeaseId,
        reason: CancelReason,
    },
    CloseWorker {
        worker: WorkerId,
        reason: CloseReason,
    },
    Requeued {
        task: TaskId,
        at_once: bool,
    },
    Publish {
        task: TaskId,
        lease: LeaseId,
        worker: WorkerId,
        attempt: u32,
    },
    Stale {
        lease: LeaseId,
    },
    RequestCancelled {
        id: OperationId,
        record: TaskRecord,
    },
    /// The task has ended, as the frontend whose call ended it hears.
    Finished {
        task: TaskId,
        ending: Ending,
        record: TaskRecord,
    },
    /// The task has ended, as the other frontends that wait for it hear.
    Ended {
        task: TaskId,
        ending: Ending,
        attempt: Attempt,
        answer: Option<Arc<Finished>>,
    },
    Forgotten {
        task: TaskId,
    },
    /// An operator drains this worker.
    Drain {
        worker: WorkerId,
    },
    Task(Box<TaskStatus>),
    Unknown {
        task: TaskId,
    },
    Totals {
        now: UnixNanos,
        queued: usize,
        running: usize,
        oldest_queued_ms: Option<u64>,
    },
    Counters(Counters),
    Worker(Box<WorkerStatus>),
    Lane {
        properties: Vec<(String, String)>,
        queued: usize,
        running: usize,
        served: bool,
    },
}

/// Facts about a worker for people; the queue needs none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerInfo {
    pub host_name: String,
    pub version: String,
    pub not_enforced: Vec<String>,
}

/// A worker as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    pub name: String,
    pub slots: u32,
    pub occupied: u32,
    pub draining: bool,
    pub last_seen_ms: u64,
    pub properties: Vec<(String, String)>,
    pub info: WorkerInfo,
    /// Why the worker takes no leases for now; `None`: it takes some.
    pub paused: Option<String>,
}

impl Step {
    /// The stage that clients see while the task has not ended.
    pub fn stage(self) -> Stage {
        match self {
            Self::Queued => Stage::Queued,
            Self::Leased | Self::Publishing | Self::Finished => Stage::Executing,
        }
    }
}

impl Attempt {
    pub fn run(&self, operation: Arc<str>, job: Arc<Job>) -> Run {
        Run {
            operation,
            job,
            queued_at: self.queued_at,
            leased_at: self.leased_at,
            worker: self.worker.clone(),
            attempts: self.number,
        }
    }
}

impl Told {
    /// Whether this answers a question of the frontend, and is no news.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Task(_)
                | Self::Unknown { .. }
                | Self::Totals { .. }
                | Self::Counters(_)
                | Self::Worker(_)
                | Self::Lane { .. }
        )
    }
}
