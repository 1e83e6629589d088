//! Workers and the leases they hold.

use super::fleet::MAX_LOOKED_AT;
use super::*;

/// Heartbeats in a row that must omit a lease before it is taken for lost: the first may
/// have crossed the lease on its way.
const MAX_OMITTED: u8 = 2;

impl Machine {
    pub(super) fn worker_joined(&mut self, joined: Joined, effects: &mut Vec<Effect>) {
        let listed = joined.leases.clone();
        let kept = self.replace(&joined, effects);
        self.counters.workers_joined += 1;
        let worker = joined.worker;
        let silent_at = self.now + self.limits.heartbeat_timeout;
        self.fleet.join(joined, self.now, silent_at);
        self.timers.insert((silent_at, Timer::Silence(worker)));
        for lease in listed {
            if kept.contains(&lease) {
                self.adopt(worker, lease, effects);
            } else {
                self.stray(worker, lease, effects);
            }
        }
        self.dispatch_worker(worker, effects);
    }

    /// Ends an earlier session of this worker. Returns the leases that go over to the new one.
    fn replace(&mut self, joined: &Joined, effects: &mut Vec<Effect>) -> BTreeSet<LeaseId> {
        let Some(old) = self.fleet.named(&joined.name) else { return BTreeSet::new() };
        let held = self.fleet.workers.get(&old).map(|worker| &worker.leases);
        let is_held = |lease: &LeaseId| held.is_some_and(|held| held.contains(lease));
        let listed: BTreeSet<_> = joined.leases.iter().copied().filter(is_held).collect();
        let kept = listed.into_iter().take(joined.slots as usize).collect();
        effects.push(Effect::CloseWorker { worker: old, reason: CloseReason::Replaced });
        self.lose_worker(old, &kept, effects);
        kept
    }

    fn adopt(&mut self, worker: WorkerId, id: LeaseId, effects: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        // Listed twice.
        if lease.worker == worker {
            return;
        }
        lease.worker = worker;
        lease.omitted = 0;
        let (task, attempt) = (lease.task, lease.attempt);
        self.fleet.occupy(worker, id);
        effects.push(Effect::Adopted { worker, lease: id, task, attempt });
        if task.is_none() {
            let reason = CancelReason::Cancelled;
            effects.push(Effect::CancelLease { worker, lease: id, reason });
        }
    }

    /// The worker holds a lease that it should not: its slot is taken until it gives that back.
    fn stray(&mut self, worker: WorkerId, lease: LeaseId, effects: &mut Vec<Effect>) {
        let deadline = self.now + self.limits.cancel_timeout;
        if self.fleet.add_stray(worker, lease, deadline) {
            self.timers.insert((deadline, Timer::Stray(worker, lease)));
            let reason = CancelReason::Unknown;
            effects.push(Effect::CancelLease { worker, lease, reason });
        }
    }

    /// `false`: it was no stray.
    fn drop_stray(&mut self, worker: WorkerId, lease: LeaseId) -> bool {
        let Some(deadline) = self.fleet.remove_stray(worker, lease) else { return false };
        self.timers.remove(&(deadline, Timer::Stray(worker, lease)))
    }

    pub(super) fn stray_expired(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        effects: &mut Vec<Effect>,
    ) {
        if self.fleet.remove_stray(worker, lease).is_some() {
            effects.push(Effect::CloseWorker { worker, reason: CloseReason::DidNotCancel });
            self.worker_lost(worker, effects);
        }
    }

    /// The worker says what it holds, and that is the truth: what it should not hold takes up
    /// slots, and what it holds no more does not.
    fn holds(&mut self, id: WorkerId, listed: &[LeaseId], effects: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.workers.get(&id) else { return };
        let listed: BTreeSet<LeaseId> = listed.iter().copied().collect();
        let gone = worker.strays.keys().filter(|lease| !listed.contains(lease));
        let gone: Vec<LeaseId> = gone.copied().collect();
        let new: Vec<LeaseId> = listed.difference(&worker.leases).copied().collect();
        for lease in gone {
            self.drop_stray(id, lease);
        }
        for lease in new {
            self.stray(id, lease, effects);
        }
    }

    pub(super) fn worker_paused(
        &mut self,
        worker: WorkerId,
        reason: Option<Arc<str>>,
        effects: &mut Vec<Effect>,
    ) {
        self.seen(worker);
        let unserved = self.fleet.pause(worker, reason, self.now);
        self.expect_workers(&unserved);
        self.dispatch_worker(worker, effects);
    }

    pub(super) fn worker_draining(&mut self, worker: WorkerId) {
        self.seen(worker);
        let unserved = self.fleet.drain(worker, self.now);
        self.expect_workers(&unserved);
    }

    fn expect_workers(&mut self, unserved: &[LaneId]) {
        for lane in unserved {
            self.expect_worker(*lane);
        }
    }

    /// Everything that the worker ran goes back to the queue.
    pub(super) fn worker_lost(&mut self, id: WorkerId, effects: &mut Vec<Effect>) {
        self.lose_worker(id, &BTreeSet::new(), effects);
    }

    /// The same, but for the leases `kept`.
    fn lose_worker(&mut self, id: WorkerId, kept: &BTreeSet<LeaseId>, effects: &mut Vec<Effect>) {
        let Some((worker, unserved)) = self.fleet.leave(id, self.now) else { return };
        if worker.leases.difference(kept).next().is_some() {
            self.counters.workers_lost += 1;
        }
        self.timers.remove(&(worker.silence_timer, Timer::Silence(id)));
        for (lease, deadline) in &worker.strays {
            self.timers.remove(&(*deadline, Timer::Stray(id, *lease)));
        }
        self.expect_workers(&unserved);
        for lease in worker.leases.difference(kept) {
            let Some(lease) = self.remove_lease(*lease) else { continue };
            let Some(task) = lease.task else { continue };
            if let Some(task) = self.tasks.get_mut(&task) {
                task.killed.push(worker.name.clone());
            }
            self.run_again(task, format!("worker {} was lost", worker.name), None, effects);
        }
    }

    pub(super) fn seen(&mut self, id: WorkerId) {
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        worker.last_seen = self.now;
    }

    /// The timer of a worker that spoke meanwhile is set anew only when it fires.
    pub(super) fn check_silence(&mut self, id: WorkerId, effects: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        let silent_at = worker.last_seen + self.limits.heartbeat_timeout;
        if silent_at > self.now {
            worker.silence_timer = silent_at;
            self.timers.insert((silent_at, Timer::Silence(id)));
            return;
        }
        effects.push(Effect::CloseWorker { worker: id, reason: CloseReason::Silent });
        self.worker_lost(id, effects);
    }

    pub(super) fn heartbeat(
        &mut self,
        id: WorkerId,
        listed: &[LeaseId],
        effects: &mut Vec<Effect>,
    ) {
        self.seen(id);
        self.holds(id, listed, effects);
        let Some(worker) = self.fleet.workers.get(&id) else { return };
        let mut lost = Vec::new();
        for lease_id in &worker.leases {
            let Some(lease) = self.leases.get_mut(lease_id) else { continue };
            if listed.contains(lease_id) {
                lease.omitted = 0;
                continue;
            }
            lease.omitted += 1;
            if lease.omitted >= MAX_OMITTED {
                lost.push(*lease_id);
            }
        }
        let name = worker.name.clone();
        for lease in lost {
            let message = format!("worker {name} does not know of its lease any more");
            self.failed(id, lease, message, effects);
        }
        self.dispatch_worker(id, effects);
    }

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
            task.state = State::Publishing;
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
    fn give_back(
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

    fn remove_lease(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.fleet.vacate(lease.worker, id);
        if let Some(lane) = self.fleet.lanes.get_mut(&lease.lane) {
            lane.running -= 1;
        }
        self.fleet.unrefer(lease.lane, self.limits.max_idle_lanes);
        if let Some(owner) = self.ready.owner(lease.invocation) {
            self.freed |= self.quotas.is_full(owner);
            self.quotas.running(owner, false);
        }
        self.ready.stopped(lease.invocation);
        self.ready.forget(lease.invocation);
        self.timers.remove(&(lease.deadline, Timer::Lease(id)));
        Some(lease)
    }

    /// After a run that says nothing about the action: again, or the end. `failed_on`: a
    /// worker that still lives, and that another one is preferred to.
    fn run_again(
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
        task.state = State::Delayed { until };
        self.delayed += 1;
        if let Some(owner) = self.ready.owner(task.invocation) {
            self.quotas.queued(owner, true);
        }
        self.timers.insert((until, Timer::Retry(id)));
        if self.fleet.has_other_taker(task.lane, avoid) {
            let until = until + self.limits.elsewhere_wait;
            task.elsewhere_until = Some(until);
            self.timers.insert((until, Timer::Elsewhere(id)));
        }
    }

    /// The task may go to any worker.
    pub(super) fn anywhere(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.elsewhere_until = None;
        if matches!(task.state, State::Waiting { .. }) {
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

    /// From here on the lease's result is not wanted; its slot is still taken.
    pub(super) fn revoke(&mut self, id: LeaseId, reason: CancelReason, effects: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.task = None;
        self.timers.remove(&(lease.deadline, Timer::Lease(id)));
        lease.deadline = self.now + self.limits.cancel_timeout;
        self.timers.insert((lease.deadline, Timer::Lease(id)));
        effects.push(Effect::CancelLease { worker: lease.worker, lease: id, reason });
    }

    /// Gives waiting tasks of the lane to free workers.
    pub(super) fn dispatch_lane(&mut self, lane: LaneId, effects: &mut Vec<Effect>) {
        // Whoever was held back, in whatever lane, has its turn in `dispatch_freed`.
        while !self.draining
            && !self.freed
            && let Some((_, task, worker)) = self.next_pair(lane)
        {
            self.assign(task, worker, effects);
        }
    }

    /// A waiting task of the lane with its turn, and the free worker that should run it.
    fn next_pair(&self, lane: LaneId) -> Option<(Turn, TaskId, WorkerId)> {
        let may_run = |owner: &Owner| !self.quotas.is_full(owner);
        for (turn, id) in self.ready.in_turn(lane, &may_run).take(MAX_LOOKED_AT) {
            let task = self.tasks.get(&id)?;
            let elsewhere = task.elsewhere_until.is_some();
            match self.fleet.free_worker(lane, task.avoid, elsewhere) {
                Some(worker) => return Some((turn, id, worker)),
                // Another task may go where this one may not.
                None if elsewhere => {}
                None => return None,
            }
        }
        None
    }

    /// Fills the free slots of the worker.
    fn dispatch_worker(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
        while !self.draining
            && let Some(task) = self.next_task(worker)
        {
            self.assign(task, worker, effects);
        }
    }

    fn next_task(&self, worker: WorkerId) -> Option<TaskId> {
        let may = |task: TaskId| {
            let task = self.tasks.get(&task);
            task.is_some_and(|task| task.elsewhere_until.is_none() || task.avoid != Some(worker))
        };
        let may_run = |owner: &Owner| !self.quotas.is_full(owner);
        self.fleet.next_task(worker, &self.ready, &may_run, may)
    }

    /// Whoever was held back by a quota, whatever its tasks require, may run more.
    pub(super) fn dispatch_freed(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.freed) {
            return;
        }
        let waiting = self.fleet.lanes.iter().filter(|(_, lane)| !lane.waiting.is_empty());
        let waiting: Vec<LaneId> = waiting.map(|(id, _)| *id).collect();
        while !self.draining
            && let pairs = waiting.iter().filter_map(|lane| self.next_pair(*lane))
            && let Some((_, task, worker)) = pairs.min()
        {
            self.assign(task, worker, effects);
        }
    }

    fn assign(&mut self, id: TaskId, worker: WorkerId, effects: &mut Vec<Effect>) {
        self.dequeue(id);
        self.stop_going_elsewhere(id);
        self.next_lease += 1;
        let lease_id = LeaseId(self.next_lease);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.attempts += 1;
        task.state = State::Leased(lease_id);
        let lease = Lease {
            task: Some(id),
            worker,
            lane: task.lane,
            invocation: task.invocation,
            deadline: self.now + task.timeout_ms + self.limits.lease_slack,
            started: self.now,
            omitted: 0,
            attempt: task.attempts,
        };
        let attempt = lease.attempt;
        self.counters.dispatched += 1;
        self.fleet.occupy(worker, lease_id);
        self.fleet.count_running(lease.lane);
        self.ready.refer_again(lease.invocation);
        if let Some(owner) = self.ready.owner(lease.invocation) {
            self.quotas.running(owner, true);
        }
        self.ready.started(lease.invocation);
        self.timers.insert((lease.deadline, Timer::Lease(lease_id)));
        self.leases.insert(lease_id, lease);
        effects.push(Effect::Assign { worker, lease: lease_id, task: id, attempt });
    }
}
