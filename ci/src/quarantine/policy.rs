//! When a test enters, leaves and may come again.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use kiln_net::counts::{counted, times};
use serde::{Deserialize, Serialize};

use crate::flakes::{Flip, History, Mixture, Tier};
use crate::model::Time;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many of the newest flips are kept as evidence.
const SHOWN: usize = 5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Proven flips that it takes, in as many commits.
    pub flips: usize,
    /// A test enters when its failure rate is surely above this.
    pub enter_above: f64,
    /// A test leaves when its failure rate is surely below this.
    pub leave_below: f64,
    /// The probability from which on something is sure.
    pub certainty: f64,
    /// The days whose runs count on entry: rates drift.
    pub days: u64,
    pub stay: Duration,
    pub expiry: Duration,
    /// How long it must not come again after it has left once, twice, and more often.
    pub cool_down: [Duration; 3],
    /// The time outside after which it is forgotten how often a test was in.
    pub forgive: Duration,
    /// The share of all tests that may be in quarantine.
    pub cap: f64,
    /// How many tests may always be in quarantine, however few tests there are.
    pub least: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            flips: 2,
            enter_above: 0.02,
            leave_below: 0.01,
            certainty: 0.95,
            days: 14,
            stay: DAY,
            expiry: 14 * DAY,
            cool_down: [7 * DAY, 14 * DAY, 28 * DAY],
            forgive: 90 * DAY,
            cap: 0.02,
            least: 5,
        }
    }
}

/// Why a test is held to be flaky.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Proven flips, and commits that they were in.
    pub flips: usize,
    pub commits: usize,
    pub passes: u32,
    pub failures: u32,
    /// The expected failure rate, and the probability that it is above the policy's.
    pub rate: f64,
    pub above: f64,
    /// The newest flips that speak against the test.
    pub newest: Vec<Flip>,
}

impl fmt::Display for Evidence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flips, commits, passes, failures, rate, .. } = self;
        let (flips, commits) = (times(*flips), counted(*commits, "commit"));
        write!(out, "failed and passed with equal inputs {flips} in {commits}; ")?;
        let runs = counted(u64::from(*passes) + u64::from(*failures), "run");
        write!(out, "{failures} of {runs} failed, about {:.1} % are expected to", rate * 100.0)
    }
}

/// How many commits flips were in. Where nobody told of a commit, other inputs stand for another one. What is known of
/// no commit may be of one of the others, so that it adds nothing to these.
fn commits(flips: &[&Flip]) -> usize {
    let told: BTreeSet<_> = flips.iter().filter_map(|it| it.commit.as_ref()).collect();
    let untold = flips.iter().filter(|it| it.commit.is_none());
    let inputs: BTreeSet<_> = untold.map(|it| it.identity.to_string()).collect();
    told.len().max(inputs.len())
}

impl Policy {
    /// The evidence on which it enters, of flips since the time that is given.
    pub(super) fn enters(&self, history: &History, since: Time, now: Time) -> Option<Evidence> {
        let proven = |it: &&Flip| it.tier == Tier::Proven && it.at >= since;
        let flips: Vec<_> = history.flips().filter(proven).collect();
        let commits = commits(&flips);
        if flips.len() < self.flips || commits < self.flips {
            return None;
        }
        let rate = history.rate(&Mixture::of_tests(), now, self.days);
        let above = rate.above(self.enter_above);
        let counts = history.counts(now, self.days);
        (above >= self.certainty).then(|| Evidence {
            flips: flips.len(),
            commits,
            passes: counts.passes,
            failures: counts.failures,
            rate: rate.mean(),
            above,
            newest: flips.iter().rev().take(SHOWN).map(|it| (*it).clone()).collect(),
        })
    }

    /// Whether a test has become reliable, by the runs since its last failure alone, whatever was believed before: it
    /// takes about 300.
    pub(super) fn leaves(&self, history: &History) -> bool {
        let clean = f64::from(history.clean());
        Mixture::uniform().after(0.0, clean).below(self.leave_below) >= self.certainty
    }

    pub(super) fn cooling(&self, times: u32, left: Option<Time>, now: Time) -> bool {
        let index = usize::try_from(times).unwrap_or(usize::MAX).clamp(1, self.cool_down.len()) - 1;
        left.is_some_and(|it| now.since(it) < self.cool_down[index])
    }

    pub(super) fn allowed(&self, tests: usize) -> usize {
        ((tests as f64 * self.cap) as usize).max(self.least)
    }
}
