//! What of an account of an attempt says whose it is, so that accounts are joined in one way however much of each is in
//! memory.

use super::{Attempt, Known};
use crate::model::{Outcome, Time};

/// What one source says of an attempt, or what several sources came to.
pub trait Account: Sized {
    fn gist(&self) -> Gist;

    fn set_gist(&mut self, gist: Gist);

    /// The configuration of the test; empty where the source did not know it.
    fn configuration(&self) -> &str;

    fn has_log(&self) -> bool;

    /// Whether both accounts know a log, and it is the same one.
    fn shares_log(&self, other: &Self) -> bool;

    /// What of two accounts of one attempt says more: the number of cases, whether there is a failure, and a log.
    fn richness(&self) -> (usize, bool, bool);

    /// Takes from another account of the attempt what this one does not know, but for the gist.
    fn fill(&mut self, other: Self);
}

/// What decides how accounts are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gist {
    pub known: Known,
    /// The number of the execution; 0 where none is known.
    pub execution: u64,
    pub outcome: Outcome,
    pub started: Time,
    /// The number of the attempt; 0 while nobody has said it.
    pub attempt: u32,
}

impl Account for Attempt {
    fn gist(&self) -> Gist {
        Gist {
            known: self.known,
            execution: self.execution,
            outcome: self.outcome,
            started: self.started,
            attempt: self.slot.attempt,
        }
    }

    fn set_gist(&mut self, gist: Gist) {
        let Gist { known, execution, outcome, started, attempt } = gist;
        (self.known, self.execution, self.outcome) = (known, execution, outcome);
        (self.started, self.slot.attempt) = (started, attempt);
    }

    fn configuration(&self) -> &str {
        &self.test.configuration
    }

    fn has_log(&self) -> bool {
        self.log.is_some()
    }

    fn shares_log(&self, other: &Self) -> bool {
        self.log.is_some() && self.log == other.log
    }

    fn richness(&self) -> (usize, bool, bool) {
        (self.cases.len(), self.failure.is_some(), self.log.is_some())
    }

    fn fill(&mut self, other: Self) {
        fill_text(&mut self.test.configuration, other.test.configuration);
        fill_text(&mut self.worker, other.worker);
        fill_text(&mut self.strategy, other.strategy);
        self.shards = self.shards.max(other.shards);
        self.duration = self.duration.or(other.duration);
        self.set_up = self.set_up.or(other.set_up);
        self.identity = self.identity.or(other.identity);
        self.action = self.action.take().or(other.action);
        self.seed = self.seed.take().or(other.seed);
        self.log = self.log.take().or(other.log);
        self.failure = self.failure.take().or(other.failure);
        self.commit = self.commit.take().or(other.commit);
        self.branch = self.branch.take().or(other.branch);
        if other.cases.len() > self.cases.len() {
            self.cases = other.cases;
        }
    }
}

fn fill_text(into: &mut String, other: String) {
    if into.is_empty() {
        *into = other;
    }
}
