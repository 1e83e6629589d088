//! The state machine: its state, and which function each event and timer comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kiln_cas::ActionKey;

use super::counters::Counters;
use super::fleet::Fleet;
use super::limits::{Limits, Millis};
use super::quotas::Quotas;
use super::ready::{InvocationId, LaneId, Ready};
use super::types::{Effect, Event, LeaseId, TaskId, WorkerId};

/// The queue's state machine, without I/O, clock or randomness.
pub struct Machine {
    pub(super) limits: Limits,
    pub(super) now: Millis,
    pub(super) tasks: HashMap<TaskId, Task>,
    pub(super) by_key: HashMap<ActionKey, TaskId>,
    pub(super) fleet: Fleet,
    pub(super) ready: Ready,
    pub(super) quotas: Quotas,
    /// Who could run no more can again, of one instance or caller.
    pub(super) freed: bool,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) timers: BTreeSet<(Millis, Timer)>,
    /// Waiting tasks, by the time since when they wait.
    pub(super) waiting: BTreeSet<(Millis, TaskId)>,
    pub(super) delayed: usize,
    pub(super) publishing: usize,
    pub(super) finished: VecDeque<Finished>,
    pub(super) finished_bytes: usize,
    pub(super) next_task: u64,
    pub(super) next_lease: u64,
    pub(super) draining: bool,
    pub(super) counters: Counters,
}

pub(super) struct Task {
    pub(super) key: ActionKey,
    pub(super) lane: LaneId,
    pub(super) invocation: InvocationId,
    pub(super) priority: i32,
    pub(super) expected_ms: u64,
    pub(super) timeout_ms: Millis,
    pub(super) mergeable: bool,
    /// Whether some request insists on a run of its own.
    pub(super) skips_cache: bool,
    /// For each request whether it was cancelled.
    pub(super) cancelled: Vec<bool>,
    /// For each request how many clients wait for it.
    pub(super) waiting_for: Vec<u32>,
    pub(super) waiters: usize,
    pub(super) state: TaskState,
    pub(super) attempts: u32,
    /// Runs that do not count: workers that drained gave them back.
    pub(super) returns: u32,
    pub(super) killed: Vec<Arc<str>>,
    pub(super) avoid: Option<WorkerId>,
    /// The time until which the task does not go to the worker in `avoid`; `None`: it may.
    pub(super) elsewhere_until: Option<Millis>,
    pub(super) abandon_at: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Waiting { since: Millis },
    Delayed { until: Millis },
    Leased(LeaseId),
    Publishing,
}

/// Occupies a slot of its worker until the worker gives it back or is lost.
pub(super) struct Lease {
    /// The task that the lease is for; `None`: the lease is revoked, and its result is not wanted
    /// any more.
    pub(super) task: Option<TaskId>,
    pub(super) worker: WorkerId,
    pub(super) lane: LaneId,
    pub(super) invocation: InvocationId,
    /// When the lease expires or, once it is revoked, when the worker must have given it back.
    pub(super) deadline: Millis,
    pub(super) started: Millis,
    /// Heartbeats of the worker in a row that did not list this lease.
    pub(super) omitted: u8,
    pub(super) attempt: u32,
}

pub(super) struct Finished {
    pub(super) task: TaskId,
    pub(super) at: Millis,
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
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

    /// When `handle` must be called again, with [`Event::Tick`] if nothing else happens; `None`: no
    /// timer is set.
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
