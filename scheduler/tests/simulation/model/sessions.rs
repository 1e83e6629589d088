//! Sessions of workers, and what they hold.

use kiln_scheduler::queue::platform::Offer;
use kiln_scheduler::queue::{LeaseId, WorkerId};

use super::{Model, Session};

impl Model {
    pub fn joined(&mut self, worker: WorkerId, slots: u32, offer: Offer, leases: &[LeaseId]) {
        self.listed = leases.iter().copied().collect();
        let (leases, strays) = Default::default();
        let session = Session { slots, offer, draining: false, paused: false, leases, strays };
        assert!(self.sessions.insert(worker, session).is_none());
    }

    pub fn holds(&self, worker: WorkerId, lease: LeaseId) -> bool {
        self.sessions.get(&worker).is_some_and(|session| session.leases.contains(&lease))
    }

    /// A lease goes over to another session of its host. Call before anything else is looked at.
    pub fn moved(&mut self, lease: LeaseId, worker: WorkerId) {
        let held = self.leases.get_mut(&lease).expect("only held leases are adopted");
        held.omitted = 0;
        let old = std::mem::replace(&mut held.worker, worker);
        assert!(self.listed.contains(&lease), "a lease was adopted that nobody listed");
        self.sessions.get_mut(&old).expect("its session was open").leases.remove(&lease);
        self.sessions.get_mut(&worker).expect("it has just joined").leases.insert(lease);
        self.adopted += 1;
    }

    pub fn is_open(&self, worker: WorkerId) -> bool {
        self.sessions.contains_key(&worker)
    }

    pub fn leases_of(&self, worker: WorkerId) -> Vec<LeaseId> {
        let session = self.sessions.get(&worker);
        session.map(|session| session.leases.iter().copied().collect()).unwrap_or_default()
    }

    /// The worker says what it holds.
    pub fn listed(&mut self, worker: WorkerId, leases: &[LeaseId]) {
        self.listed = leases.iter().copied().collect();
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.strays.retain(|lease| self.listed.contains(lease));
        }
    }

    /// A heartbeat: what it leaves out for the second time is lost, before anything else goes on. Call before its
    /// effects are looked at.
    pub fn heard(&mut self, worker: WorkerId, leases: &[LeaseId]) {
        self.listed(worker, leases);
        for id in self.leases_of(worker) {
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            lease.omitted = if self.listed.contains(&id) { 0 } else { lease.omitted + 1 };
            if lease.omitted >= 2 {
                self.release(id);
            }
        }
    }

    pub fn paused(&mut self, worker: WorkerId, paused: bool) {
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.paused = paused;
        }
    }

    pub fn draining(&mut self, worker: WorkerId) {
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.draining = true;
        }
    }

    /// The worker gives a lease back, whatever it has to say with it.
    pub fn gave_back(&mut self, worker: WorkerId, lease: LeaseId) {
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.strays.remove(&lease);
        }
        if self.leases.get(&lease).is_some_and(|held| held.worker == worker) {
            self.release(lease);
        }
    }

    /// The worker gives a lease back because it drains: that was no run.
    pub fn returned(&mut self, worker: WorkerId, lease: LeaseId) {
        let drains = self.sessions.get(&worker).is_some_and(|session| session.draining);
        self.was_no_run(worker, lease, drains);
    }

    /// The worker has no room for a lease: that was no run.
    pub fn refused(&mut self, worker: WorkerId, lease: LeaseId) {
        let held = self.leases.get(&lease);
        let known = held.is_some_and(|held| held.worker == worker && !held.revoked);
        self.refused += u64::from(known);
        self.was_no_run(worker, lease, true);
    }

    fn was_no_run(&mut self, worker: WorkerId, lease: LeaseId, believed: bool) {
        let held = self.leases.get(&lease).filter(|held| held.worker == worker && !held.revoked);
        if believed
            && let Some(held) = held
            && let Some(task) = self.tasks.get_mut(&held.task)
        {
            if task.returns < self.limits.max_returns {
                task.returns += 1;
                task.runs -= 1;
                self.returned += 1;
            } else {
                self.returned_too_often += 1;
            }
        }
        self.gave_back(worker, lease);
    }

    /// The worker is gone. Call before its effects are looked at.
    pub fn gone(&mut self, worker: WorkerId) {
        let Some(session) = self.sessions.remove(&worker) else { return };
        for lease in session.leases {
            let held = self.leases[&lease];
            if !held.revoked
                && let Some(task) = self.tasks.get_mut(&held.task)
            {
                task.kills += 1;
            }
            self.forget_lease(lease);
        }
    }

    pub(super) fn release(&mut self, lease: LeaseId) {
        let worker = self.leases[&lease].worker;
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.leases.remove(&lease);
        }
        self.forget_lease(lease);
    }

    pub(super) fn forget_lease(&mut self, id: LeaseId) {
        let lease = self.leases.remove(&id).expect("only leases that are held are released");
        if let Some(invocation) = self.invocation_of.get_mut(&lease.task) {
            let name = invocation.0.clone();
            invocation.1 -= 1;
            if invocation.1 == 0 && !self.tasks.contains_key(&lease.task) {
                self.invocation_of.remove(&lease.task);
            }
            *self.running.get_mut(&name).expect("it ran") -= 1;
            if let Some(caller) = self.callers.get(&name) {
                *self.caller_running.get_mut(caller).expect("it ran") -= 1;
            }
        }
        if !lease.revoked
            && let Some(task) = self.tasks.get_mut(&lease.task)
        {
            task.lease = None;
        }
    }
}
