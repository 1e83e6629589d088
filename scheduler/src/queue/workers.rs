//! Workers: their sessions, what they hold, and when they are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::machine::{Machine, Timer};
use super::ready::LaneId;
use super::types::{CancelReason, CloseReason, Effect, Joined, LeaseId, WorkerId};

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
        self.fleet.worker_joins(joined, self.now, silent_at);
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

    /// Takes a stray away from its worker, with its timer. `false`: the lease was no stray.
    pub(super) fn drop_stray(&mut self, worker: WorkerId, lease: LeaseId) -> bool {
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
    pub(super) fn holds(&mut self, id: WorkerId, listed: &[LeaseId], effects: &mut Vec<Effect>) {
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
        let unserved = self.fleet.worker_pauses(worker, reason, self.now);
        self.expect_workers(&unserved);
        self.dispatch_worker(worker, effects);
    }

    pub(super) fn worker_draining(&mut self, worker: WorkerId) {
        self.seen(worker);
        let unserved = self.fleet.worker_drains(worker, self.now);
        self.expect_workers(&unserved);
    }

    pub(super) fn expect_workers(&mut self, unserved: &[LaneId]) {
        for lane in unserved {
            self.expect_worker(*lane);
        }
    }

    /// Everything that the worker ran goes back to the queue.
    pub(super) fn worker_lost(&mut self, id: WorkerId, effects: &mut Vec<Effect>) {
        self.lose_worker(id, &BTreeSet::new(), effects);
    }

    /// Ends the worker's session; what it ran goes back to the queue, but for the leases `kept`.
    fn lose_worker(&mut self, id: WorkerId, kept: &BTreeSet<LeaseId>, effects: &mut Vec<Effect>) {
        let Some((worker, unserved)) = self.fleet.worker_leaves(id, self.now) else { return };
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
}
