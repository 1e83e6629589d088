//! What is to be done next for the history: a pure decision.

use std::time::Duration;

use super::catalogue::{Catalogue, Fresh, SegmentMeta};
use crate::model::Time;

/// Attempts and cases in one segment at most, unless one invocation alone has more: what is held in
/// memory to write it.
pub const MAX_WEIGHT: u64 = 400_000;
/// Days of tests in a segment of days alone.
const MAX_DAYS: u64 = 2_000_000;
/// Fresh segments that become one at once: their records are deleted in one batch.
const MAX_SETTLED: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Fresh segments are joined when there are so many of them, when there are so many attempts and cases in them, or
    /// when the oldest is so old.
    pub settle_count: usize,
    pub settle_weight: u64,
    pub settle_after: Duration,
    /// How many segments of about one size become one.
    pub fan: usize,
    /// Attempts are kept for so long; what they came to by day, for longer.
    pub keep_attempts: Duration,
    pub keep_days: Duration,
    /// Bytes of all segments: beyond them the oldest attempts go first, then the oldest days.
    pub max_bytes: u64,
    /// What is not needed any more is removed so long after.
    pub grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            settle_count: 64,
            settle_weight: MAX_WEIGHT / 2,
            settle_after: Duration::from_secs(600),
            fan: 8,
            keep_attempts: Duration::from_secs(180 * DAY),
            keep_days: Duration::from_secs(800 * DAY),
            max_bytes: 1 << 30,
            grace: Duration::from_secs(900),
        }
    }
}

/// One step of maintenance. All of them name segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Fresh segments become one.
    Settle(Vec<String>),
    /// Small segments become a larger one.
    Merge(Vec<String>),
    /// Of old segments only what they came to is kept.
    Age(Vec<String>),
    /// The oldest days go.
    Drop(Vec<String>),
    /// Nobody reads these any more.
    Remove(Vec<String>),
}

/// The next step, if there is one.
pub fn plan(catalogue: &Catalogue, fresh: &[Fresh], now: Time, policy: &Policy) -> Option<Task> {
    let steps = [
        settle(fresh, now, policy),
        age(&catalogue.segments, now, policy),
        merge(&catalogue.segments, policy),
        remove(catalogue, now, policy),
    ];
    steps.into_iter().flatten().next()
}

fn settle(fresh: &[Fresh], now: Time, policy: &Policy) -> Option<Task> {
    let mut fresh: Vec<_> = fresh.iter().collect();
    fresh.sort_by(|a, b| (a.committed, &a.meta.name).cmp(&(b.committed, &b.meta.name)));
    let oldest = fresh.first()?;
    let weight = fresh.iter().fold(0_u64, |sum, it| sum.saturating_add(it.meta.weight()));
    let is_due = fresh.len() >= policy.settle_count
        || weight >= policy.settle_weight
        || now.since(oldest.committed) >= policy.settle_after;
    let some = up_to(fresh.iter().map(|it| &it.meta), MAX_WEIGHT, SegmentMeta::weight);
    is_due.then(|| Task::Settle(some.into_iter().take(MAX_SETTLED).collect()))
}

/// Names of as many segments as stay within a sum, but of one at least.
fn up_to<'a>(
    segments: impl Iterator<Item = &'a SegmentMeta>,
    most: u64,
    of: fn(&SegmentMeta) -> u64,
) -> Vec<String> {
    let mut sum = 0_u64;
    let mut names = Vec::new();
    for it in segments {
        sum = sum.saturating_add(of(it));
        if sum > most && !names.is_empty() {
            break;
        }
        names.push(it.name.clone());
    }
    names
}

fn by_age(segments: &[SegmentMeta]) -> Vec<&SegmentMeta> {
    let mut segments: Vec<_> = segments.iter().collect();
    segments.sort_by(|a, b| (a.to, a.from, &a.name).cmp(&(b.to, b.from, &b.name)));
    segments
}

fn age(segments: &[SegmentMeta], now: Time, policy: &Policy) -> Option<Task> {
    let (raw, days): (Vec<_>, Vec<_>) = by_age(segments).into_iter().partition(|it| it.runs > 0);
    let bytes = segments.iter().fold(0_u64, |sum, it| sum.saturating_add(it.bytes));
    let is_full = bytes > policy.max_bytes;
    let old = |it: &&&SegmentMeta, keep| now.since(it.to) > keep;
    if let Some(it) = raw.first().filter(|it| is_full || old(it, policy.keep_attempts)) {
        return Some(Task::Age(vec![it.name.clone()]));
    }
    let it = days.first().filter(|it| is_full || old(it, policy.keep_days))?;
    Some(Task::Drop(vec![it.name.clone()]))
}

/// Neighbours in time are merged, so that segments stay apart in time.
fn merge(segments: &[SegmentMeta], policy: &Policy) -> Option<Task> {
    let (raw, days): (Vec<_>, Vec<_>) = by_age(segments).into_iter().partition(|it| it.runs > 0);
    let fan = policy.fan.max(2);
    let some = |all: &[&SegmentMeta], most, of: fn(&SegmentMeta) -> u64| {
        let names = up_to(all.iter().copied(), most, of);
        (names.len() >= fan.min(all.len()).max(2)).then_some(Task::Merge(names))
    };
    for tier in 0..TIERS {
        let own: Vec<_> = raw.iter().copied().filter(|it| tier_of(it) == tier).collect();
        if own.len() >= fan
            && let Some(task) = some(&own[..fan], MAX_WEIGHT, SegmentMeta::weight)
        {
            return Some(task);
        }
    }
    let small: Vec<_> = days.into_iter().filter(|it| it.days < MAX_DAYS / 8).collect();
    (small.len() >= fan).then(|| some(&small[..fan], MAX_DAYS, |it| it.days)).flatten()
}

/// Each eight times as large as the one before; what is larger than all is merged no more.
const TIERS: u32 = 4;

fn tier_of(it: &SegmentMeta) -> u32 {
    let steps = (it.weight() / (MAX_WEIGHT / 512)).max(1).ilog(8);
    if it.weight() >= MAX_WEIGHT / 8 { TIERS } else { steps }
}

fn remove(catalogue: &Catalogue, now: Time, policy: &Policy) -> Option<Task> {
    let due = catalogue.dead.iter().filter(|it| now.since(it.since) >= policy.grace);
    let names: Vec<_> = due.map(|it| it.name.clone()).collect();
    (!names.is_empty()).then_some(Task::Remove(names))
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Dead;
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn segment(name: &str, day: u64, runs: u64) -> SegmentMeta {
        let (from, to) = (Time(day * DAY), Time(day * DAY + 1000));
        SegmentMeta {
            name: name.into(),
            bytes: 100,
            runs,
            days: 10,
            from,
            to,
            ..Default::default()
        }
    }

    fn fresh(name: &str, committed: u64, runs: u64) -> Fresh {
        Fresh { meta: segment(name, 0, runs), committed: Time(committed) }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|it| format!("s{it:03}")).collect()
    }

    fn next(segments: Vec<SegmentMeta>, fresh: &[Fresh], now: u64) -> Option<Task> {
        let catalogue = Catalogue { segments, dead: Vec::new() };
        plan(&catalogue, fresh, Time(now), &Policy::default())
    }

    #[test]
    fn fresh_segments_settle_when_they_are_many_or_old() {
        assert_eq!(next(vec![], &[], 0), None);
        let one = [fresh("a", 1000, 5)];
        assert_eq!(next(vec![], &one, 2000), None);
        assert_eq!(next(vec![], &one, 601_000), Some(Task::Settle(vec!["a".into()])));
        let few = [fresh("a", 1000, MAX_WEIGHT / 4), fresh("b", 1000, MAX_WEIGHT / 4)];
        assert_eq!(next(vec![], &few[..1], 1000), None);
        assert_eq!(next(vec![], &few, 1000), Some(Task::Settle(vec!["a".into(), "b".into()])));
        // If the clock runs backwards, no segment counts as old.
        assert_eq!(next(vec![], &one, 0), None);
        let many: Vec<_> = names(64).iter().map(|it| fresh(it, 1000, 5)).collect();
        assert_eq!(next(vec![], &many, 1000), Some(Task::Settle(names(64))));
        let heavy: Vec<_> = names(64).iter().map(|it| fresh(it, 1000, MAX_WEIGHT / 2)).collect();
        assert_eq!(next(vec![], &heavy, 1000), Some(Task::Settle(names(2))));
        let heavier: Vec<_> = names(64).iter().map(|it| fresh(it, 1000, MAX_WEIGHT * 2)).collect();
        assert_eq!(next(vec![], &heavier, 1000), Some(Task::Settle(names(1))));
    }

    #[test]
    fn small_segments_of_one_size_merge_and_large_ones_do_not() {
        let all = |runs| names(8).iter().map(|it| segment(it, 1, runs)).collect::<Vec<_>>();
        assert_eq!(next(all(100), &[], DAY), Some(Task::Merge(names(8))));
        assert_eq!(next(all(100)[..7].to_vec(), &[], DAY), None);
        assert_eq!(next(all(MAX_WEIGHT / 8), &[], DAY), None);
        let mut mixed = all(100);
        mixed[3].runs = MAX_WEIGHT / 16;
        assert_eq!(next(mixed, &[], DAY), None);
    }

    #[test]
    fn attempts_age_before_days_do() {
        let old = segment("old", 0, 100);
        let new = segment("new", 180, 100);
        let both = vec![new.clone(), old.clone()];
        assert_eq!(next(both.clone(), &[], 180 * DAY), None);
        assert_eq!(next(both.clone(), &[], 181 * DAY), Some(Task::Age(vec!["old".into()])));
        let days = SegmentMeta { runs: 0, ..old };
        assert_eq!(next(vec![days.clone()], &[], 799 * DAY), None);
        assert_eq!(next(vec![days.clone()], &[], 801 * DAY), Some(Task::Drop(vec!["old".into()])));
        let policy = Policy { max_bytes: 150, ..Policy::default() };
        let full = |segments| {
            plan(&Catalogue { segments, dead: Vec::new() }, &[], Time(180 * DAY), &policy)
        };
        assert_eq!(full(vec![new.clone(), days.clone()]), Some(Task::Age(vec!["new".into()])));
        let new_days = SegmentMeta { runs: 0, ..new };
        assert_eq!(full(vec![new_days, days]), Some(Task::Drop(vec!["old".into()])));
    }

    #[test]
    fn the_dead_are_removed_after_a_while() {
        let dead = vec![Dead { name: "a".into(), since: Time(1000) }];
        let catalogue = Catalogue { segments: Vec::new(), dead };
        let at = |now| plan(&catalogue, &[], Time(now), &Policy::default());
        assert_eq!(at(900_999), None);
        assert_eq!(at(901_000), Some(Task::Remove(vec!["a".into()])));
    }

    /// Whatever comes, the number of segments stays in proportion to the logarithm of what they hold.
    #[test]
    fn segments_stay_few() {
        let mut segments: Vec<SegmentMeta> = Vec::new();
        for number in 0..4000_u64 {
            segments.push(segment(&format!("n{number:05}"), number / 100, 500));
            while let Some(Task::Merge(merged)) = merge(&segments, &Policy::default()) {
                let (gone, rest): (Vec<_>, Vec<_>) =
                    segments.into_iter().partition(|it| merged.contains(&it.name));
                assert!(gone.len() > 1);
                let runs = gone.iter().map(|it| it.runs).sum();
                let (from, to) = (gone[0].from, gone[gone.len() - 1].to);
                segments = rest;
                let name = format!("m{}-{number}", merged[0]);
                segments.push(SegmentMeta { name, runs, from, to, ..gone[0].clone() });
            }
        }
        assert!(segments.len() < 60, "{}", segments.len());
        assert_eq!(segments.iter().map(|it| it.runs).sum::<u64>(), 2_000_000);
    }
}
