//! Leases: how they end, and what becomes of their tasks then.

use super::machine::{Lease, Machine, TaskState, Timer};
use super::types::{CancelReason, CloseReason, Effect, Ending, LeaseId, Phase, TaskId, WorkerId};

impl Machine {
    pub(super) fn progress(&mut self, worker: WorkerId, id: LeaseId, phase: Phase) {
        self.seen(worker);
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.worker == worker) else {
            return;
        };
        let Some(task) = lease.task.and_then(|task| self.tasks.get(&task)) else { return };
        let deadline = match phase {
            Phase::FetchingInputs | Phase::Running => {
                self.now + task.timeout_ms + self.limits.lease_slack
            }
            Phase::UploadingOutputs => self.now + self.limits.lease_slack,
        };
        self.timers.remove(&(lease.deadline, Timer::Lease(id)));
        lease.deadline = deadline;
        self.timers.insert((deadline, Timer::Lease(id)));
    }

    pub(super) fn completed(&mut self, worker: WorkerId, id: LeaseId, effects: &mut Vec<Effect>) {
        self.seen(worker);
        let Some(lease) = self.give_back(worker, id, effects) else { return };
        if let Some((task_id, task)) =
            lease.task.and_then(|task| Some((task, self.tasks.get_mut(&task)?)))
        {
            task.state = TaskState::Publishing;
            self.publishing += 1;
            effects.push(Effect::Publish {
                task: task_id,
                lease: id,
                worker,
                attempt: lease.attempt,
            });
        } else {
            self.counters.stale_results += 1;
            effects.push(Effect::Stale { lease: id });
        }
        self.dispatch_worker(worker, effects);
    }

    pub(super) fn failed(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        self.seen(worker);
        let Some(lease) = self.give_back(worker, id, effects) else { return };
        if let Some(task) = lease.task {
            self.run_again(task, message, Some(worker), effects);
        }
        self.dispatch_worker(worker, effects);
    }

    /// The worker drains and has no more time for it. Of a worker that is not known to drain,
    /// this is a failure like any other.
    pub(super) fn returned(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        self.seen(worker);
        let drains = self.fleet.workers.get(&worker).is_some_and(|worker| worker.draining);
        let Some(lease) = self.give_back(worker, id, effects) else { return };
        if let Some(task) = lease.task {
            if drains && self.uncount_run(task) {
                effects.push(Effect::Requeued { task, at_once: true });
                self.enqueue(task, effects);
            } else {
                self.run_again(task, message, Some(worker), effects);
            }
        }
        self.dispatch_worker(worker, effects);
    }

    /// The worker has no room for it, which is no fault of the action's.
    pub(super) fn refused(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        message: String,
        holds: &[LeaseId],
        effects: &mut Vec<Effect>,
    ) {
        self.seen(worker);
        let lease = self.give_back(worker, id, effects);
        self.holds(worker, holds, effects);
        if let Some(task) = lease.and_then(|lease| lease.task) {
            self.counters.leases_refused += 1;
            if self.uncount_run(task) {
                let returns = self.tasks.get(&task).map_or(0, |task| task.returns);
                effects.push(Effect::Requeued { task, at_once: false });
                self.put_off(task, returns, worker);
            } else {
                self.run_again(task, message, Some(worker), effects);
            }
        }
        self.dispatch_worker(worker, effects);
    }

    /// The task's latest run was none. `false`: that happened too often.
    fn uncount_run(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        if task.returns >= self.limits.max_returns {
            return false;
        }
        task.returns += 1;
        task.attempts -= 1;
        task.avoid = None;
        self.counters.returned += 1;
        true
    }

    /// Frees the slot of a lease that this worker holds.
    pub(super) fn give_back(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        effects: &mut Vec<Effect>,
    ) -> Option<Lease> {
        if self.leases.get(&id).is_none_or(|lease| lease.worker != worker) {
            self.counters.stale_results += 1;
            effects.push(Effect::Stale { lease: id });
            if self.drop_stray(worker, id) {
                self.dispatch_worker(worker, effects);
            }
            return None;
        }
        self.remove_lease(id)
    }

    pub(super) fn remove_lease(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.fleet.vacate(lease.worker, id);
        if let Some(lane) = self.fleet.lanes.all.get_mut(&lease.lane) {
            lane.running -= 1;
        }
        self.fleet.lanes.unrefer_lane(lease.lane, self.limits.max_idle_lanes);
        if let Some(owner) = self.ready.owner(lease.invocation) {
            self.freed |= self.quotas.is_full(owner);
            self.quotas.count_running(owner, false);
        }
        self.ready.stopped(lease.invocation);
        self.ready.forget_invocation(lease.invocation);
        self.timers.remove(&(lease.deadline, Timer::Lease(id)));
        Some(lease)
    }

    /// Has a task run again, or ends it, after a run that says nothing about the action.
    /// `failed_on`: a worker that still lives, and that another one is preferred to.
    pub(super) fn run_again(
        &mut self,
        id: TaskId,
        message: String,
        failed_on: Option<WorkerId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.killed.len() >= self.limits.poison_kills as usize {
            let workers = std::mem::take(&mut task.killed);
            return self.finish(id, Ending::Poison { workers }, 0, effects);
        }
        if task.attempts > self.limits.max_retries {
            let attempts = task.attempts;
            let ending = Ending::RetriesExhausted { attempts, last: message };
            return self.finish(id, ending, 0, effects);
        }
        self.counters.retries += 1;
        let attempts = task.attempts;
        effects.push(Effect::Requeued { task: id, at_once: failed_on.is_none() });
        match failed_on {
            None => {
                task.avoid = None;
                self.enqueue(id, effects);
            }
            Some(worker) => self.put_off(id, attempts, worker),
        }
    }

    /// The task waits, the longer the more often it did, and then for some time for another
    /// worker that could run it.
    fn put_off(&mut self, id: TaskId, times: u32, avoid: WorkerId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let until = self.now + u64::from(times) * self.limits.retry_delay;
        task.avoid = Some(avoid);
        task.state = TaskState::Delayed { until };
        self.delayed += 1;
        if let Some(owner) = self.ready.owner(task.invocation) {
            self.quotas.count_queued(owner, true);
        }
        self.timers.insert((until, Timer::Retry(id)));
        if self.fleet.has_other_taker(task.lane, avoid) {
            let until = until + self.limits.elsewhere_wait;
            task.elsewhere_until = Some(until);
            self.timers.insert((until, Timer::Elsewhere(id)));
        }
    }

    /// Lets the task go to any worker from now on, also to the one that it avoided.
    pub(super) fn anywhere(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.elsewhere_until = None;
        if matches!(task.state, TaskState::Waiting { .. }) {
            let lane = task.lane;
            self.dispatch_lane(lane, effects);
        }
    }

    pub(super) fn stop_going_elsewhere(&mut self, id: TaskId) {
        let until = self.tasks.get_mut(&id).and_then(|task| task.elsewhere_until.take());
        if let Some(until) = until {
            self.timers.remove(&(until, Timer::Elsewhere(id)));
        }
    }

    pub(super) fn lease_expired(&mut self, id: LeaseId, effects: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get(&id) else { return };
        let worker = lease.worker;
        let Some(task) = lease.task else {
            effects.push(Effect::CloseWorker { worker, reason: CloseReason::DidNotCancel });
            return self.worker_lost(worker, effects);
        };
        self.counters.leases_expired += 1;
        self.revoke(id, CancelReason::LeaseExpired, effects);
        let name = self.fleet.workers.get(&worker).map(|worker| worker.name.clone());
        let name = name.as_deref().unwrap_or_default();
        let message = format!("worker {name} gave no answer before its lease ran out");
        self.run_again(task, message, Some(worker), effects);
    }

    /// Cancels a lease: its result is not wanted from here on, but its slot is still taken.
    pub(super) fn revoke(&mut self, id: LeaseId, reason: CancelReason, effects: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.task = None;
        self.timers.remove(&(lease.deadline, Timer::Lease(id)));
        lease.deadline = self.now + self.limits.cancel_timeout;
        self.timers.insert((lease.deadline, Timer::Lease(id)));
        effects.push(Effect::CancelLease { worker: lease.worker, lease: id, reason });
    }
}
