//! What is asked of the history.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::days::{Day, days};
use super::segment::{self, Footer, Invocation, RunsBlock, TAIL, TestEntry, footer_range};
use super::snapshot::Snapshot;
use super::{History, HistoryError, SegmentMeta};
use crate::attempts::{Attempt, join, settle};
use crate::model::{TestKey, Time};
use crate::storage::Damage;

/// How far the times of one attempt may differ between those who know of it.
pub(super) const SKEW: Duration = Duration::from_secs(24 * 3600);

/// What is wanted of the attempts at a test.
#[derive(Clone, Copy)]
struct Wanted {
    cases: bool,
    /// Also the parts in which the server ran some of them.
    parts: bool,
}

impl Wanted {
    fn has(self, it: &Attempt) -> bool {
        self.parts || !it.is_part()
    }
}

/// Attempts that are read beyond those that are asked for, so that those at the edge are whole.
const MARGIN: usize = 64;

/// Parts that are read of a segment for each attempt, at most: the server makes no more of a test. Where builds are
/// cancelled there may be parts without end that are of no attempt.
const MAX_PARTS: usize = 64;

impl History {
    /// The attempts at a test that began last, newest first, with their cases if these are wanted.
    pub async fn newest(
        &self,
        test: &TestKey,
        limit: usize,
        cases: bool,
    ) -> Result<Vec<Attempt>, HistoryError> {
        let wanted = Wanted { cases, parts: false };
        self.with_snapshot(|snapshot| self.newest_in(snapshot, test, limit, wanted)).await
    }

    /// The attempts that [`Self::newest`] finds, with their cases, and among them the parts in which the server ran some
    /// of them. Parts do not count for the limit.
    pub async fn newest_with_parts(
        &self,
        test: &TestKey,
        limit: usize,
    ) -> Result<Vec<Attempt>, HistoryError> {
        let wanted = Wanted { cases: true, parts: true };
        self.with_snapshot(|snapshot| self.newest_in(snapshot, test, limit, wanted)).await
    }

    async fn newest_in(
        &self,
        snapshot: Snapshot,
        test: &TestKey,
        limit: usize,
        wanted: Wanted,
    ) -> Result<Vec<Attempt>, HistoryError> {
        let is_wanted = |it: &Attempt| may_be(it, test) && wanted.has(it);
        let mut found = self.fresh_of(&snapshot, is_wanted).await?;
        let mut segments = snapshot.catalogue.segments;
        segments.retain(|it| it.runs > 0);
        segments.sort_by_key(|it| std::cmp::Reverse(it.to));
        for it in &segments {
            let newest = newest(found.clone(), test, limit);
            let whole = newest.iter().filter(|it| !it.is_part()).count();
            let is_enough = |last: &Attempt| whole == limit && last.started.since(it.to) > SKEW;
            if limit == 0 || newest.last().is_some_and(is_enough) {
                break;
            }
            let most = limit.saturating_mul(2).saturating_add(MARGIN);
            found.extend(self.attempts_of(it, test, most, wanted).await?);
        }
        let mut newest = newest(found, test, limit);
        if !wanted.cases {
            newest.iter_mut().for_each(|it| it.cases.clear());
        }
        Ok(newest)
    }

    /// What a test came to, by day.
    pub async fn days(&self, test: &TestKey) -> Result<BTreeMap<u64, Day>, HistoryError> {
        self.with_snapshot(|snapshot| self.days_in(snapshot, test)).await
    }

    /// Fresh attempts may be known to older segments in part, so that these are joined with them.
    async fn days_in(
        &self,
        snapshot: Snapshot,
        test: &TestKey,
    ) -> Result<BTreeMap<u64, Day>, HistoryError> {
        let wanted = Wanted { cases: false, parts: false };
        let is_wanted = |it: &Attempt| may_be(it, test) && wanted.has(it);
        let fresh = self.fresh_of(&snapshot, is_wanted).await?;
        let span = span(&fresh);
        let mut sum = BTreeMap::new();
        let mut again = fresh;
        for it in &snapshot.catalogue.segments {
            if span.is_some_and(|(from, to)| it.runs > 0 && it.touches(from, to)) {
                again.extend(self.attempts_of(it, test, usize::MAX, wanted).await?);
            } else {
                self.add_days(it, test, &mut sum).await?;
            }
        }
        let own: Vec<_> = join(again).into_iter().filter(|it| it.test == *test).collect();
        add(&mut sum, days(&own));
        Ok(sum)
    }

    pub(super) async fn footer(&self, it: &SegmentMeta) -> Result<Arc<Footer>, HistoryError> {
        let cached =
            self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(&it.name).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let tail = self.segments.read(&it.name, it.bytes.saturating_sub(TAIL)..it.bytes).await?;
        let range = footer_range(&tail, it.bytes).map_err(|source| damaged(it, source))?;
        let sealed = self.segments.read(&it.name, range).await?;
        let footer = Arc::new(Footer::open(&sealed).map_err(|source| damaged(it, source))?);
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        footers.put(it.name.clone(), footer.clone());
        Ok(footer)
    }

    async fn entry(
        &self,
        it: &SegmentMeta,
        test: &TestKey,
    ) -> Result<Option<TestEntry>, HistoryError> {
        let footer = self.footer(it).await?;
        for block in footer.tests_blocks(test) {
            let sealed = self.segments.read(&it.name, block.block.range()).await?;
            let entries = segment::tests_of(&sealed, &block.block);
            let entries = entries.map_err(|source| damaged(it, source))?;
            if let Ok(at) = entries.binary_search_by(|entry| entry.test.cmp(test)) {
                return Ok(entries.into_iter().nth(at));
            }
        }
        Ok(None)
    }

    /// The last ones of a test in a segment, at least one and at most so many, and parts beside them.
    async fn attempts_of(
        &self,
        it: &SegmentMeta,
        test: &TestKey,
        most: usize,
        wanted: Wanted,
    ) -> Result<Vec<Attempt>, HistoryError> {
        let Some(entry) = self.entry(it, test).await? else { return Ok(Vec::new()) };
        let footer = self.footer(it).await?;
        let invocations = self.invocations(it).await?;
        let (mut newest_first, mut whole) = (Vec::new(), 0);
        let most_parts = most.saturating_mul(MAX_PARTS);
        for block in footer.runs.iter().rev().filter(|block| block.runs.has(&entry.runs)) {
            let own = self.block_of(it, block, &entry, &invocations, wanted.cases).await?;
            for attempt in own.into_iter().rev().filter(|it| wanted.has(it)) {
                whole += usize::from(!attempt.is_part());
                newest_first.push(attempt);
                // No block is read for nothing.
                if whole == most || newest_first.len() - whole >= most_parts {
                    return Ok(newest_first);
                }
            }
        }
        Ok(newest_first)
    }

    async fn block_of(
        &self,
        it: &SegmentMeta,
        block: &RunsBlock,
        entry: &TestEntry,
        invocations: &[Invocation],
        cases: bool,
    ) -> Result<Vec<Attempt>, HistoryError> {
        let runs = self.segments.read(&it.name, block.runs.range()).await?;
        let cases = match cases && block.cases.count > 0 {
            true => Some(self.segments.read(&it.name, block.cases.range()).await?),
            false => None,
        };
        let invocation = |at: u64| invocations.get(usize::try_from(at).ok()?).cloned();
        let own = segment::runs_of_one(&runs, cases.as_deref(), &block.runs, entry, invocation);
        own.map_err(|source| damaged(it, source))
    }

    async fn add_days(
        &self,
        it: &SegmentMeta,
        test: &TestKey,
        sum: &mut BTreeMap<u64, Day>,
    ) -> Result<(), HistoryError> {
        let Some(entry) = self.entry(it, test).await? else { return Ok(()) };
        let footer = self.footer(it).await?;
        for block in footer.days.iter().filter(|block| block.has(&entry.days)) {
            let sealed = self.segments.read(&it.name, block.range()).await?;
            let all = segment::days_of(&sealed, block).map_err(|source| damaged(it, source))?;
            let own = (block.first..).zip(all).filter(|(at, _)| entry.days.contains(at));
            add(sum, own.map(|(_, day)| day));
        }
        Ok(())
    }
}

pub(super) fn damaged(it: &SegmentMeta, source: Damage) -> HistoryError {
    HistoryError::Damaged { segment: it.name.clone(), source }
}

/// The earliest and the latest time of these attempts, by whatever clock; `None`: there are none.
pub(super) fn span(attempts: &[Attempt]) -> Option<(Time, Time)> {
    let started = attempts.iter().map(|it| it.started);
    Some(within_skew(started.clone().min()?, started.max()?))
}

/// The earliest and the latest time, by whatever clock, of what began between these by one.
pub(super) fn within_skew(from: Time, to: Time) -> (Time, Time) {
    let skew = u64::try_from(SKEW.as_millis()).unwrap_or(u64::MAX);
    (Time(from.0.saturating_sub(skew)), to.plus(SKEW))
}

/// Executions of older clients do not know their configuration until they are joined.
fn may_be(it: &Attempt, test: &TestKey) -> bool {
    let is_configured =
        it.test.configuration.is_empty() || it.test.configuration == test.configuration;
    it.test.label == test.label && it.test.instance == test.instance && is_configured
}

fn newest(attempts: Vec<Attempt>, test: &TestKey, limit: usize) -> Vec<Attempt> {
    let mut all = settle(join(attempts));
    all.retain(|it| it.test == *test);
    all.sort_by(|a, b| {
        // Parts come before what was put together of them, so that they are never cut off from it.
        let key = |it: &Attempt| (it.started, it.is_part(), it.slot.attempt, it.execution);
        key(b).cmp(&key(a)).then_with(|| b.invocation.cmp(&a.invocation))
    });
    let mut whole = all.iter().enumerate().filter(|(_, it)| !it.is_part()).map(|(at, _)| at);
    let end = match limit.checked_sub(1) {
        Some(last) => whole.nth(last).map_or(all.len(), |at| at + 1),
        None => 0,
    };
    all.truncate(end);
    all
}

fn add(sum: &mut BTreeMap<u64, Day>, days: impl IntoIterator<Item = (u64, Day)>) {
    for (number, day) in days {
        sum.entry(number).or_default().add(&day);
    }
}
