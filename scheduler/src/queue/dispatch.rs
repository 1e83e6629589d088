//! Which task goes to which worker.

use super::fleet::MAX_LOOKED_AT;
use super::machine::{Lease, Machine, TaskState, Timer};
use super::quotas::Owner;
use super::ready::{LaneId, Turn};
use super::types::{Effect, LeaseId, TaskId, WorkerId};

impl Machine {
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
    pub(super) fn dispatch_worker(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
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

    /// Leases more tasks after slots of a quota came free: whoever was held back by it, whatever
    /// its tasks require, may run more.
    pub(super) fn dispatch_freed(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.freed) {
            return;
        }
        let waiting = self.fleet.lanes.all.iter().filter(|(_, lane)| !lane.waiting.is_empty());
        let waiting: Vec<LaneId> = waiting.map(|(id, _)| *id).collect();
        while !self.draining
            && let pairs = waiting.iter().filter_map(|lane| self.next_pair(*lane))
            && let Some((_, task, worker)) = pairs.min()
        {
            self.assign(task, worker, effects);
        }
    }

    pub(super) fn assign(&mut self, id: TaskId, worker: WorkerId, effects: &mut Vec<Effect>) {
        self.dequeue(id);
        self.stop_going_elsewhere(id);
        self.next_lease += 1;
        let lease_id = LeaseId(self.next_lease);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.attempts += 1;
        task.state = TaskState::Leased(lease_id);
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
        self.fleet.lanes.refer_lane_again(lease.lane);
        if let Some(lane) = self.fleet.lanes.all.get_mut(&lease.lane) {
            lane.running += 1;
        }
        self.ready.refer_invocation_again(lease.invocation);
        if let Some(owner) = self.ready.owner(lease.invocation) {
            self.quotas.count_running(owner, true);
        }
        self.ready.started(lease.invocation);
        self.timers.insert((lease.deadline, Timer::Lease(lease_id)));
        self.leases.insert(lease_id, lease);
        effects.push(Effect::Assign { worker, lease: lease_id, task: id, attempt });
    }
}
