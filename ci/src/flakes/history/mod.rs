//! What the runs of one subject have shown so far, in bounded space.

mod attempt;
mod bounded;
mod days;
mod groups;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::attempt::{Attempt, Piece};
use self::bounded::push;
pub use self::days::Day;
use self::days::Days;
pub use self::groups::{Flip, Tier};
use self::groups::{Groups, Waiting};
use super::{Identity, Mixture, Signature};
use crate::model::{Outcome, Time};

/// How many flips, and signatures and clusters of failures, are remembered of a subject.
const MAX_FLIPS: usize = 64;
const MAX_SIGNATURES: usize = 32;
const MAX_CLUSTERS: usize = 32;

/// Two proven flips so far apart make a test flaky, or so many at any time: what fails twice within minutes
/// may have failed for one reason.
const APART: Duration = Duration::from_secs(3600);
const MANY: usize = 4;

/// What is remembered of one subject. All of it is bounded, whatever runs are recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    groups: Groups,
    flips: VecDeque<Flip>,
    days: Days,
    /// Signatures of failures that a pass followed.
    signatures: VecDeque<Signature>,
    clusters: VecDeque<u64>,
    clean: u32,
    last_failure: Option<Time>,
}

impl History {
    pub fn record(&mut self, attempt: &Attempt<'_>) {
        match (attempt.outcome, attempt.piece) {
            (Outcome::Skipped, _) => {}
            (Outcome::Passed, _) => self.passed(attempt),
            (Outcome::TimedOut, _) => self.days.of(attempt.at).timeouts += 1,
            (Outcome::Infrastructure, _) => self.days.of(attempt.at).infrastructure += 1,
            (Outcome::Failed, piece) => match self.groups.of(attempt).weighs(piece) {
                Piece::Outage => self.days.of(attempt.at).excused += 1,
                Piece::Own => self.failed(attempt, None),
                Piece::Cluster(id) => self.failed(attempt, Some(id)),
            },
        }
    }

    fn passed(&mut self, attempt: &Attempt<'_>) {
        self.days.of(attempt.at).passes += 1;
        self.clean = self.clean.saturating_add(1);
        let waiting = self.groups.of(attempt).passed(attempt.seed);
        // What was seen across seeds is proven when a seed that failed passes as well.
        for flip in &mut self.flips {
            let same = flip.identity == attempt.identity && flip.seed.as_deref() == attempt.seed;
            if same && flip.tier == Tier::AcrossSeeds {
                flip.tier = Tier::Proven;
            }
        }
        self.settle(waiting, attempt);
    }

    /// Failures in a row turn out to be none of a broken test. Each counts for the rate; all of them, and all of
    /// one cluster, are one flip.
    fn settle(&mut self, failures: VecDeque<Waiting>, pass: &Attempt<'_>) {
        let mut flips: Vec<Flip> = Vec::new();
        for failure in failures {
            if let Some(signature) = failure.signature
                && !self.signatures.contains(&signature)
            {
                push(&mut self.signatures, signature, MAX_SIGNATURES);
            }
            self.days.of(failure.at).failures += 1;
            if let Some(cluster) = failure.cluster {
                if self.clusters.contains(&cluster) {
                    continue;
                }
                push(&mut self.clusters, cluster, MAX_CLUSTERS);
            }
            let same = failure.seed.as_deref() == pass.seed;
            if !flips.iter().any(|it| it.seed == failure.seed) {
                flips.push(Flip {
                    identity: pass.identity,
                    seed: failure.seed,
                    commit: failure.commit,
                    at: failure.at,
                    tier: if same { Tier::Proven } else { Tier::AcrossSeeds },
                    signature: failure.signature,
                });
            }
        }
        flips.into_iter().for_each(|it| push(&mut self.flips, it, MAX_FLIPS));
    }

    fn failed(&mut self, attempt: &Attempt<'_>, cluster: Option<u64>) {
        self.clean = 0;
        self.last_failure = Some(attempt.at);
        self.groups.of(attempt).failed(Waiting {
            seed: attempt.seed.map(str::to_owned),
            commit: attempt.commit.map(str::to_owned),
            at: attempt.at,
            signature: attempt.signature,
            cluster,
        });
    }

    /// A control failed: inputs with which the test passed before do not pass now. So the surroundings are at
    /// fault, and failures that wait for a pass say nothing about the test.
    pub fn control_failed(&mut self, at: Time) {
        let excused = self.groups.excuse().saturating_add(1);
        let day = self.days.of(at);
        day.excused = day.excused.saturating_add(excused);
    }

    /// The strongest evidence there is that the test is flaky.
    pub fn tier(&self) -> Option<Tier> {
        let settled = self.flips.iter().map(|it| it.tier).max();
        settled.max(self.groups.tier()).or_else(|| self.groups.suspicion())
    }

    /// Failures that were followed by a pass of the same identity, oldest first.
    pub fn flips(&self) -> impl DoubleEndedIterator<Item = &Flip> {
        self.flips.iter()
    }

    /// Whether it failed and then passed with equal inputs and seed more than once. Once may be the machine's
    /// fault, where too little else failed along with it to tell.
    pub fn is_flaky(&self) -> bool {
        let mut proven = self.flips.iter().filter(|it| it.tier == Tier::Proven).map(|it| it.at);
        let many = proven.clone().count() >= MANY;
        many || proven.next().is_some_and(|first| proven.any(|it| it.since(first) >= APART))
    }

    /// The counts of `days` days that end with the one of `now`.
    pub fn counts(&self, now: Time, days: u64) -> Day {
        self.days.counts(now, days)
    }

    /// What is believed of its failure rate after the runs of these days.
    pub fn rate(&self, prior: &Mixture, now: Time, days: u64) -> Mixture {
        let counts = self.counts(now, days);
        prior.after(counts.failures.into(), counts.passes.into())
    }

    /// The rate at which the subject fails though it is not broken, outages included: what a fresh failure is judged
    /// by.
    pub fn failing(&self, prior: &Mixture, now: Time, days: u64) -> Mixture {
        let counts = self.counts(now, days);
        let failures = counts.failures.saturating_add(counts.excused);
        prior.after(failures.into(), counts.passes.into())
    }

    /// The passes of this history alone: what a part of the test has behind it that never failed.
    pub fn passes(&self) -> Self {
        Self { groups: self.groups.passes(), days: self.days.passes(), ..Self::default() }
    }

    /// Passes since the last failure, whatever came of that.
    pub fn clean(&self) -> u32 {
        self.clean
    }

    pub fn last_failure(&self) -> Option<Time> {
        self.last_failure
    }

    /// Whether a failure that looked like this turned out to be flaky before. One that says nothing looks like
    /// others that said nothing: those of tests without a report of their own.
    pub fn knows(&self, signature: Option<Signature>) -> bool {
        match signature {
            Some(signature) => self.signatures.contains(&signature),
            None => self.flips.iter().any(|it| it.signature.is_none()),
        }
    }

    /// The newest other identity that has passed and not failed since: running it again shows whether the
    /// surroundings are well.
    pub fn last_good(&self, except: Identity) -> Option<Identity> {
        self.groups.last_good(except)
    }
}

#[cfg(test)]
mod tests;
