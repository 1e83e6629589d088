//! Names, events and effects of the queue's state machine.

use std::sync::Arc;

use kiln_cas::ActionKey;

use super::limits::{Millis, Refusal};
use super::platform::{Offer, Requirement};

/// The id of one execution, which several requests may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// The right of one worker to run one task once. A result counts only while its lease is
/// the task's current one: lease ids are the fencing tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// The id of one session of a worker; a worker that reconnects gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// The id of a client's operation: a task, and the index of its request among those that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId {
    pub task: TaskId,
    pub request: u32,
}

/// A request for an execution. The requester counts as one waiter at once.
#[derive(Debug, Clone)]
pub struct Submit {
    pub key: ActionKey,
    pub requirement: Requirement,
    /// The priority as in REAPI: lower numbers run sooner.
    pub priority: i32,
    /// The name of the invocation; shares of the workers are fair between invocations.
    pub invocation: Arc<str>,
    /// Milliseconds that the action is expected to run; `None`: nothing is known about it.
    pub expected_ms: Option<u64>,
    /// The action's own time limit, or the server's default.
    pub timeout_ms: Millis,
    pub do_not_cache: bool,
    pub skip_cache_lookup: bool,
    /// Who asks, as far as quotas go; `None`: nobody in particular. The instance is the key's.
    pub caller: Option<Arc<str>>,
    /// The name of a worker that should not run it where another one can.
    pub avoid: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub struct Joined {
    /// The session's id, chosen by the engine and never used before.
    pub worker: WorkerId,
    /// A second session of the same name ends the first.
    pub name: Arc<str>,
    pub slots: u32,
    pub offer: Offer,
    /// Leases that the worker holds from an earlier session: it keeps those that are still its own,
    /// and is told to cancel the rest, which take up slots until it has.
    pub leases: Vec<LeaseId>,
    /// Why the worker takes no leases for now; `None`: it takes some.
    pub paused: Option<Arc<str>>,
}

/// The phase of an action that a worker is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    FetchingInputs,
    Running,
    UploadingOutputs,
}

#[derive(Debug, Clone)]
pub enum Event {
    Submit(Box<Submit>),
    /// A client waits for the operation.
    Attach(OperationId),
    /// A client that waited does so no longer; it may come back.
    Detach(OperationId),
    /// A client that waited does not want the answer any more.
    GaveUp(OperationId),
    Cancel(OperationId),
    WorkerJoined(Joined),
    WorkerLeft {
        worker: WorkerId,
    },
    /// A worker is alive; `leases` are all that it runs.
    Heartbeat {
        worker: WorkerId,
        leases: Vec<LeaseId>,
    },
    /// The worker takes nothing until it says otherwise (`None`), for the reason given.
    WorkerPaused {
        worker: WorkerId,
        reason: Option<Arc<str>>,
    },
    /// The worker takes nothing more, by its own wish or by an operator's.
    WorkerDraining {
        worker: WorkerId,
    },
    Progress {
        worker: WorkerId,
        lease: LeaseId,
        phase: Phase,
    },
    /// The worker has an answer that is final for the action, good or bad.
    Completed {
        worker: WorkerId,
        lease: LeaseId,
    },
    /// The worker could not run the action to an end; another may.
    Failed {
        worker: WorkerId,
        lease: LeaseId,
        message: String,
    },
    /// The worker gives the lease back because it drains: that says nothing about the action.
    Returned {
        worker: WorkerId,
        lease: LeaseId,
        message: String,
    },
    /// The worker did not begin the action, or stopped it for want of a scheduler: that is no
    /// run. `holds`: all leases that it has instead.
    Refused {
        worker: WorkerId,
        lease: LeaseId,
        message: String,
        holds: Vec<LeaseId>,
    },
    /// The answer of a task that was to be published is published (`bytes` long), and its
    /// waiters may see it.
    Published {
        task: TaskId,
        bytes: usize,
    },
    /// The queue takes no new work and leases nothing more.
    Drain,
    /// Time has passed, and nothing else has happened.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// First effect of `Submit`, unless it is `Refused`.
    Accepted {
        id: OperationId,
        merged: bool,
    },
    Refused(Refusal),
    Assign {
        worker: WorkerId,
        lease: LeaseId,
        task: TaskId,
        attempt: u32,
    },
    /// A lease of the worker's earlier session is now this session's. `task`: `None` when its
    /// result is not wanted any more, and then `CancelLease` follows.
    Adopted {
        worker: WorkerId,
        lease: LeaseId,
        task: Option<TaskId>,
        attempt: u32,
    },
    CancelLease {
        worker: WorkerId,
        lease: LeaseId,
        reason: CancelReason,
    },
    /// The task's run came to nothing: it waits again, `at_once` or after a delay.
    Requeued {
        task: TaskId,
        at_once: bool,
    },
    /// The answer just reported is the one that counts: make it durable, then say `Published`.
    Publish {
        task: TaskId,
        lease: LeaseId,
        worker: WorkerId,
        attempt: u32,
    },
    /// An answer came under a lease that is not current: it is thrown away.
    Stale {
        lease: LeaseId,
    },
    Finished {
        task: TaskId,
        ending: Ending,
    },
    /// One of several requests of a task was cancelled; the task goes on.
    RequestCancelled {
        id: OperationId,
    },
    /// A finished task is kept no longer.
    Forgotten {
        task: TaskId,
    },
    CloseWorker {
        worker: WorkerId,
        reason: CloseReason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    Cancelled,
    NobodyWaits,
    LeaseExpired,
    /// The worker holds a lease that this queue did not give it, or has taken from it.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The worker sent no message for the length of the heartbeat timeout.
    Silent,
    /// Another session came with the same name.
    Replaced,
    /// A cancelled lease was not given back in time.
    DidNotCancel,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Published,
    Cancelled,
    NobodyWaits,
    /// No worker can run the task; the reason is in words.
    Unsatisfiable(String),
    /// All workers that could run it have paused. Their names and reasons, in words.
    WorkersPaused(String),
    RetriesExhausted {
        attempts: u32,
        last: String,
    },
    /// Each of these workers was lost while it ran the task.
    Poison {
        workers: Vec<Arc<str>>,
    },
}
