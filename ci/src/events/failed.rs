//! Finds the tests of a build that failed in the end.

use std::collections::BTreeMap;

use crate::attempts::Attempt;
use crate::model::{Outcome, TestKey};

/// Runs that are remembered of one build: with so many failures it is no matter of single tests.
const MAX_RUNS: usize = 20_000;

/// Number of the run, and of the shard.
type Place = (u32, u32);

/// The last attempt at each run and shard of which an attempt failed. First attempts that pass take no room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedRuns {
    /// The number of the attempt, and whether it failed.
    last: BTreeMap<TestKey, BTreeMap<Place, (u32, bool)>>,
    runs: usize,
    /// Failures of runs that are not remembered.
    pub left_out: u64,
}

impl FailedRuns {
    /// Takes an attempt, in whatever order they come.
    pub fn take(&mut self, it: &Attempt) {
        let failed = it.outcome != Outcome::Passed;
        let place = (it.slot.run, it.slot.shard);
        let said = (it.slot.attempt, failed);
        if let Some(known) = self.last.get_mut(&it.test).and_then(|own| own.get_mut(&place)) {
            if said.0 >= known.0 {
                *known = said;
            }
            return;
        }
        if !failed && said.0 <= 1 {
            return;
        }
        if self.runs >= MAX_RUNS {
            self.left_out += u64::from(failed);
            return;
        }
        self.runs += 1;
        self.last.entry(it.test.clone()).or_default().insert(place, said);
    }

    /// Tests, runs and shards whose last attempt is no pass, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TestKey, Place)> {
        self.last.iter().flat_map(|(test, places)| {
            places.iter().filter(|(_, (_, failed))| *failed).map(move |(place, _)| (test, *place))
        })
    }
}

impl<'a> FromIterator<&'a Attempt> for FailedRuns {
    fn from_iter<I: IntoIterator<Item = &'a Attempt>>(attempts: I) -> Self {
        let mut failed = Self::default();
        attempts.into_iter().for_each(|it| failed.take(it));
        failed
    }
}
