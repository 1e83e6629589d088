//! What status pages and tests see of the machine.

use std::sync::Arc;

use super::counters::Counters;
use super::limits::Millis;
use super::machine::{Machine, TaskState, Timer};
use super::platform::{Offer, Requirement};
use super::types::{LeaseId, TaskId, WorkerId};

pub struct WorkerFigures<'a> {
    pub id: WorkerId,
    pub name: &'a Arc<str>,
    pub slots: u32,
    pub occupied: u32,
    pub draining: bool,
    /// Why the worker takes no leases for now; `None`: it takes some.
    pub paused: Option<&'a Arc<str>>,
    pub last_seen: Millis,
    pub offer: Option<&'a Offer>,
}

pub struct LaneFigures<'a> {
    pub requirement: &'a Requirement,
    pub queued: usize,
    pub running: usize,
    pub served: bool,
}

pub struct LeaseFigures {
    pub id: LeaseId,
    /// The task that the lease is for; `None`: the lease was cancelled and is not given back yet.
    pub task: Option<TaskId>,
    pub worker: WorkerId,
    pub started: Millis,
    pub attempt: u32,
}

impl Machine {
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tasks that wait for a worker, those held back after a failure included.
    pub fn queued(&self) -> usize {
        self.waiting.len() + self.delayed
    }

    pub fn running(&self) -> usize {
        self.leases.len()
    }

    pub fn publishing(&self) -> usize {
        self.publishing
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Waiting tasks, oldest first, with the time since when.
    pub fn waiting(&self) -> impl Iterator<Item = (TaskId, Millis)> {
        self.waiting.iter().map(|(since, task)| (*task, *since))
    }

    /// Tasks that are not finished yet, in no order.
    pub fn unfinished(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().copied()
    }

    pub fn leases(&self) -> impl Iterator<Item = LeaseFigures> {
        self.leases.iter().map(|(id, lease)| LeaseFigures {
            id: *id,
            task: lease.task,
            worker: lease.worker,
            started: lease.started,
            attempt: lease.attempt,
        })
    }

    pub fn workers(&self) -> impl Iterator<Item = WorkerFigures<'_>> {
        self.fleet.workers.iter().map(|(id, worker)| WorkerFigures {
            id: *id,
            name: &worker.name,
            slots: worker.slots,
            occupied: worker.occupied(),
            draining: worker.draining,
            paused: worker.paused.as_ref(),
            last_seen: worker.last_seen,
            offer: self.fleet.offer(worker),
        })
    }

    pub fn lanes(&self) -> impl Iterator<Item = LaneFigures<'_>> {
        self.fleet.lanes.all.iter().map(|(id, lane)| LaneFigures {
            requirement: &lane.requirement,
            queued: lane.waiting.len(),
            running: lane.running,
            served: self.fleet.lanes.is_served(*id),
        })
    }

    pub fn worker_named(&self, name: &Arc<str>) -> Option<WorkerId> {
        self.fleet.named(name)
    }

    /// Slots that each invocation occupies.
    pub fn shares(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.ready.running()
    }

    /// Panics where redundant parts of the state disagree. For tests; costs O(everything).
    pub fn check(&self) {
        self.fleet.check();
        let count = |wanted: fn(&TaskState) -> bool| {
            self.tasks.values().filter(|task| wanted(&task.state)).count()
        };
        assert_eq!(self.waiting.len(), count(|state| matches!(state, TaskState::Waiting { .. })));
        assert_eq!(self.delayed, count(|state| matches!(state, TaskState::Delayed { .. })));
        assert_eq!(self.publishing, count(|state| *state == TaskState::Publishing));
        let queued: usize = self.fleet.lanes.all.values().map(|lane| lane.waiting.len()).sum();
        assert_eq!(queued, self.waiting.len());
        let running: usize = self.fleet.lanes.all.values().map(|lane| lane.running).sum();
        assert_eq!(running, self.leases.len());
        let shares: u32 = self.shares().map(|(_, running)| running).sum();
        assert_eq!(shares as usize, self.leases.len());
        assert_eq!(self.quotas.totals(), (self.queued(), self.leases.len()));
        for (id, lease) in &self.leases {
            assert!(self.fleet.workers[&lease.worker].leases.contains(id));
            if let Some(task) = lease.task {
                assert_eq!(self.tasks[&task].state, TaskState::Leased(*id));
            }
        }
        for (id, task) in &self.tasks {
            if let TaskState::Leased(lease) = task.state {
                assert_eq!(self.leases[&lease].task, Some(*id));
            }
        }
        assert!(self.by_key.values().all(|task| self.tasks.contains_key(task)));
        assert!(self.finished.len() <= self.limits.max_completed);
        for (id, lane) in &self.fleet.lanes.all {
            let timer = lane.unsatisfiable_at.map(|at| (at, Timer::Unsatisfiable(*id)));
            assert!(timer.is_none_or(|timer| self.timers.contains(&timer)));
            assert!(timer.is_none() || !lane.waiting.is_empty());
        }
        let strays: usize = self.fleet.workers.values().map(|worker| worker.strays.len()).sum();
        let timers =
            1 + 5 * self.tasks.len() + self.leases.len() + strays + self.fleet.workers.len();
        assert!(self.timers.len() <= timers, "timers pile up");
    }
}
