//! A failure that nobody has explained: what its tries have said, and which run would say more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rerun::{Fresh, Purpose, Rerun, RerunId};
use crate::flakes::Identity;
use crate::flakes::verdict::{self, Judgement, Prior, Tries, Verdict, judge};
use crate::model::{Outcome, Subject, Time};

/// What a case is known by: the subject that failed, and the inputs with which it did.
pub type Key = (Subject, Identity);

/// A failure with what is known of it so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub fresh: Fresh,
    pub tries: Tries,
    /// What these tries say, kept since it takes long to find out.
    says: Judgement,
    /// Shadow runs that were started for it.
    pub runs: u32,
    /// Gates that wait for a verdict.
    pub waiting: u32,
    pub running: bool,
    /// The event whose control must pass first.
    pub hold: Option<u64>,
    control: Control,
    /// The time before which the control is not run (again).
    pub not_before: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Control {
    /// The control has not run yet.
    Due,
    /// The control failed, so what failed beside it does not count.
    Failed,
    /// The control passed, or there is none.
    Passed,
}

/// A shadow run, or one that may be started.
#[derive(Clone, Debug)]
pub struct Running {
    pub rerun: Rerun,
    /// The failure that it is run for.
    pub case: Option<Key>,
    pub hold: Option<u64>,
    pub expected: Duration,
    pub value: f64,
}

impl Case {
    /// The case of a subject that has failed once, and has to prove nothing yet.
    pub fn new(prior: &Prior, fresh: Fresh) -> Self {
        let tries = Tries { straight: 1, passes: 0 };
        Self {
            tries,
            says: judge(prior, &fresh.rate, tries),
            runs: 0,
            waiting: 0,
            running: false,
            hold: None,
            control: if fresh.good.is_some() { Control::Due } else { Control::Passed },
            not_before: fresh.at,
            fresh,
        }
    }

    pub fn failed(&mut self, prior: &Prior) {
        self.tries.failed();
        self.judge(prior);
    }

    pub fn passed(&mut self, prior: &Prior) {
        self.tries.passed();
        self.judge(prior);
    }

    /// Notes that the subject failed along with others: until a control has passed, its failures count as one.
    pub fn hold(&mut self, prior: &Prior, event: u64) {
        self.hold = Some(event);
        self.tries.straight = self.tries.straight.min(1);
        self.judge(prior);
    }

    fn judge(&mut self, prior: &Prior) {
        self.says = judge(prior, &self.fresh.rate, self.tries);
    }

    /// The run that says most about it next, and what it is worth; none while one of its runs is going on, when it
    /// is decided, or after so many `runs`.
    pub fn candidate(&self, prior: &Prior, runs: u32, now: Time) -> Option<Running> {
        let rests = self.running || self.hold.is_some() || self.not_before > now;
        if rests || self.runs >= runs {
            return None;
        }
        let (identity, purpose, chance) = match self.says.verdict {
            // It has decided when it has passed, and most do.
            Verdict::Broken if self.control != Control::Passed => {
                (self.fresh.good?, Purpose::Control, 1.0)
            }
            Verdict::Undecided if self.control != Control::Failed => {
                (self.fresh.identity, Purpose::Decide, self.chance(prior))
            }
            _ => return None,
        };
        let expected = self.fresh.expected;
        let seconds = expected.as_secs_f64().max(0.1);
        let value = chance * f64::from(self.waiting.saturating_add(1)) / seconds;
        let case = Some((self.fresh.subject.clone(), self.fresh.identity));
        let (subject, avoid) = (self.fresh.subject.clone(), self.fresh.worker.clone());
        let rerun = Rerun { id: RerunId(0), subject, identity, purpose, avoid };
        Some(Running { rerun, case, hold: None, expected, value })
    }

    /// The probability that the next run decides the case.
    fn chance(&self, prior: &Prior) -> f64 {
        let rate = &self.fresh.rate;
        let failures = self.tries.straight;
        let broken = verdict::broken(prior.broken, rate, failures);
        let again = rate.straight(failures + 1) / rate.straight(failures).max(f64::MIN_POSITIVE);
        let pass = (1.0 - broken) * (1.0 - again);
        let mut tries = self.tries;
        tries.failed();
        let settles = judge(prior, rate, tries).verdict != Verdict::Undecided;
        (pass + if settles { 1.0 - pass } else { 0.0 }).clamp(0.0, 1.0)
    }

    /// Notes that one of the case's runs has ended; a control that does not pass is run again at `again`.
    pub fn ended(&mut self, prior: &Prior, purpose: Purpose, outcome: Outcome, again: Time) {
        self.running = false;
        match (purpose, outcome) {
            (Purpose::Decide, Outcome::Passed) => self.tries.passed(),
            // Whether this one is independent is not known while others fail along with it.
            (Purpose::Decide, Outcome::Failed) if self.hold.is_none() => self.tries.failed(),
            (Purpose::Control, Outcome::Passed) => {
                // The surroundings may have recovered just before it: only what fails beside it or after it
                // shows that the change is at fault.
                let counts = if self.control == Control::Failed {
                    1
                } else {
                    self.tries.straight.saturating_sub(1)
                };
                self.tries.straight = counts.max(1);
                self.control = Control::Passed;
            }
            (Purpose::Control, Outcome::Failed) => {
                self.control = Control::Failed;
                self.not_before = again;
            }
            _ => self.not_before = again,
        }
        self.judge(prior);
    }

    /// What came of the failure so far: nothing is broken before its control has passed.
    pub fn judgement(&self) -> Judgement {
        let open = self.hold.is_some() || self.control != Control::Passed;
        match self.says.verdict {
            Verdict::Broken if open => Judgement { verdict: Verdict::Undecided, ..self.says },
            _ => self.says,
        }
    }
}
