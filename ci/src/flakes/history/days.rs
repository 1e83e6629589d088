//! How often a subject passed and failed, by day.

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// How many days are remembered.
pub const MAX_DAYS: u64 = 30;

/// Counts of one day; `failures` are those that a pass of the same identity followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    pub day: u64,
    pub passes: u32,
    pub failures: u32,
    pub timeouts: u32,
    /// Lost workers and the like.
    pub infrastructure: u32,
    /// Failures for which the surroundings are to blame.
    pub excused: u32,
}

/// The days that are remembered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Days(Vec<Day>);

impl Days {
    /// The counts of a day. Days that lie far from this one are forgotten: old ones, and those that a wrong
    /// clock made.
    pub fn of(&mut self, at: Time) -> &mut Day {
        let day = at.day();
        let index = match self.0.binary_search_by_key(&day, |it| it.day) {
            Ok(index) => index,
            Err(_) => {
                self.0.retain(|it| it.day + MAX_DAYS > day && it.day <= day + 1);
                let index = self.0.partition_point(|it| it.day < day);
                self.0.insert(index, Day { day, ..Day::default() });
                index
            }
        };
        &mut self.0[index]
    }

    /// The counts of `days` days that end with the one of `now`.
    pub fn counts(&self, now: Time, days: u64) -> Day {
        let mut sum = Day { day: now.day(), ..Day::default() };
        let within = |it: &&Day| it.day + days > now.day() && it.day <= now.day() + 1;
        for day in self.0.iter().filter(within) {
            sum.passes = sum.passes.saturating_add(day.passes);
            sum.failures = sum.failures.saturating_add(day.failures);
            sum.timeouts = sum.timeouts.saturating_add(day.timeouts);
            sum.infrastructure = sum.infrastructure.saturating_add(day.infrastructure);
            sum.excused = sum.excused.saturating_add(day.excused);
        }
        sum
    }

    /// These days with nothing but their passes.
    pub fn passes(&self) -> Self {
        let passes = |it: &Day| Day { day: it.day, passes: it.passes, ..Day::default() };
        Self(self.0.iter().map(passes).collect())
    }

    #[cfg(test)]
    pub fn list(&self) -> &[Day] {
        &self.0
    }
}
