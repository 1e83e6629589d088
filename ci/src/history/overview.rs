//! All tests at once, by what they came to each day.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::days::{Day, add_invocation};
use super::digest::{Seen, each_joined};
use super::query::damaged;
use super::segment::{self, TestEntry};
use super::snapshot::Snapshot;
use super::{History, HistoryError, SegmentMeta};
use crate::model::TestKey;
use crate::storage::Damage;

/// A test and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    pub test: TestKey,
    pub sum: Day,
}

/// A test and what it came to, day by day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub test: TestKey,
    /// What became of the test on each day, by the number of the day; days without an attempt are left out.
    pub days: BTreeMap<u64, Day>,
}

impl History {
    /// All tests of all instances that ran in these days, in order.
    pub async fn tested(&self, days: RangeInclusive<u64>) -> Result<Vec<Tested>, HistoryError> {
        let days = &days;
        self.with_snapshot(|snapshot| async move {
            let mut all: HashMap<TestKey, BTreeMap<u64, Day>> = HashMap::new();
            let add = |test: &TestKey, number, day: &Day| match all.get_mut(test) {
                Some(days) => days.entry(number).or_default().add(day),
                None => {
                    all.insert(test.clone(), BTreeMap::from([(number, *day)]));
                }
            };
            self.each_day(&snapshot, days, |_| true, add).await?;
            let mut all: Vec<_> =
                all.into_iter().map(|(test, days)| Tested { test, days }).collect();
            all.sort_unstable_by(|a, b| a.test.cmp(&b.test));
            Ok(all)
        })
        .await
    }

    /// The tests of an instance with the most flaky first attempts in these days (from, to: both are
    /// included), and among equals those that failed most.
    pub async fn flakiest(
        &self,
        instance: &str,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<Ranked>, HistoryError> {
        let sums =
            self.with_snapshot(|snapshot| self.sums_in(snapshot, instance, from..=to)).await?;
        let mut ranked: Vec<_> = sums.into_iter().map(|(test, sum)| Ranked { test, sum }).collect();
        ranked.retain(|it| it.sum.flaky > 0);
        let rank = |it: &Ranked| (it.sum.flaky, it.sum.failed);
        ranked.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.test.cmp(&b.test)));
        ranked.truncate(limit);
        Ok(ranked)
    }

    async fn sums_in(
        &self,
        snapshot: Snapshot,
        instance: &str,
        within: RangeInclusive<u64>,
    ) -> Result<HashMap<TestKey, Day>, HistoryError> {
        let mut sums: HashMap<TestKey, Day> = HashMap::new();
        let add = |test: &TestKey, _, day: &Day| match sums.get_mut(test) {
            Some(sum) => sum.add(day),
            None => {
                sums.insert(test.clone(), *day);
            }
        };
        self.each_day(&snapshot, &within, |it| it == instance, add).await?;
        Ok(sums)
    }

    /// Hands out the days of tests of these instances, in parts that are to be added up.
    async fn each_day(
        &self,
        snapshot: &Snapshot,
        within: &RangeInclusive<u64>,
        instances: impl Fn(&str) -> bool,
        mut each: impl FnMut(&TestKey, u64, &Day),
    ) -> Result<(), HistoryError> {
        let touches =
            |it: &&SegmentMeta| it.from.day() <= *within.end() && *within.start() <= it.to.day();
        for it in snapshot.catalogue.segments.iter().filter(touches) {
            let tests = self.days_and_tests(it).await?;
            for (entry, own) in tests.into_iter().filter(|(it, _)| instances(&it.test.instance)) {
                let own = own.iter().filter(|(day, _)| within.contains(day));
                own.for_each(|(number, day)| each(&entry.test, *number, day));
            }
        }
        let settled = self.settled_invocations(snapshot).await?;
        let digests = self.digests(snapshot).await?;
        let is_wanted = |instance: &str, _: &str| instances(instance);
        let is_open = |id: &str| !settled.contains(id);
        let mut counted = Vec::new();
        each_joined(&digests, is_wanted, is_open, |test, runs| {
            let mut days = BTreeMap::new();
            for own in runs.chunk_by(Seen::is_of_invocation) {
                let own = own.iter().filter(|it| it.outline.known.counts());
                counted.clear();
                counted.extend(own.map(Seen::counted));
                add_invocation(&mut days, &counted);
            }
            let days = days.iter().filter(|(number, _)| within.contains(number));
            days.for_each(|(number, day)| each(test, *number, day));
        });
        Ok(())
    }

    /// All tests of a segment with their days.
    async fn days_and_tests(
        &self,
        it: &SegmentMeta,
    ) -> Result<Vec<(TestEntry, Vec<(u64, Day)>)>, HistoryError> {
        let footer = self.footer(it).await?;
        let mut all = Vec::new();
        for block in &footer.days {
            let sealed = self.segments.read(&it.name, block.range()).await?;
            all.extend(segment::days_of(&sealed, block).map_err(|source| damaged(it, source))?);
        }
        let mut tests = Vec::new();
        for block in &footer.tests {
            let sealed = self.segments.read(&it.name, block.block.range()).await?;
            let entries = segment::tests_of(&sealed, &block.block);
            for entry in entries.map_err(|source| damaged(it, source))? {
                let at = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
                let own = all.get(at(entry.days.start)..at(entry.days.end));
                let own = own.ok_or_else(|| damaged(it, Damage::Form("day")))?.to_vec();
                tests.push((entry, own));
            }
        }
        Ok(tests)
    }
}
