//! What outlives the process that has it in mind: open failures, and what happened together.

use std::time::Duration;

use super::case::{Case, Key};
use super::rerun::Limits;
use super::{Hold, Rerun, RerunId, Shadows};
use crate::flakes::{Identity, Verdict};
use crate::model::{Outcome, Subject, Time};

impl Shadows {
    /// Goes on with what another process had in mind. What it had running is not running any more.
    pub fn resume(&mut self, day: u64, spent: Duration, holds: Vec<Hold>) {
        self.day = day;
        self.spent = spent;
        let idle = |it: Hold| (it.event, Hold { running: false, ..it });
        self.holds = holds.into_iter().map(idle).collect();
    }

    pub fn restore(&mut self, mut case: Case) {
        let key = (case.fresh.subject.clone(), case.fresh.identity);
        case.running = false;
        self.open.insert(key, case);
    }

    pub fn case(&self, subject: &Subject, identity: Identity) -> Option<&Case> {
        self.open.get(&(subject.clone(), identity))
    }

    pub fn holds(&self) -> Vec<Hold> {
        self.holds.values().cloned().collect()
    }

    /// The day for which something is spent, and how much.
    pub fn spending(&self) -> (u64, Duration) {
        (self.day, self.spent)
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What a run is for that goes on.
    pub fn running(&self, id: RerunId) -> Option<Rerun> {
        self.running.get(&id).map(|it| it.rerun.clone())
    }

    /// A run for another failure with the same inputs showed this as well.
    pub fn shown(&mut self, subject: &Subject, identity: Identity, outcome: Outcome, now: Time) {
        let again = now.plus(self.limits.pause);
        if let Some(case) = self.open.get_mut(&(subject.clone(), identity)) {
            let running = case.running;
            case.ended(&self.prior, super::Purpose::Decide, outcome, again);
            case.running = running;
        }
    }

    /// Gives up a case whose subject cannot be run again: nothing more will be tried.
    pub fn give_up(&mut self, subject: &Subject, identity: Identity) {
        if let Some(case) = self.open.get_mut(&(subject.clone(), identity)) {
            case.runs = self.limits.per_failure;
            case.running = false;
        }
    }

    /// Forgets a failure, so that the next one like it is looked at afresh.
    pub fn close(&mut self, subject: &Subject, identity: Identity) {
        let key: Key = (subject.clone(), identity);
        if self.open.get(&key).is_some_and(|it| !it.running) {
            self.open.remove(&key);
        }
    }

    /// Whether anything runs, or might be run.
    pub fn has_work(&self) -> bool {
        let most = self.limits.per_failure;
        let open = |it: &Case| it.judgement().verdict == Verdict::Undecided && it.runs < most;
        !self.running.is_empty()
            || !self.holds.is_empty()
            || !self.probes.is_empty()
            || self.open.values().any(open)
    }
}
