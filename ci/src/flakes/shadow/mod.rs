//! Decides which failure is run again next, on workers that have nothing else to do.
//!
//! Shadow runs only ever take idle slots, and give them back when real work waits. A run is worth the chance
//! that it decides a case, per second of its time. Nothing is held to be broken before a control has passed:
//! the same test with inputs with which it passed before. Where the control fails too, the surroundings are at
//! fault, not the change. When many fail at once, one control for all goes before everything else.

mod case;
mod kept;
mod rerun;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::case::Case;
use self::case::{Key, Running};
pub use self::rerun::{Fresh, Limits, Purpose, Rerun, RerunId};
use super::{Identity, Judgement, Prior, Tries, Verdict};
use crate::model::{Outcome, Subject, Time};

/// Failures that happened together wait until a control has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    event: u64,
    controls: VecDeque<Key>,
    not_before: Time,
    running: bool,
}

/// The failures that nobody has explained yet, and the shadow runs that are to explain them.
#[derive(Clone, Debug, Default)]
pub struct Shadows {
    limits: Limits,
    prior: Prior,
    open: BTreeMap<Key, Case>,
    holds: BTreeMap<u64, Hold>,
    running: BTreeMap<RerunId, Running>,
    probes: VecDeque<(Subject, Identity, Duration)>,
    next: u64,
    day: u64,
    spent: Duration,
}

impl Shadows {
    pub fn new(limits: Limits, prior: Prior) -> Self {
        Self { limits, prior, ..Self::default() }
    }

    /// A failure of real work. It says one more thing about a failure that is known already.
    pub fn failed(&mut self, fresh: Fresh) {
        let key = (fresh.subject.clone(), fresh.identity);
        if let Some(open) = self.open.get_mut(&key) {
            open.failed(&self.prior);
            return;
        }
        if self.open.len() >= self.limits.open {
            let oldest =
                self.open.iter().filter(|(_, it)| !it.running).min_by_key(|(_, it)| it.fresh.at);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.open.remove(&key);
            }
        }
        self.open.insert(key, Case::new(&self.prior, fresh));
    }

    /// A pass of real work, such as a retry by the client.
    pub fn passed(&mut self, subject: &Subject, identity: Identity) {
        if let Some(open) = self.open.get_mut(&(subject.clone(), identity)) {
            open.passed(&self.prior);
        }
    }

    /// Says how many gates wait for a verdict.
    pub fn wanted(&mut self, subject: &Subject, identity: Identity, waiting: u32) {
        if let Some(open) = self.open.get_mut(&(subject.clone(), identity)) {
            open.waiting = waiting;
        }
    }

    /// Notes that these failed together. What they show counts as one failure until one of the `controls`, which passed
    /// before with other inputs, has passed again.
    pub fn together(&mut self, event: u64, members: &[Key], controls: Vec<Key>) {
        if controls.is_empty() || self.holds.contains_key(&event) {
            return;
        }
        for key in members {
            if let Some(open) = self.open.get_mut(key) {
                open.hold(&self.prior, event);
            }
        }
        let controls = controls.into();
        let hold = Hold { event, controls, not_before: Time(0), running: false };
        self.holds.insert(event, hold);
    }

    /// A quarantined test that has had no run for long: it is run when nothing else is to be done.
    pub fn probe(&mut self, subject: Subject, identity: Identity, expected: Duration) {
        let known = self.probes.iter().any(|it| it.0 == subject);
        if !known && self.probes.len() < self.limits.open {
            self.probes.push_back((subject, identity, expected));
        }
    }

    /// What was spent on another day does not count.
    pub fn turn(&mut self, now: Time) {
        if self.day != now.day() {
            self.day = now.day();
            self.spent = Duration::ZERO;
        }
    }

    /// What is to be run now that so many slots have nothing to do.
    pub fn next(&mut self, now: Time, idle: usize) -> Vec<Rerun> {
        self.turn(now);
        let room = self.limits.at_once.saturating_sub(self.running.len());
        let slots = idle.saturating_sub(self.limits.reserve).min(room);
        let mut reruns = Vec::new();
        for candidate in self.candidates(now, slots) {
            if reruns.len() == slots || self.spent >= self.limits.per_day {
                break;
            }
            // What runs with these inputs says the same of whoever else waits for them.
            if !self.runs_already(&candidate.rerun) {
                reruns.push(self.start(candidate));
            }
        }
        reruns
    }

    fn runs_already(&self, rerun: &Rerun) -> bool {
        let mut running = self.running.values().map(|it| &it.rerun);
        running.any(|it| it.identity == rerun.identity && it.subject.test == rerun.subject.test)
    }

    fn candidates(&mut self, now: Time, slots: usize) -> Vec<Running> {
        if slots == 0 {
            return Vec::new();
        }
        let mut found = self.controls(now);
        let due = |it: &Case| it.candidate(&self.prior, self.limits.per_failure, now);
        let mut cases: Vec<_> = self.open.values().filter_map(due).collect();
        cases.sort_by(|one, other| other.value.total_cmp(&one.value));
        found.extend(cases);
        let missing = slots.saturating_sub(found.len()).min(self.probes.len());
        for (subject, identity, expected) in self.probes.drain(..missing) {
            let rerun =
                Rerun { id: RerunId(0), subject, identity, purpose: Purpose::Probe, avoid: None };
            found.push(Running { rerun, case: None, hold: None, expected, value: 0.0 });
        }
        found
    }

    fn controls(&self, now: Time) -> Vec<Running> {
        let due = self.holds.iter().filter(|(_, it)| !it.running && it.not_before <= now);
        let control = |(id, hold): (&u64, &Hold)| {
            let (subject, identity) = hold.controls.front()?.clone();
            let rerun =
                Rerun { id: RerunId(0), subject, identity, purpose: Purpose::Control, avoid: None };
            Some(Running {
                rerun,
                case: None,
                hold: Some(*id),
                expected: Duration::ZERO,
                value: f64::INFINITY,
            })
        };
        due.filter_map(control).collect()
    }

    fn start(&mut self, mut running: Running) -> Rerun {
        let id = RerunId(self.next);
        self.next += 1;
        running.rerun.id = id;
        let rerun = running.rerun.clone();
        self.spent = self.spent.saturating_add(running.expected);
        if let Some(open) = running.case.as_ref().and_then(|it| self.open.get_mut(it)) {
            open.running = true;
            open.runs += 1;
        }
        if let Some(hold) = running.hold.and_then(|it| self.holds.get_mut(&it)) {
            hold.running = true;
        }
        self.running.insert(id, running);
        rerun
    }

    /// A shadow run has ended. Answers nothing when it was not running, or not any more.
    pub fn ended(
        &mut self,
        id: RerunId,
        outcome: Outcome,
        took: Duration,
        now: Time,
    ) -> Option<Rerun> {
        let running = self.running.remove(&id)?;
        self.spent = self.spent.saturating_sub(running.expected).saturating_add(took);
        let again = now.plus(self.limits.pause);
        if let Some(open) = running.case.as_ref().and_then(|it| self.open.get_mut(it)) {
            open.ended(&self.prior, running.rerun.purpose, outcome, again);
            if open.tries.straight > 2 {
                let flaky = open.fresh.flaky;
                let pause = if flaky { self.limits.spacing } else { self.limits.quick };
                open.not_before = open.not_before.max(now.plus(pause));
            }
        }
        self.controlled(running.hold, outcome, again);
        Some(running.rerun)
    }

    fn controlled(&mut self, event: Option<u64>, outcome: Outcome, again: Time) {
        let Some(event) = event else { return };
        if outcome == Outcome::Passed {
            self.holds.remove(&event);
            for open in self.open.values_mut().filter(|it| it.hold == Some(event)) {
                open.hold = None;
            }
        } else if let Some(hold) = self.holds.get_mut(&event) {
            hold.running = false;
            hold.not_before = again;
            // Another one next time: this one may be flaky itself.
            hold.controls.rotate_left(1);
        }
    }

    /// Shadow runs that are to be stopped, the least telling first, since so many actions of real work wait for a slot.
    /// They count as not started.
    pub fn preempt(&mut self, waiting: usize) -> Vec<RerunId> {
        let mut running: Vec<_> = self.running.iter().map(|(id, it)| (it.value, *id)).collect();
        running.sort_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)));
        let stopped: Vec<_> = running.into_iter().take(waiting).map(|(_, id)| id).collect();
        for id in &stopped {
            self.stop(*id);
        }
        stopped
    }

    fn stop(&mut self, id: RerunId) {
        let Some(running) = self.running.remove(&id) else { return };
        self.spent = self.spent.saturating_sub(running.expected);
        if let Some(open) = running.case.as_ref().and_then(|it| self.open.get_mut(it)) {
            open.running = false;
            open.runs = open.runs.saturating_sub(1);
        }
        if let Some(hold) = running.hold.and_then(|it| self.holds.get_mut(&it)) {
            hold.running = false;
        }
        if running.rerun.purpose == Purpose::Probe {
            self.probe(running.rerun.subject, running.rerun.identity, running.expected);
        }
    }

    /// What came of a failure; nothing when it is not known (any more).
    pub fn judgement(&self, subject: &Subject, identity: Identity) -> Option<Judgement> {
        let open = self.open.get(&(subject.clone(), identity))?;
        Some(open.judgement())
    }

    pub fn tries(&self, subject: &Subject, identity: Identity) -> Option<Tries> {
        self.open.get(&(subject.clone(), identity)).map(|it| it.tries)
    }

    /// How many shadow runs a failure has cost so far.
    pub fn runs(&self, subject: &Subject, identity: Identity) -> u32 {
        self.open.get(&(subject.clone(), identity)).map_or(0, |it| it.runs)
    }

    /// Whether nothing is left to do about a failure: it is decided, or its budget is spent.
    pub fn settled(&self, subject: &Subject, identity: Identity) -> bool {
        self.open.get(&(subject.clone(), identity)).is_none_or(|it| {
            let decided = it.judgement().verdict != Verdict::Undecided;
            !it.running && (decided || it.runs >= self.limits.per_failure)
        })
    }

    /// Drops failures from before `oldest`, and holds that nobody waits for any more.
    pub fn forget(&mut self, oldest: Time) {
        self.open.retain(|_, it| it.fresh.at >= oldest || it.running);
        let wanted: BTreeSet<_> = self.open.values().filter_map(|it| it.hold).collect();
        self.holds.retain(|id, hold| wanted.contains(id) || hold.running);
    }

    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    pub fn spent(&self) -> Duration {
        self.spent
    }
}

#[cfg(test)]
mod tests;
