//! Hosts run leases, answer, refuse, drain, pause and crash.

use std::sync::Arc;

use kiln_scheduler::queue::platform::Offer;
use kiln_scheduler::queue::{Event, Joined, LeaseId, Millis, TaskId, WorkerId};

use super::{Deed, HEARTBEAT, Host, World, pairs};
use crate::subject::Subject;

/// Of so many tasks one outlasts every worker: each of these drains before it is done.
const OUTLASTS: u64 = 3_000;

const OFFERS: [&[(&str, &str)]; 5] = [
    &[("os", "linux"), ("cpu", "x86")],
    &[("os", "linux"), ("cpu", "arm")],
    &[("os", "mac"), ("os", "darwin")],
    &[("os", "linux"), ("cpu", "x86"), ("gpu", "*")],
    &[("*", "*")],
];

impl<S: Subject> World<S> {
    pub(super) fn join(&mut self, host: usize) {
        if self.hosts[host].session.is_some_and(|session| self.model.is_open(session)) {
            return;
        }
        self.begin_session(host, Vec::new());
    }

    /// The host's connection is cut, and it is back at once with what it still runs.
    pub(super) fn reconnect(&mut self, host: usize) {
        let Some(old) = self.hosts[host].session else { return };
        self.tick_first();
        let mut leases = self.model.leases_of(old);
        if self.rng.permille(100) {
            leases.pop();
        }
        if self.rng.permille(100) {
            leases.push(LeaseId(9_000_000_000 + self.steps));
        }
        self.begin_session(host, leases);
    }

    pub(super) fn begin_session(&mut self, host: usize, leases: Vec<LeaseId>) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        let Host { slots, offer, .. } = self.hosts[host];
        let offer = Offer::new(pairs(OFFERS[offer]));
        let front = self.some_front();
        (self.hosts[host].session, self.hosts[host].front) = (Some(worker), front);
        self.model.joined(worker, slots, offer.clone(), &leases);
        let name = Arc::from(format!("host-{host}"));
        let joined = Joined { worker, name, slots, offer, leases, paused: None };
        self.feed(front, Event::WorkerJoined(joined), None);
        self.plan(HEARTBEAT, Deed::Heartbeat(host, worker));
    }

    pub(super) fn heartbeat(&mut self, host: usize, session: WorkerId) {
        let paused_until = self.hosts[host].paused_until;
        if paused_until > self.now {
            return self.plan(paused_until - self.now + 1, Deed::Heartbeat(host, session));
        }
        if self.hosts[host].session != Some(session) {
            return;
        }
        if !self.model.is_open(session) {
            // The host sees that its session is over and begins a new one.
            return self.plan(5, Deed::Join(host));
        }
        if !self.rng.permille(30) {
            let mut leases = self.model.leases_of(session);
            if self.rng.permille(10) {
                leases.pop();
            }
            let front = self.hosts[host].front;
            if let Some(away) = self.front_is_away(front) {
                return self.plan(away, Deed::Heartbeat(host, session));
            }
            if self.rng.permille(10) {
                leases.push(LeaseId(8_000_000_000 + self.steps));
            }
            self.tick_first();
            self.model.heard(session, &leases);
            self.feed(front, Event::Heartbeat { worker: session, leases }, None);
        }
        self.plan(HEARTBEAT, Deed::Heartbeat(host, session));
    }

    pub(super) fn answer(&mut self, host: usize, session: WorkerId, lease: LeaseId, good: bool) {
        let paused_until = self.hosts[host].paused_until;
        if paused_until > self.now {
            // The host is paused, so its answer comes late, perhaps under a session that is over.
            let after = paused_until - self.now;
            return self.plan(after, Deed::Answer(host, session, lease, good));
        }
        if self.rng.permille(20) {
            let after = self.rng.between(1, 8_000);
            self.plan(after, Deed::Answer(host, session, lease, good));
        }
        if let Some(away) = self.front_is_away(self.hosts[host].front) {
            return self.plan(away, Deed::Answer(host, session, lease, good));
        }
        self.tick_first();
        // The host gives the lease back in the session that it has now.
        let session = match self.hosts[host].session {
            Some(now) if self.model.holds(now, lease) => now,
            _ => session,
        };
        self.model.gave_back(session, lease);
        let front = self.hosts[host].front;
        let event = if good {
            Event::Completed { worker: session, lease }
        } else {
            Event::Failed { worker: session, lease, message: "it broke".to_owned() }
        };
        self.feed(front, event, None);
    }

    pub(super) fn give_back(&mut self, host: usize, session: WorkerId, lease: LeaseId) {
        let front = self.hosts[host].front;
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::Return(host, session, lease));
        }
        self.tick_first();
        self.model.returned(session, lease);
        let message = "it drains".to_owned();
        self.feed(front, Event::Returned { worker: session, lease, message }, None);
    }

    pub(super) fn refuse(&mut self, host: usize, session: WorkerId, lease: LeaseId) {
        let front = self.hosts[host].front;
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::Refuse(host, session, lease));
        }
        self.tick_first();
        self.model.refused(session, lease);
        let mut holds = self.model.leases_of(session);
        holds.extend(self.rng.permille(500).then_some(LeaseId(7_000_000_000 + self.steps)));
        self.model.listed(session, &holds);
        let message = "it has no room".to_owned();
        self.feed(front, Event::Refused { worker: session, lease, message, holds }, None);
    }

    pub(super) fn pause(&mut self, host: usize, worker: WorkerId, paused: bool) {
        self.tick_first();
        self.model.paused(worker, paused);
        let front = self.there_or_some(host);
        let reason = paused.then(|| "it is sick".into());
        self.feed(front, Event::WorkerPaused { worker, reason }, None);
        if paused {
            // The pause is long enough for some tasks to give up.
            let after = self.rng.between(100, 6_000);
            self.plan(after, Deed::Pause(host, worker, false));
        }
    }

    pub(super) fn drain(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session else { return };
        self.tick_first();
        self.model.draining(session);
        let front = self.there_or_some(host);
        self.feed(front, Event::WorkerDraining { worker: session }, None);
        for lease in self.model.leases_of(session) {
            // A draining host has no time to give all of its leases back.
            if self.rng.permille(700) {
                let after = self.rng.between(1, 800);
                self.plan(after, Deed::Return(host, session, lease));
            }
        }
        // When it is done it goes, and comes back.
        self.plan(4_000, Deed::Heartbeat(host, session));
        let leave = self.rng.between(3_000, 6_000);
        self.pause_until(host, self.now + leave);
    }

    pub(super) fn pause_until(&mut self, host: usize, until: Millis) {
        let host = &mut self.hosts[host];
        host.paused_until = host.paused_until.max(until);
    }

    pub(super) fn crash(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session.take() else { return };
        self.tick_first();
        let back = self.rng.between(10, 5_000);
        self.plan(back, Deed::Join(host));
        let front = self.there_or_some(host);
        self.feed(front, Event::WorkerLeft { worker: session }, None);
    }

    /// The frontend of the host's session or, where that is away, whoever hears of it first.
    pub(super) fn there_or_some(&mut self, host: usize) -> usize {
        let front = self.hosts[host].front;
        if self.front_is_away(front).is_some() { self.some_front() } else { front }
    }

    pub(super) fn host_of(&self, worker: WorkerId) -> Option<usize> {
        self.hosts.iter().position(|host| host.session == Some(worker))
    }

    pub(super) fn run_lease(&mut self, worker: WorkerId, lease: LeaseId, task: TaskId) {
        let Some(host) = self.host_of(worker) else { return };
        if self.poisonous.contains_key(&task) {
            // The session breaks soon: silence until the heartbeat timeout, then a new one.
            self.hosts[host].session = None;
            let back = self.rng.between(3_500, 6_000);
            return self.plan(back, Deed::Join(host));
        }
        if task.0.is_multiple_of(OUTLASTS) {
            self.plan(1, Deed::Drain(host));
            return self.plan(5, Deed::Return(host, worker, lease));
        }
        let good = !self.rng.permille(15);
        if self.rng.permille(5) {
            // The host hangs, so its lease runs out.
            return self.plan(100, Deed::Progress(worker, lease));
        }
        let after = self.rng.between(5, 1_500);
        if self.rng.permille(10) {
            return self.plan(after, Deed::Refuse(host, worker, lease));
        }
        if self.rng.permille(3) {
            // The host gives the lease back because it drains, but has not told the queue so before.
            return self.plan(after, Deed::Return(host, worker, lease));
        }
        self.plan(after, Deed::Answer(host, worker, lease, good));
    }
}
