//! The queue as a pure state machine: events and the time in, effects out.
//!
//! It knows no clock, no randomness, no message and no blob. An engine feeds it and keeps what
//! belongs to tasks and workers but does not decide anything; a frontend carries its effects out.
//!
//! A task waits (`Waiting`), perhaps for a while after a failure (`Delayed`), runs under a
//! lease (`Leased`), has its answer made durable (`Publishing`) and is then finished: it
//! ends exactly once, with one [`Effect::Finished`].

mod fleet;
mod leases;
pub mod platform;
mod quotas;
mod ready;
mod tasks;
mod types;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kiln_cas::ActionKey;

use fleet::Fleet;
use quotas::{Owner, Quotas};
use ready::{InvocationId, LaneId, Place, Ready, Turn};

pub(crate) use fleet::paused_in_words;
pub use ready::UNKNOWN_EXPECTED_MS;
pub use types::*;
pub use view::{LaneFigures, LeaseFigures, WorkerFigures};

/// See the module.
pub struct Machine {
    limits: Limits,
    now: Millis,
    tasks: HashMap<TaskId, Task>,
    by_key: HashMap<ActionKey, TaskId>,
    fleet: Fleet,
    ready: Ready,
    quotas: Quotas,
    /// Who could run no more can again, of one instance or caller.
    freed: bool,
    leases: BTreeMap<LeaseId, Lease>,
    timers: BTreeSet<(Millis, Timer)>,
    /// Waiting tasks by the time since when.
    waiting: BTreeSet<(Millis, TaskId)>,
    delayed: usize,
    publishing: usize,
    finished: VecDeque<Finished>,
    finished_bytes: usize,
    next_task: u64,
    next_lease: u64,
    draining: bool,
    counters: Counters,
}

struct Task {
    key: ActionKey,
    lane: LaneId,
    invocation: InvocationId,
    priority: i32,
    expected_ms: u64,
    timeout_ms: Millis,
    mergeable: bool,
    /// Some request insists on a run of its own.
    skips_cache: bool,
    /// For each request whether it was cancelled.
    cancelled: Vec<bool>,
    /// For each request how many clients wait for it.
    waiting_for: Vec<u32>,
    waiters: usize,
    state: State,
    attempts: u32,
    /// Runs that do not count: workers that drained gave them back.
    returns: u32,
    killed: Vec<Arc<str>>,
    avoid: Option<WorkerId>,
    /// Until then it does not go to the worker that it avoids.
    elsewhere_until: Option<Millis>,
    abandon_at: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { since: Millis },
    Delayed { until: Millis },
    Leased(LeaseId),
    Publishing,
}

/// Occupies a slot of its worker until the worker gives it back or is lost.
struct Lease {
    /// `None`: revoked; its result is not wanted any more.
    task: Option<TaskId>,
    worker: WorkerId,
    lane: LaneId,
    invocation: InvocationId,
    /// When it expires or, revoked, when the worker must have given it back.
    deadline: Millis,
    started: Millis,
    /// Heartbeats in a row that did not list it.
    omitted: u8,
    attempt: u32,
}

struct Finished {
    task: TaskId,
    at: Millis,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Silence(WorkerId),
    Lease(LeaseId),
    Retry(TaskId),
    Abandon(TaskId),
    Unsatisfiable(LaneId),
    Forget,
    Stray(WorkerId, LeaseId),
    Elsewhere(TaskId),
}

impl Machine {
    pub fn new(limits: Limits) -> Self {
        Self {
            now: 0,
            tasks: HashMap::new(),
            by_key: HashMap::new(),
            fleet: Fleet::default(),
            ready: Ready::default(),
            quotas: Quotas::new(limits.instance, limits.caller),
            freed: false,
            leases: BTreeMap::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            delayed: 0,
            publishing: 0,
            finished: VecDeque::new(),
            finished_bytes: 0,
            next_task: 0,
            next_lease: 0,
            draining: false,
            counters: Counters::default(),
            limits,
        }
    }

    /// Takes one event at the time `now` (which never goes back) and appends what must be
    /// done, in order. What was due before `now` happens first.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.fire(effects);
        match event {
            Event::Submit(submit) => self.submit(*submit, effects),
            Event::Attach(id) => self.attach(id),
            Event::Detach(id) => self.detach(id),
            Event::GaveUp(id) => self.gave_up(id, effects),
            Event::Cancel(id) => self.cancel(id, effects),
            Event::WorkerJoined(joined) => self.worker_joined(joined, effects),
            Event::WorkerLeft { worker } => self.worker_lost(worker, effects),
            Event::Heartbeat { worker, leases } => self.heartbeat(worker, &leases, effects),
            Event::WorkerDraining { worker } => self.worker_draining(worker),
            Event::WorkerPaused { worker, reason } => self.worker_paused(worker, reason, effects),
            Event::Progress { worker, lease, phase } => self.progress(worker, lease, phase),
            Event::Completed { worker, lease } => self.completed(worker, lease, effects),
            Event::Failed { worker, lease, message } => {
                self.failed(worker, lease, message, effects);
            }
            Event::Returned { worker, lease, message } => {
                self.returned(worker, lease, message, effects);
            }
            Event::Refused { worker, lease, message, holds } => {
                self.refused(worker, lease, message, &holds, effects);
            }
            Event::Published { task, bytes } => self.published(task, bytes, effects),
            Event::Drain => self.draining = true,
            Event::Tick => {}
        }
        self.dispatch_freed(effects);
    }

    /// When `handle` must be called again, with [`Event::Tick`] if nothing else happens.
    pub fn next_timer(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn fire(&mut self, effects: &mut Vec<Effect>) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Silence(worker) => self.check_silence(worker, effects),
                Timer::Lease(lease) => self.lease_expired(lease, effects),
                Timer::Retry(task) => self.retry(task, effects),
                Timer::Abandon(task) => self.check_abandoned(task, effects),
                Timer::Unsatisfiable(lane) => self.check_unsatisfiable(lane, effects),
                Timer::Forget => self.forget_finished(effects),
                Timer::Stray(worker, lease) => self.stray_expired(worker, lease, effects),
                Timer::Elsewhere(task) => self.anywhere(task, effects),
            }
        }
    }
}
