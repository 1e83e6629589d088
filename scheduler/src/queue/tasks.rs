//! Life of a task but for its leases and waiters: how it comes, waits and ends.

use super::limits::Refusal;
use super::machine::{Finished, Machine, Task, TaskState, Timer};
use super::quotas::Owner;
use super::ready::{LaneId, Place, UNKNOWN_EXPECTED_MS};
use super::types::{CancelReason, Effect, Ending, OperationId, Submit, TaskId};

/// Tasks that fail in one turn because no worker came; the others follow in the next.
const MAX_UNSATISFIABLE_AT_ONCE: usize = 1_000;

impl Machine {
    pub(super) fn submit(&mut self, submit: Submit, effects: &mut Vec<Effect>) {
        if self.draining {
            return self.refuse(Refusal::Draining, effects);
        }
        if let Some(task) = self.joinable(&submit) {
            return self.merge(task, &submit, effects);
        }
        let queued = self.waiting.len() + self.delayed;
        if queued >= self.limits.max_queued {
            return self.refuse(Refusal::QueueFull { limit: self.limits.max_queued }, effects);
        }
        let owner = Owner { instance: submit.key.instance.clone(), caller: submit.caller.clone() };
        if let Some(refusal) = self.quotas.refuses(&owner) {
            return self.refuse(refusal, effects);
        }
        self.counters.submitted += 1;
        self.next_task += 1;
        let id = TaskId(self.next_task);
        let task = Task {
            lane: self.fleet.lanes.refer_lane(&submit.requirement, self.now),
            invocation: self.ready.refer_invocation(&submit.invocation, &owner),
            key: submit.key,
            priority: submit.priority,
            expected_ms: submit.expected_ms.unwrap_or(UNKNOWN_EXPECTED_MS),
            timeout_ms: submit.timeout_ms,
            mergeable: !submit.do_not_cache,
            skips_cache: submit.skip_cache_lookup,
            cancelled: vec![false],
            waiting_for: vec![1],
            waiters: 1,
            state: TaskState::Waiting { since: self.now },
            attempts: 0,
            returns: 0,
            killed: Vec::new(),
            avoid: submit.avoid.as_ref().and_then(|name| self.fleet.named(name)),
            elsewhere_until: None,
            abandon_at: None,
        };
        if task.mergeable && !self.by_key.contains_key(&task.key) {
            self.by_key.insert(task.key.clone(), id);
        }
        self.tasks.insert(id, task);
        effects.push(Effect::Accepted { id: OperationId { task: id, request: 0 }, merged: false });
        self.enqueue(id, effects);
    }

    /// A task in flight that may answer this request as well.
    fn joinable(&self, submit: &Submit) -> Option<TaskId> {
        if submit.do_not_cache {
            return None;
        }
        let id = *self.by_key.get(&submit.key)?;
        let task = self.tasks.get(&id)?;
        let room = task.cancelled.len() < self.limits.max_requests_per_task;
        (room && !(task.skips_cache && submit.skip_cache_lookup)).then_some(id)
    }

    fn refuse(&mut self, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.counters.refused += 1;
        effects.push(Effect::Refused(refusal));
    }

    fn merge(&mut self, id: TaskId, submit: &Submit, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        self.counters.merged += 1;
        let request = task.cancelled.len() as u32;
        task.cancelled.push(false);
        task.waiting_for.push(1);
        task.waiters += 1;
        task.skips_cache |= submit.skip_cache_lookup;
        effects.push(Effect::Accepted { id: OperationId { task: id, request }, merged: true });
        if submit.priority < task.priority {
            let before = task.place();
            task.priority = submit.priority;
            if matches!(task.state, TaskState::Waiting { .. }) {
                let after = task.place();
                self.ready.remove(id, before);
                self.ready.push(id, after);
            }
        }
        self.stop_abandoning(id);
    }

    /// Waits for a worker from now on, or is given to one at once.
    pub(super) fn enqueue(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.state = TaskState::Waiting { since: self.now };
        let (lane, place) = (task.lane, task.place());
        if let Some(owner) = self.ready.owner(place.invocation) {
            self.quotas.count_queued(owner, true);
        }
        self.waiting.insert((self.now, id));
        self.ready.push(id, place);
        self.fleet.lanes.set_waiting(lane, self.now, id, true);
        if self.fleet.lanes.is_served(lane) {
            self.dispatch_lane(lane, effects);
        } else {
            self.expect_worker(lane);
        }
    }

    /// Takes a task out of the waiting ones.
    pub(super) fn dequeue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let TaskState::Waiting { since } = task.state else { return };
        self.waiting.remove(&(since, id));
        self.ready.remove(id, task.place());
        if let Some(owner) = self.ready.owner(task.invocation) {
            self.quotas.count_queued(owner, false);
        }
        let lane = task.lane;
        self.fleet.lanes.set_waiting(lane, since, id, false);
        if self.fleet.lanes.all.get(&lane).is_some_and(|lane| lane.waiting.is_empty()) {
            self.expect_no_worker(lane);
        }
    }

    fn expect_no_worker(&mut self, id: LaneId) {
        let Some(lane) = self.fleet.lanes.all.get_mut(&id) else { return };
        if let Some(at) = lane.unsatisfiable_at.take() {
            self.timers.remove(&(at, Timer::Unsatisfiable(id)));
        }
    }

    /// Sets the timer of a lane that no worker serves: its tasks fail unless a worker comes in
    /// time.
    pub(super) fn expect_worker(&mut self, id: LaneId) {
        self.expect_no_worker(id);
        let grace = self.limits.unsatisfiable_grace;
        let Some(lane) = self.fleet.lanes.all.get_mut(&id) else { return };
        let Some((since, _)) = lane.waiting.first() else { return };
        // Not now: what is due already was left for another turn.
        let at = (lane.unserved_since.max(*since) + grace).max(self.now + 1);
        lane.unsatisfiable_at = Some(at);
        self.timers.insert((at, Timer::Unsatisfiable(id)));
    }

    pub(super) fn check_unsatisfiable(&mut self, id: LaneId, effects: &mut Vec<Effect>) {
        let Some(lane) = self.fleet.lanes.all.get_mut(&id) else { return };
        lane.unsatisfiable_at = None;
        if self.fleet.lanes.is_served(id) {
            return;
        }
        let ending = match self.fleet.paused(id) {
            Some(reasons) => Ending::WorkersPaused(reasons),
            None => Ending::Unsatisfiable(self.fleet.lanes.explain(id)),
        };
        for _ in 0..MAX_UNSATISFIABLE_AT_ONCE {
            let Some(task) = self.waits_in_vain(id) else { break };
            self.finish(task, ending.clone(), 0, effects);
        }
        self.expect_worker(id);
    }

    /// The task of the lane that has waited for a worker for longest, if for too long.
    fn waits_in_vain(&self, id: LaneId) -> Option<TaskId> {
        let lane = self.fleet.lanes.all.get(&id)?;
        let (since, task) = lane.waiting.first()?;
        let due = lane.unserved_since.max(*since) + self.limits.unsatisfiable_grace;
        (due <= self.now).then_some(*task)
    }

    /// Ends a task before it has an answer. A lease keeps its slot until it is given back.
    pub(super) fn stop(
        &mut self,
        id: TaskId,
        ending: Ending,
        reason: CancelReason,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(TaskState::Leased(lease)) = self.tasks.get(&id).map(|task| task.state) {
            self.revoke(lease, reason, effects);
        }
        self.finish(id, ending, 0, effects);
    }

    pub(super) fn retry(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let task =
            self.tasks.get(&id).filter(|task| matches!(task.state, TaskState::Delayed { .. }));
        let Some(invocation) = task.map(|task| task.invocation) else { return };
        self.delayed -= 1;
        if let Some(owner) = self.ready.owner(invocation) {
            self.quotas.count_queued(owner, false);
        }
        self.enqueue(id, effects);
    }

    pub(super) fn published(&mut self, id: TaskId, bytes: usize, effects: &mut Vec<Effect>) {
        if self.tasks.get(&id).is_some_and(|task| task.state == TaskState::Publishing) {
            self.finish(id, Ending::Published, bytes, effects);
        }
    }

    pub(super) fn finish(
        &mut self,
        id: TaskId,
        ending: Ending,
        bytes: usize,
        effects: &mut Vec<Effect>,
    ) {
        self.dequeue(id);
        self.stop_abandoning(id);
        self.stop_going_elsewhere(id);
        let Some(task) = self.tasks.remove(&id) else { return };
        match task.state {
            TaskState::Publishing => self.publishing -= 1,
            TaskState::Delayed { until } => {
                self.delayed -= 1;
                if let Some(owner) = self.ready.owner(task.invocation) {
                    self.quotas.count_queued(owner, false);
                }
                self.timers.remove(&(until, Timer::Retry(id)));
            }
            TaskState::Waiting { .. } | TaskState::Leased(_) => {}
        }
        if self.by_key.get(&task.key) == Some(&id) {
            self.by_key.remove(&task.key);
        }
        self.ready.forget_invocation(task.invocation);
        self.fleet.lanes.unrefer_lane(task.lane, self.limits.max_idle_lanes);
        self.count(&ending);
        effects.push(Effect::Finished { task: id, ending });
        self.keep(id, bytes, effects);
    }

    fn count(&mut self, ending: &Ending) {
        let counters = &mut self.counters;
        *match ending {
            Ending::Published => &mut counters.published,
            Ending::Cancelled => &mut counters.cancelled,
            Ending::NobodyWaits => &mut counters.abandoned,
            Ending::Unsatisfiable(_) | Ending::WorkersPaused(_) => &mut counters.unsatisfiable,
            Ending::RetriesExhausted { .. } => &mut counters.retries_exhausted,
            Ending::Poison { .. } => &mut counters.poisoned,
        } += 1;
    }

    fn keep(&mut self, task: TaskId, bytes: usize, effects: &mut Vec<Effect>) {
        if self.finished.is_empty() {
            self.timers.insert((self.now + self.limits.completed_ttl, Timer::Forget));
        }
        self.finished.push_back(Finished { task, at: self.now, bytes });
        self.finished_bytes += bytes;
        while self.finished.len() > self.limits.max_completed
            || self.finished_bytes > self.limits.max_completed_bytes && self.finished.len() > 1
        {
            self.forget_first(effects);
        }
    }

    fn forget_first(&mut self, effects: &mut Vec<Effect>) {
        if let Some(finished) = self.finished.pop_front() {
            self.finished_bytes -= finished.bytes;
            effects.push(Effect::Forgotten { task: finished.task });
        }
    }

    /// Forgets finished tasks whose time is over, and sets the one timer for the oldest of the
    /// others.
    pub(super) fn forget_finished(&mut self, effects: &mut Vec<Effect>) {
        let ttl = self.limits.completed_ttl;
        while self.finished.front().is_some_and(|finished| finished.at + ttl <= self.now) {
            self.forget_first(effects);
        }
        if let Some(first) = self.finished.front() {
            self.timers.insert((first.at + ttl, Timer::Forget));
        }
    }
}

impl Task {
    pub(super) fn place(&self) -> Place {
        Place {
            lane: self.lane,
            priority: self.priority,
            invocation: self.invocation,
            expected_ms: self.expected_ms,
        }
    }
}
