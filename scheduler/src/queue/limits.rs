//! How much there may be, how long things may take, and why an action is not taken.

/// Milliseconds on the engine's monotonic clock.
pub type Millis = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    QueueFull {
        limit: usize,
    },
    /// As many actions of one instance or caller wait already as its quota allows.
    QuotaReached {
        of: Scope,
        limit: usize,
    },
    Draining,
}

/// Whether a quota is for an instance or for a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Instance,
    Caller,
}

/// The actions that one instance or caller may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Actions that wait; beyond, `Submit` is refused.
    pub queued: usize,
    /// Slots that run its actions; beyond, its actions wait though slots are free.
    pub running: usize,
}

impl Quota {
    pub const NONE: Self = Self { queued: usize::MAX, running: usize::MAX };
}

/// Limits and times of the queue.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Tasks that wait for a worker, at most; beyond, `Submit` is refused.
    pub max_queued: usize,
    /// The quota of each instance.
    pub instance: Quota,
    /// The quota of each caller.
    pub caller: Quota,
    /// Requests that share one task, at most; beyond, a task of its own is made.
    pub max_requests_per_task: usize,
    /// How long a task waits for a worker that could run it.
    pub unsatisfiable_grace: Millis,
    /// How long a task goes on after its last waiter left.
    pub abandon_grace: Millis,
    /// A worker that says nothing for so long is lost.
    pub heartbeat_timeout: Millis,
    /// Added to an action's own time limit for fetching inputs and uploading outputs.
    pub lease_slack: Millis,
    /// How long a worker may take to give back a cancelled lease.
    pub cancel_timeout: Millis,
    /// The number of runs after the first that a failed task gets, at most.
    pub max_retries: u32,
    /// Runs that workers refused, or gave back because they drain, and that do not count; any
    /// more do.
    pub max_returns: u32,
    /// Delay before a task that failed runs again: before the n-th time it is n times this.
    pub retry_delay: Millis,
    /// How long a task that failed on one worker waits for another that could run it.
    pub elsewhere_wait: Millis,
    /// A task that lost so many workers is taken to be their killer.
    pub poison_kills: u32,
    /// Finished tasks are kept so long, so many and with answers of so many bytes.
    pub completed_ttl: Millis,
    pub max_completed: usize,
    pub max_completed_bytes: usize,
    /// Property sets without work that are remembered.
    pub max_idle_lanes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued: 250_000,
            instance: Quota::NONE,
            caller: Quota::NONE,
            max_requests_per_task: 10_000,
            unsatisfiable_grace: 30_000,
            abandon_grace: 30_000,
            heartbeat_timeout: 35_000,
            lease_slack: 10 * 60_000,
            cancel_timeout: 60_000,
            max_retries: 3,
            max_returns: 50,
            retry_delay: 200,
            elsewhere_wait: 30_000,
            poison_kills: 3,
            completed_ttl: 10 * 60_000,
            max_completed: 10_000,
            max_completed_bytes: 16 << 20,
            max_idle_lanes: 256,
        }
    }
}

impl Limits {
    /// Why an action is not taken: of whom too many wait.
    pub fn refusal(&self, of: Option<Scope>) -> Refusal {
        match of {
            None => Refusal::QueueFull { limit: self.max_queued },
            Some(of @ Scope::Instance) => Refusal::QuotaReached { of, limit: self.instance.queued },
            Some(of @ Scope::Caller) => Refusal::QuotaReached { of, limit: self.caller.queued },
        }
    }
}
