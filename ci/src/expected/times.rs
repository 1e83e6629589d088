//! What each shard of a test takes, by its last runs.

use std::time::Duration;

use crate::attempts::Attempt;
use crate::model::Outcome;

/// Weight of the newest run.
const ALPHA: f64 = 0.3;
/// Shards and cases of which something is known by itself: 40 KiB a test.
const MAX_SHARDS: u32 = 1024;
const MAX_CASES: usize = 8192;
/// What has nothing to do runs for a moment all the same.
const LEAST_MS: u32 = 1;

/// What is known of a test as it was sharded last; 1 where it was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardTimes {
    count: u32,
    /// Milliseconds of each shard.
    shards: Vec<Option<u32>>,
    /// Milliseconds of each case, in the order in which runners deal them to shards.
    cases: Vec<u32>,
}

impl ShardTimes {
    /// `newest`: attempts at one test, newest first. Only what passed says how long the next one takes.
    pub fn of(newest: &[Attempt]) -> Self {
        let counts = |it: &&Attempt| {
            let is_shard = (1..=it.shards).contains(&it.slot.shard) && it.shards <= MAX_SHARDS;
            is_shard && it.outcome == Outcome::Passed && it.known.counts()
        };
        let mut own: Vec<_> = newest.iter().filter(counts).collect();
        let Some(count) = own.first().map(|it| it.shards) else { return Self::default() };
        own.retain(|it| it.shards == count);
        let mut means: Vec<Option<f64>> = vec![None; place(count)];
        for it in own.iter().rev() {
            if let (Some(mean), Some(took)) = (means.get_mut(place_of(it)), it.duration) {
                let ms = took.as_secs_f64() * 1000.0;
                *mean = Some(mean.map_or(ms, |mean| mean + ALPHA * (ms - mean)));
            }
        }
        let shards = means.into_iter().map(|mean| mean.map(|ms| (ms.round() as u32).max(LEAST_MS)));
        Self { count, shards: shards.collect(), cases: dealt(&own, count) }
    }

    /// The number of shards that the test was run in last, by which times are known; 0: nothing is known.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether the time of each shard is known.
    pub fn is_complete(&self) -> bool {
        !self.shards.is_empty() && self.shards.iter().all(Option::is_some)
    }

    /// These times, with the cases of another run that has as many shards.
    pub fn with_cases_of(self, other: Self) -> Self {
        let cases = if other.count == self.count { other.cases } else { self.cases };
        Self { cases, ..self }
    }

    /// What a shard takes, counted from 0: by its own runs, where the test is sharded as it was; else by the cases that a
    /// runner deals to it in turn; else by what all of them took.
    pub fn expected(&self, index: u32, count: u32) -> Option<Duration> {
        if index >= count {
            return None;
        }
        let is_known = count == self.count;
        let own = self.shards.get(place(index)).copied().flatten().filter(|_| is_known);
        let ms = own.map(u64::from);
        let ms = ms.or_else(|| self.of_cases(index, count)).or_else(|| self.share(count));
        ms.map(|ms| Duration::from_millis(ms.max(u64::from(LEAST_MS))))
    }

    fn of_cases(&self, index: u32, count: u32) -> Option<u64> {
        // Where no report says a time, none of them tells anything.
        self.cases.iter().any(|ms| *ms > 0).then_some(())?;
        let dealt = self.cases.iter().skip(place(index)).step_by(place(count));
        Some(dealt.map(|ms| u64::from(*ms)).sum())
    }

    fn share(&self, count: u32) -> Option<u64> {
        let known: Vec<u64> = self.shards.iter().flatten().map(|ms| u64::from(*ms)).collect();
        let all = known.iter().sum::<u64>().saturating_mul(u64::from(self.count));
        let runs = u64::try_from(known.len()).ok().filter(|runs| *runs > 0)?;
        Some(all / runs / u64::from(count).max(1))
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Shards of attempts are counted from 1.
fn place_of(it: &Attempt) -> usize {
    place(it.slot.shard.saturating_sub(1))
}

/// The cases of the newest run of each shard, first all first ones, then all second ones: the order from which they were
/// dealt. Empty where one of the shards has none, or where they are too many.
fn dealt(newest: &[&Attempt], count: u32) -> Vec<u32> {
    let mut hands: Vec<Option<&Attempt>> = vec![None; place(count)];
    for it in newest.iter().filter(|it| !it.cases.is_empty()) {
        if let Some(hand) = hands.get_mut(place_of(it)) {
            hand.get_or_insert(it);
        }
    }
    let hands: Option<Vec<Vec<u32>>> = hands.into_iter().map(|it| it.map(cases)).collect();
    let hands = hands.unwrap_or_default();
    if hands.iter().map(Vec::len).sum::<usize>() > MAX_CASES {
        return Vec::new();
    }
    let longest = hands.iter().map(Vec::len).max().unwrap_or(0);
    let turn = |at: usize| hands.iter().filter_map(move |hand| hand.get(at).copied());
    (0..longest).flat_map(turn).collect()
}

/// A case that a runner repeats is one case.
fn cases(it: &Attempt) -> Vec<u32> {
    let ms = |took: Duration| u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    let first = it.cases.iter().filter(|case| case.attempt <= 1);
    first.map(|case| case.duration.map_or(0, ms)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::samples::executed;
    use crate::attempts::{CaseRun, Known};
    use crate::model::CaseName;

    fn ran(shard: u32, shards: u32, seconds: u64, cases: &[u64]) -> Attempt {
        let case = |ms: &u64| CaseRun {
            case: CaseName::default(),
            attempt: 1,
            outcome: Outcome::Passed,
            duration: Some(Duration::from_millis(*ms)),
            failure: None,
        };
        let mut it = executed("//a:t", 1, 1, Outcome::Passed);
        (it.slot.shard, it.shards) = (shard, shards);
        it.duration = Some(Duration::from_secs(seconds));
        it.cases = cases.iter().map(case).collect();
        it
    }

    fn ms(times: &ShardTimes, count: u32) -> Vec<Option<u128>> {
        (0..count).map(|it| times.expected(it, count).map(|it| it.as_millis())).collect()
    }

    #[test]
    fn each_shard_is_expected_to_take_what_it_took() {
        // The runs are listed from the newest to the oldest.
        let runs = [ran(1, 2, 4, &[]), ran(2, 2, 9, &[]), ran(1, 2, 2, &[]), ran(1, 3, 90, &[])];
        let times = ShardTimes::of(&runs);
        assert_eq!((times.count(), ms(&times, 2)), (2, vec![Some(2600), Some(9000)]));
        assert!(times.is_complete() && !ShardTimes::default().is_complete());
        assert_eq!(times.expected(2, 2), None, "there is no such shard");
        assert_eq!(times.expected(0, 0), None);
        // If the number of shards is new and nothing is known of the cases, all shards are expected to take
        // the same time.
        assert_eq!(ms(&times, 4), [Some(2900); 4]);
    }

    #[test]
    fn where_the_number_is_new_the_cases_are_dealt_anew() {
        let times =
            ShardTimes::of(&[ran(2, 2, 3, &[200, 400, 600]), ran(1, 2, 9, &[100, 8300, 500])]);
        assert_eq!(ms(&times, 3), [Some(500), Some(700), Some(8900)]);
        // More shards than cases: one has nothing to do.
        assert_eq!(ms(&times, 7)[6], Some(1));
        let whole = ShardTimes::of(&[ran(1, 1, 2, &[100, 200, 300])]);
        assert_eq!(ms(&whole, 2), [Some(400), Some(200)]);
        // A shard whose cases are not known makes the others of no use, and so does a report without times.
        let some = ShardTimes::of(&[ran(2, 2, 3, &[200]), ran(1, 2, 9, &[])]);
        assert_eq!(ms(&some, 4), [Some(3000); 4]);
        let timeless = ShardTimes::of(&[ran(1, 1, 6, &[0, 0])]);
        assert_eq!(ms(&timeless, 2), [Some(3000); 2]);
    }

    #[test]
    fn what_failed_what_ran_for_another_and_what_has_no_time_say_nothing() {
        let failed = Attempt { outcome: Outcome::Failed, ..ran(1, 2, 60, &[]) };
        let merged = Attempt { known: Known::MERGED, ..ran(1, 2, 60, &[]) };
        let timeless = Attempt { duration: None, ..ran(1, 2, 60, &[]) };
        let many = ran(1, MAX_SHARDS + 1, 60, &[]);
        let none = ran(3, 2, 60, &[]);
        let times = ShardTimes::of(&[failed.clone(), merged.clone(), many.clone(), none.clone()]);
        assert_eq!(times, ShardTimes::default());
        assert_eq!(times.expected(0, 2), None);
        let times = ShardTimes::of(&[failed, merged, many, none, timeless, ran(2, 2, 5, &[])]);
        // The other shard is taken for an average one.
        assert!(!times.is_complete());
        assert_eq!(ms(&times, 2), [Some(5000), Some(5000)]);
    }
}
