//! DORA's four figures of what this process brought to environments: how often, how long after a release was made, how often
//! it had to be reverted, and how long that took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Environments that are counted by their names; all others are counted together.
pub const MAX_ENVIRONMENTS: usize = 20;
/// The name under which environments beyond those bounds are counted; one of this name is counted with them.
pub const OTHERS: &str = "other";
/// Upper bounds in seconds of what times are sorted into, from a second to 30 days.
pub const BOUNDS: [u64; 11] = [1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400, 604_800, 2_592_000];

const BUCKETS: usize = BOUNDS.len() + 1;

/// Times, sorted by how long they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How many fell between a bound and the one before it; the last: beyond all of them.
    counts: [u64; BUCKETS],
    /// The sum of all times in milliseconds.
    sum: u64,
}

impl Times {
    fn add(&mut self, millis: u64) {
        let within = BOUNDS.iter().position(|bound| millis <= bound * 1_000);
        if let Some(count) = self.counts.get_mut(within.unwrap_or(BOUNDS.len())) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(millis);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn seconds(&self) -> f64 {
        self.sum as f64 / 1_000.0
    }

    /// Upper bounds in seconds, each with how many fell between it and the one before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

/// What became of one environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Four {
    /// Releases that came there, whether or not they stayed.
    pub changes: u64,
    /// How many of these releases were reverted because they were bad.
    pub failures: u64,
    /// Times from when a release was made until it had come.
    pub lead: Times,
    /// Times from when a bad release began to come until what was before was back.
    pub restore: Times,
}

/// Figures of environments, by their names.
pub type Fours = BTreeMap<String, Four>;

/// Counts since this process began.
#[derive(Debug, Default)]
pub struct Deployments(Mutex<Fours>);

impl Deployments {
    /// A release came, so many milliseconds after it was made, if that is known.
    pub fn came(&self, environment: &str, lead: Option<u64>) {
        self.count(environment, |four| {
            four.changes += 1;
            lead.into_iter().for_each(|millis| four.lead.add(millis));
        });
    }

    /// Counts that a release which had been counted was bad. `restore`: milliseconds until what was before was back;
    /// `None`: it is not.
    pub fn failed(&self, environment: &str, restore: Option<u64>) {
        self.count(environment, |four| {
            four.failures += 1;
            restore.into_iter().for_each(|millis| four.restore.add(millis));
        });
    }

    /// The figures of all environments; those of these too to which nothing has come yet.
    pub fn read<'a>(&self, environments: impl Iterator<Item = &'a String>) -> Fours {
        let mut fours = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for environment in environments.take(MAX_ENVIRONMENTS) {
            if fours.len() < MAX_ENVIRONMENTS {
                fours.entry(environment.clone()).or_default();
            }
        }
        fours
    }

    fn count(&self, environment: &str, change: impl FnOnce(&mut Four)) {
        let mut fours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = fours.len() < MAX_ENVIRONMENTS || fours.contains_key(environment);
        let name = if has_room { environment } else { OTHERS };
        change(fours.entry(name.to_owned()).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_what_fails_is_counted_by_environment() {
        let all = Deployments::default();
        all.came("prod", Some(61_000));
        all.came("prod", None);
        all.failed("prod", Some(4_999));
        let read = all.read([&"dev".to_owned()].into_iter());
        assert_eq!(read["dev"], Four::default());
        let prod = &read["prod"];
        assert_eq!((prod.changes, prod.failures, prod.lead.count()), (2, 1, 1));
        assert_eq!(prod.lead.seconds(), 61.0);
        assert_eq!(prod.lead.buckets()[4], (300.0, 1));
        assert_eq!(prod.restore.buckets()[1], (5.0, 1));
    }

    #[test]
    fn names_without_end_are_counted_together() {
        let all = Deployments::default();
        for at in 0..100 {
            all.came(&format!("env-{at}"), Some(u64::MAX));
        }
        let named = ["a".to_owned()];
        let read = all.read(named.iter());
        assert_eq!(read.len(), MAX_ENVIRONMENTS + 1);
        assert_eq!(read[OTHERS].changes, 80);
        assert_eq!(read[OTHERS].lead.buckets().last(), Some(&(f64::INFINITY, 80)));
    }
}
