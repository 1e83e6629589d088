//! What the attempts at a test come to in a day.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempts::{Attempt, Slot};
use crate::flakes::Identity;
use crate::model::{Outcome, Time};

/// What attempts at one test came to on one day, in all its shards and runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    pub passed: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub skipped: u64,
    pub infrastructure: u64,
    /// First attempts of a run and shard that were outcomes of the test.
    pub first: u64,
    /// First attempts that failed, while the same invocation has a pass with equal inputs.
    pub flaky: u64,
    /// Milliseconds that attempts which passed took together, and (`longest`) the longest of them.
    pub took: u64,
    pub longest: u64,
}

/// What of an attempt decides what it adds to its day.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub slot: Slot,
    pub execution: u64,
    pub outcome: Outcome,
    pub started: Time,
    pub took: Option<Duration>,
    pub identity: Option<Identity>,
}

impl Counted {
    fn of(it: &Attempt) -> Self {
        Self {
            slot: it.slot,
            execution: it.execution,
            outcome: it.outcome,
            started: it.started,
            took: it.duration,
            identity: it.identity,
        }
    }

    /// Whether the outcome is the test's own.
    fn is_of_test(&self) -> bool {
        !matches!(self.outcome, Outcome::Infrastructure | Outcome::Skipped)
    }
}

impl Day {
    pub fn add(&mut self, other: &Self) {
        let Self {
            passed,
            failed,
            timed_out,
            skipped,
            infrastructure,
            first,
            flaky,
            took,
            longest,
        } = self;
        for (own, more) in [
            (passed, other.passed),
            (failed, other.failed),
            (timed_out, other.timed_out),
            (skipped, other.skipped),
            (infrastructure, other.infrastructure),
            (first, other.first),
            (flaky, other.flaky),
            (took, other.took),
        ] {
            *own = own.saturating_add(more);
        }
        *longest = (*longest).max(other.longest);
    }

    pub fn attempts(&self) -> u64 {
        [self.passed, self.failed, self.timed_out, self.skipped, self.infrastructure]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// The share of first attempts that failed although equal inputs passed; nothing where there were none.
    pub fn flake_rate(&self) -> Option<f64> {
        (self.first > 0).then(|| self.flaky as f64 / self.first as f64)
    }

    /// What a pass took on average.
    pub fn mean(&self) -> Option<Duration> {
        self.took.checked_div(self.passed).map(Duration::from_millis)
    }

    fn count(&mut self, it: &Counted) {
        match it.outcome {
            Outcome::Passed => {
                let millis = it.took.map_or(0, |it| it.as_millis());
                let millis = u64::try_from(millis).unwrap_or(u64::MAX);
                self.passed += 1;
                self.took = self.took.saturating_add(millis);
                self.longest = self.longest.max(millis);
            }
            Outcome::Failed => self.failed += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Infrastructure => self.infrastructure += 1,
        }
    }
}

/// Days of one test by their number. All attempts of an invocation have to be there, joined.
pub fn days<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> BTreeMap<u64, Day> {
    let mut invocations: HashMap<(&str, &str), Vec<Counted>> = HashMap::new();
    for it in attempts.into_iter().filter(|it| it.known.counts()) {
        let of = (it.invocation.as_str(), it.test.configuration.as_str());
        invocations.entry(of).or_default().push(Counted::of(it));
    }
    let mut days = BTreeMap::new();
    invocations.values().for_each(|own| add_invocation(&mut days, own));
    days
}

/// Adds to days what the attempts at a test in one invocation and configuration came to: all that count.
pub fn add_invocation(days: &mut BTreeMap<u64, Day>, attempts: &[Counted]) {
    for it in attempts {
        days.entry(it.started.day()).or_default().count(it);
    }
    // Most tests run once, and what ran once is no flake.
    if let [only] = attempts {
        days.entry(only.started.day()).or_default().first += u64::from(only.is_of_test());
        return;
    }
    for first in firsts(attempts) {
        let day = days.entry(first.started.day()).or_default();
        day.first += 1;
        let failed = matches!(first.outcome, Outcome::Failed | Outcome::TimedOut);
        day.flaky += u64::from(failed && attempts.iter().any(|it| is_pass_of(it, first)));
    }
}

/// The first one of each run and shard that says something of the test.
fn firsts(attempts: &[Counted]) -> Vec<&Counted> {
    let mut firsts: BTreeMap<(u32, u32), &Counted> = BTreeMap::new();
    for it in attempts.iter().filter(|it| it.is_of_test()) {
        let first = firsts.entry((it.slot.run, it.slot.shard)).or_insert(it);
        let order = |it: &Counted| (it.slot.attempt, it.started, it.execution);
        if order(it) < order(first) {
            *first = it;
        }
    }
    firsts.into_values().collect()
}

/// Retries have the inputs of what they repeat; other runs do where their identity says so.
fn is_pass_of(it: &Counted, failed: &Counted) -> bool {
    let same = match (it.identity, failed.identity) {
        (Some(one), Some(other)) => one == other,
        _ => (it.slot.run, it.slot.shard) == (failed.slot.run, failed.slot.shard),
    };
    it.outcome == Outcome::Passed && same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::Known;
    use crate::attempts::samples::reported;

    #[test]
    fn retries_do_not_hide_a_flake_and_are_no_first_attempts() {
        let attempts = [
            reported("//a:t", 1, Outcome::Failed),
            reported("//a:t", 2, Outcome::Infrastructure),
            reported("//a:t", 3, Outcome::Passed),
        ];
        let mut broken = attempts.clone().map(|it| Attempt { invocation: "other".into(), ..it });
        broken[2].outcome = Outcome::TimedOut;
        let days = days(attempts.iter().chain(&broken));
        let day = days[&0];
        assert_eq!((day.first, day.flaky), (2, 1));
        assert_eq!((day.passed, day.failed, day.timed_out, day.infrastructure), (1, 2, 1, 2));
        assert_eq!(day.mean(), Some(Duration::from_millis(1700)));
        assert_eq!(day.attempts(), 6);
    }

    #[test]
    fn what_nobody_ran_does_not_count() {
        let mut merged = reported("//a:t", 1, Outcome::Passed);
        merged.known |= Known::MERGED;
        assert!(days([&merged]).is_empty());
    }
}
