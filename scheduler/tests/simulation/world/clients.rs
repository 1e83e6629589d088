//! Clients submit actions, wait for them, leave, give up and come back.

use std::sync::Arc;

use kiln_cas::{ActionKey, Digest, DigestFunction};
use kiln_scheduler::queue::platform::Requirement;
use kiln_scheduler::queue::{Event, OperationId, Submit};

use super::{Deed, World, pairs};
use crate::rng::Rng;
use crate::subject::Subject;

const INVOCATIONS: u64 = 24;

const REQUIREMENTS: [&[(&str, &str)]; 6] = [
    &[],
    &[("os", "linux")],
    &[("os", "linux"), ("cpu", "arm")],
    &[("os", "mac")],
    &[("gpu", "1")],
    &[("os", "windows")],
];

impl<S: Subject> World<S> {
    pub(super) fn client_leaves(&mut self, id: OperationId) {
        let Some(front) = self.client_at(id) else { return };
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::ClientLeaves(id));
        }
        self.client_goes(id);
        if let Some(task) = self.model.tasks.get_mut(&id.task) {
            task.waiters -= 1;
            self.feed(front, Event::Detach(id), None);
            if self.rng.permille(300) {
                self.plan(1_000, Deed::ClientReturns(id));
            }
        }
    }

    pub(super) fn client_gives_up(&mut self, id: OperationId) {
        let Some(front) = self.client_at(id) else { return };
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::ClientGivesUp(id));
        }
        self.client_goes(id);
        if let Some(task) = self.model.tasks.get_mut(&id.task) {
            task.waiters -= 1;
            // The queue hears only later that a lost frontend's clients are gone.
            let alone = self.fronts.is_empty() && task.waiters == 0 && !task.is_publishing();
            self.feed(front, Event::GaveUp(id), None);
            assert!(
                !alone || !self.model.tasks.contains_key(&id.task),
                "{id:?} goes on for nobody"
            );
        }
    }

    pub(super) fn client_returns(&mut self, id: OperationId) {
        if let Some(task) = self.model.tasks.get_mut(&id.task) {
            task.waiters += 1;
            let front = self.some_front();
            self.client_comes(id, front);
            self.feed(front, Event::Attach(id), None);
        }
    }

    pub(super) fn submit_some(&mut self) {
        for _ in 0..self.rng.between(1, 60) {
            if self.submitted < self.total {
                self.submitted += 1;
                self.submit();
            }
        }
        if self.submitted < self.total {
            // Bursts and lulls.
            let pause = if self.rng.permille(4) { 1_500 } else { self.rng.between(1, 25) };
            self.plan(pause, Deed::SubmitSome);
        }
    }

    pub(super) fn submit(&mut self) {
        let repeat = !self.recent.is_empty() && self.rng.permille(100);
        let key = if repeat {
            self.recent[self.rng.below(self.recent.len() as u64) as usize].clone()
        } else {
            let data = self.submitted.to_le_bytes();
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&data);
            let action = Digest { hash, size: 8, function: DigestFunction::Sha256 };
            ActionKey { instance: "main".into(), action }
        };
        // Same action, same facts.
        let mut facts = Rng::new(u64::from_le_bytes(key.action.hash[..8].try_into().unwrap()));
        let requirement = if facts.permille(3) { 5 } else { facts.below(5) as usize };
        let do_not_cache = facts.permille(50);
        if self.recent.len() >= 64 {
            self.recent.remove(0);
        }
        self.recent.push(key.clone());
        let priority = [0, 0, 0, -1, 1][self.rng.below(5) as usize];
        let invocation = self.rng.below(INVOCATIONS);
        let submit = Submit {
            key,
            requirement: Requirement::new(pairs(REQUIREMENTS[requirement])),
            priority,
            invocation: Arc::from(format!("build-{invocation}")),
            // A few callers run into their quota, the others are nobody in particular.
            caller: invocation
                .is_multiple_of(6)
                .then(|| Arc::from(format!("user-{}", invocation / 12))),
            expected_ms: self.rng.permille(800).then(|| self.rng.below(3_000)),
            timeout_ms: 3_000,
            do_not_cache,
            skip_cache_lookup: self.rng.permille(100),
            avoid: self
                .rng
                .permille(100)
                .then(|| Arc::from(format!("host-{}", self.rng.below(self.hosts.len() as u64)))),
        };
        let front = self.some_front();
        self.feed(front, Event::Submit(Box::new(submit.clone())), Some(submit));
    }

    pub(super) fn plan_client(&mut self, id: OperationId) {
        if self.rng.permille(40) {
            let after = self.rng.between(1, 3_000);
            self.plan(after, Deed::ClientLeaves(id));
        } else if self.rng.permille(30) {
            let after = self.rng.between(1, 3_000);
            self.plan(after, Deed::ClientGivesUp(id));
        }
        if self.rng.permille(10) {
            let after = self.rng.between(1, 1_000);
            self.plan(after, Deed::ClientCancels(id));
        }
        if id.request == 0 && self.rng.below(2_000) == 0 {
            self.poisonous.insert(id.task, true);
        }
    }
}
