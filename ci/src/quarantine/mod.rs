//! The quarantine: which tests the gate need not wait for, for how long, and who looks after them.
//!
//! A test enters on proof, stays a day at least, leaves when it has become reliable or its time is up, and
//! cools down before it may enter again: longer each time. What changes is told once, for the audit log and
//! whoever wants to know. Time is passed in; a clock that runs backwards neither prolongs nor ends anything.

mod clock;
mod exports;
mod owners;
mod policy;

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_net::counts::counted;
use serde::{Deserialize, Serialize};

use crate::flakes::History;
use crate::model::{Subject, Time};
use clock::Clock;

pub use exports::{
    Export, Left, bazel_attempts, bazel_patterns, nextest_filter, pytest_arguments, pytest_node,
};
pub use owners::{Codeowners, Problem};
pub use policy::{Evidence, Policy};

/// Who put a test where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    Policy,
    Person(String),
}

/// A test in quarantine. It still runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuarantinedTest {
    pub since: Time,
    pub expires: Time,
    pub by: Actor,
    pub reason: String,
    pub owner: Option<String>,
    pub evidence: Option<Evidence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Entered,
    /// A person gave it more time, or another reason.
    Renewed,
    Left,
    Expired,
    /// The test should enter, but the quarantine is full.
    Refused,
}

/// A change of state: a record of the audit log, and one notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The number of the change: never the same for two, so that none is told twice.
    pub number: u64,
    pub at: Time,
    pub subject: Subject,
    pub kind: Kind,
    pub by: Actor,
    pub reason: String,
    pub owner: Option<String>,
    pub expires: Option<Time>,
    pub evidence: Option<Evidence>,
}

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct Request {
    pub who: String,
    pub reason: String,
    pub owner: Option<String>,
    /// How long the test is to stay; at most what the policy allows.
    pub stay: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a reason is needed: it is kept with the entry and in the audit log")]
    NoReason,
    #[error("{0} is not in quarantine")]
    NotThere(Subject),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Status {
    subject: Subject,
    entry: Option<QuarantinedTest>,
    /// How often the test has left or expired.
    times: u32,
    left: Option<Exit>,
    refused: bool,
}

/// When a test left, by the quarantine's own clock, and by that of the world, which evidence is dated by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Exit {
    at: Time,
    wall: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Quarantine {
    policy: Policy,
    clock: Clock,
    next: u64,
    statuses: BTreeMap<Subject, Status>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    policy: Policy,
    clock: Clock,
    next: u64,
    statuses: Vec<Status>,
}

impl From<Stored> for Quarantine {
    fn from(it: Stored) -> Self {
        let statuses = it.statuses.into_iter().map(|it| (it.subject.clone(), it)).collect();
        Self { policy: it.policy, clock: it.clock, next: it.next, statuses }
    }
}

impl From<Quarantine> for Stored {
    fn from(it: Quarantine) -> Self {
        let statuses = it.statuses.into_values().collect();
        Self { policy: it.policy, clock: it.clock, next: it.next, statuses }
    }
}

impl Quarantine {
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// This quarantine by another policy, such as one that was configured meanwhile.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// How many of so many tests may be in quarantine.
    pub fn allowed(&self, tests: usize) -> usize {
        self.policy.allowed(tests)
    }

    /// Looks at a test after its history has changed. `tests` is how many tests its instance has.
    pub fn assess(
        &mut self,
        subject: &Subject,
        history: &History,
        owner: Option<&str>,
        tests: usize,
        wall: Time,
    ) -> Option<Change> {
        let now = self.clock.advance(wall);
        self.expire(subject, now, wall).or_else(|| match self.entry(subject) {
            Some(entry) => {
                let stayed = now.since(entry.since) >= self.policy.stay;
                let fine = stayed && entry.by == Actor::Policy && self.policy.leaves(history);
                let reason = || counted(history.clean(), "run") + " without a failure";
                fine.then(|| self.leave_by(subject, Actor::Policy, reason(), wall)).flatten()
            }
            None => self.consider(subject, history, owner, tests, wall),
        })
    }

    fn consider(
        &mut self,
        subject: &Subject,
        history: &History,
        owner: Option<&str>,
        tests: usize,
        wall: Time,
    ) -> Option<Change> {
        let now = self.clock.now(wall);
        let status = self.statuses.get(subject);
        if status.is_some_and(|it| self.policy.cooling(it.times, it.left.map(|it| it.at), now)) {
            return None;
        }
        let since = status.and_then(|it| it.left).map_or(Time(0), |it| it.wall);
        let evidence = self.policy.enters(history, since, wall)?;
        let reason = evidence.to_string();
        if self.len(&subject.test.instance, wall) >= self.policy.allowed(tests) {
            return self.refuse(subject, owner, evidence, wall);
        }
        let entry = QuarantinedTest {
            since: now,
            expires: now.plus(self.policy.expiry),
            by: Actor::Policy,
            reason,
            owner: owner.map(str::to_owned),
            evidence: Some(evidence),
        };
        Some(self.put(subject, entry, Kind::Entered, wall))
    }

    /// Told once, until something changes.
    fn refuse(
        &mut self,
        subject: &Subject,
        owner: Option<&str>,
        evidence: Evidence,
        wall: Time,
    ) -> Option<Change> {
        let status = self.status(subject);
        if std::mem::replace(&mut status.refused, true) {
            return None;
        }
        let reason = format!("{evidence}; the quarantine is full");
        let mut change = self.change(subject, Kind::Refused, Actor::Policy, reason, wall);
        change.owner = owner.map(str::to_owned);
        change.evidence = Some(evidence);
        Some(change)
    }

    /// Puts a test into quarantine for a reason that a person has, also while it cools down. The cap is not
    /// asked: beyond it the gate masks nothing.
    pub fn enter(
        &mut self,
        subject: &Subject,
        request: Request,
        wall: Time,
    ) -> Result<Change, Error> {
        if request.reason.trim().is_empty() {
            return Err(Error::NoReason);
        }
        let now = self.clock.advance(wall);
        let stay = request.stay.unwrap_or(self.policy.expiry).min(self.policy.expiry);
        let before = self.entry(subject).filter(|it| it.expires > now);
        let kind = if before.is_some() { Kind::Renewed } else { Kind::Entered };
        let entry = QuarantinedTest {
            since: before.map_or(now, |it| it.since),
            // More time, and never less.
            expires: before.map_or(Time(0), |it| it.expires).max(now.plus(stay)),
            owner: request.owner.or_else(|| before.and_then(|it| it.owner.clone())),
            evidence: before.and_then(|it| it.evidence.clone()),
            by: Actor::Person(request.who),
            reason: request.reason,
        };
        Ok(self.put(subject, entry, kind, wall))
    }

    pub fn leave(
        &mut self,
        subject: &Subject,
        request: Request,
        wall: Time,
    ) -> Result<Change, Error> {
        if request.reason.trim().is_empty() {
            return Err(Error::NoReason);
        }
        self.clock.advance(wall);
        self.leave_by(subject, Actor::Person(request.who), request.reason, wall)
            .ok_or_else(|| Error::NotThere(subject.clone()))
    }

    /// Ends what is over, also what ended while nobody looked.
    pub fn tick(&mut self, wall: Time) -> Vec<Change> {
        let now = self.clock.advance(wall);
        let forgive = self.policy.forgive;
        self.statuses.retain(|_, it| {
            it.entry.is_some() || it.left.is_some_and(|it| now.since(it.at) < forgive)
        });
        let subjects: Vec<_> = self.statuses.keys().cloned().collect();
        subjects.iter().filter_map(|it| self.expire(it, now, wall)).collect()
    }

    fn expire(&mut self, subject: &Subject, now: Time, wall: Time) -> Option<Change> {
        self.entry(subject).filter(|it| it.expires <= now)?;
        let reason = "its time is up: mend it, delete it, or say why it needs more".to_owned();
        self.take(subject, Kind::Expired, Actor::Policy, reason, wall)
    }

    fn leave_by(
        &mut self,
        subject: &Subject,
        by: Actor,
        reason: String,
        wall: Time,
    ) -> Option<Change> {
        self.take(subject, Kind::Left, by, reason, wall)
    }

    fn take(
        &mut self,
        subject: &Subject,
        kind: Kind,
        by: Actor,
        reason: String,
        wall: Time,
    ) -> Option<Change> {
        let now = self.clock.now(wall);
        let status = self.statuses.get_mut(subject)?;
        let entry = status.entry.take()?;
        status.left = Some(Exit { at: now, wall });
        status.times = status.times.saturating_add(1);
        // There is room again: whoever was refused may be told so once more.
        self.statuses.values_mut().for_each(|it| it.refused = false);
        let change = self.change(subject, kind, by, reason, wall);
        Some(Change { owner: entry.owner, evidence: entry.evidence, ..change })
    }

    fn put(&mut self, subject: &Subject, entry: QuarantinedTest, kind: Kind, wall: Time) -> Change {
        let change = self.change(subject, kind, entry.by.clone(), entry.reason.clone(), wall);
        let change = Change {
            owner: entry.owner.clone(),
            expires: Some(entry.expires),
            evidence: entry.evidence.clone(),
            ..change
        };
        let status = self.status(subject);
        status.refused = false;
        status.entry = Some(entry);
        change
    }

    fn change(
        &mut self,
        subject: &Subject,
        kind: Kind,
        by: Actor,
        reason: String,
        at: Time,
    ) -> Change {
        let number = self.next;
        self.next += 1;
        let subject = subject.clone();
        Change { number, at, subject, kind, by, reason, owner: None, expires: None, evidence: None }
    }

    fn status(&mut self, subject: &Subject) -> &mut Status {
        self.statuses.entry(subject.clone()).or_insert_with(|| Status {
            subject: subject.clone(),
            entry: None,
            times: 0,
            left: None,
            refused: false,
        })
    }

    fn entry(&self, subject: &Subject) -> Option<&QuarantinedTest> {
        self.statuses.get(subject)?.entry.as_ref()
    }

    /// The entry of a test that is in quarantine now. One that has expired is not, whoever has noticed. An entry
    /// without a configuration, as people write it, is for all configurations.
    pub fn find(&self, subject: &Subject, wall: Time) -> Option<&QuarantinedTest> {
        let now = self.clock.now(wall);
        let current = |subject: &Subject| self.entry(subject).filter(|it| it.expires > now);
        current(subject).or_else(|| {
            let mut any = subject.clone();
            any.test.configuration.clear();
            current(&any)
        })
    }

    pub fn entries(&self, wall: Time) -> impl Iterator<Item = (&Subject, &QuarantinedTest)> {
        let now = self.clock.now(wall);
        let current = move |entry: &&QuarantinedTest| entry.expires > now;
        self.statuses.iter().filter_map(move |(subject, it)| {
            it.entry.as_ref().filter(current).map(|it| (subject, it))
        })
    }

    /// How many tests of an instance are in quarantine.
    pub fn len(&self, instance: &str, wall: Time) -> usize {
        self.entries(wall).filter(|(subject, _)| subject.test.instance == instance).count()
    }

    /// Whether more tests of an instance are in quarantine than may be of so many: its gates then mask none.
    pub fn over_cap(&self, instance: &str, tests: usize, wall: Time) -> bool {
        self.len(instance, wall) > self.policy.allowed(tests)
    }
}

#[cfg(test)]
mod tests;
