//! Tests down, commits or invocations across.

mod cells;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

pub use cells::{Cell, CellState};

use super::digest::{self, Digest, Seen, each_joined};
use super::query::{SKEW, damaged};
use super::segment::{self, Glance, Invocation, RunsBlock};
use super::snapshot::Snapshot;
use super::{CACHED_LIST, History, HistoryError, SegmentMeta};
use crate::attempts::SHADOW;
use crate::model::{TestKey, Time};
use cells::{Mark, cells_of};

/// Most columns of a grid.
pub const MAX_COLUMNS: usize = 1000;
/// Invocations that are looked through for columns, the newest ones.
const MAX_INVOCATIONS: usize = 50_000;

/// What the columns of a grid are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Across {
    /// Runs of no known commit are left out.
    #[default]
    Commits,
    Invocations,
}

/// Says which columns a grid has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GridQuery {
    pub across: Across,
    /// The instance whose runs count; `None`: those of all.
    pub instance: Option<String>,
    /// The branch whose runs count; `None`: those of all.
    pub branch: Option<String>,
    /// How many columns the grid has at most: the newest ones.
    pub columns: usize,
}

/// A commit or an invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub commit: Option<String>,
    /// The branch of the invocation that began last.
    pub branch: Option<String>,
    /// When the first test of the column began.
    pub began: Time,
    /// The invocation that began last.
    pub invocation: String,
    last: Time,
}

/// The newest column first; each row has a place for each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    pub columns: Vec<Column>,
    pub rows: Vec<(TestKey, Vec<Option<Cell>>)>,
}

impl History {
    /// What became of these tests, which are in order, in the newest columns.
    pub async fn grid(&self, query: &GridQuery, tests: &[TestKey]) -> Result<Grid, HistoryError> {
        self.with_snapshot(|snapshot| self.grid_in(snapshot, query, tests)).await
    }

    async fn grid_in(
        &self,
        snapshot: Snapshot,
        query: &GridQuery,
        tests: &[TestKey],
    ) -> Result<Grid, HistoryError> {
        let digests = self.digests(&snapshot).await?;
        let columns = self.columns(&snapshot, &digests, query).await?;
        let places = Places::of(query, &columns);
        let mut marks: Vec<Vec<Mark>> = vec![Vec::new(); tests.len()];
        let oldest = columns.iter().map(|it| it.began).min().unwrap_or_default();
        let is_new = |it: &&SegmentMeta| it.runs > 0 && oldest <= it.to.plus(SKEW);
        for it in snapshot.catalogue.segments.iter().filter(is_new) {
            self.mark_segment(it, tests, &places, &mut marks).await?;
        }
        each_joined(
            &digests,
            |instance, label| has_label(tests, instance, label),
            |_| true,
            |test, runs| {
                if let Ok(row) = tests.binary_search(test) {
                    marks[row].extend(runs.iter().filter_map(|it| places.mark(it)));
                }
            },
        );
        let row =
            |(test, marks): (&TestKey, Vec<Mark>)| (test.clone(), cells_of(marks, columns.len()));
        let rows = tests.iter().zip(marks).map(row).collect();
        Ok(Grid { columns, rows })
    }

    async fn columns(
        &self,
        snapshot: &Snapshot,
        fresh: &[Arc<Digest>],
        query: &GridQuery,
    ) -> Result<Vec<Column>, HistoryError> {
        let mut found: HashMap<String, Column> = HashMap::new();
        let fresh = digest::invocations(fresh);
        fresh.iter().for_each(|it| add_column(&mut found, query, it));
        let mut looked_at = 0;
        let mut segments: Vec<_> =
            snapshot.catalogue.segments.iter().filter(|it| it.runs > 0).collect();
        segments.sort_by_key(|it| std::cmp::Reverse(it.to));
        for it in segments {
            let own = self.invocations(it).await?;
            own.iter().for_each(|it| add_column(&mut found, query, it));
            looked_at += own.len();
            if looked_at > MAX_INVOCATIONS {
                break;
            }
        }
        let mut columns: Vec<_> = found.into_values().collect();
        columns.sort_unstable_by(|a, b| b.began.cmp(&a.began).then_with(|| a.name.cmp(&b.name)));
        columns.truncate(query.columns.min(MAX_COLUMNS));
        Ok(columns)
    }

    async fn mark_segment(
        &self,
        it: &SegmentMeta,
        tests: &[TestKey],
        places: &Places<'_>,
        marks: &mut [Vec<Mark>],
    ) -> Result<(), HistoryError> {
        let rows = self.rows_of(it, tests).await?;
        let invocations = self.invocations(it).await?;
        let columns: Vec<_> = invocations.iter().map(|it| places.find(it)).collect();
        let footer = self.footer(it).await?;
        for block in &footer.runs {
            // Both are in the order of the tests.
            let from = rows.partition_point(|(_, runs)| runs.end <= block.runs.first);
            let own = rows[from..].iter().take_while(|(_, runs)| block.runs.has(runs));
            let own: Vec<_> = own.filter(|(_, runs)| !runs.is_empty()).collect();
            if own.is_empty() {
                continue;
            }
            let glances = self.glances(it, block).await?;
            for (row, runs) in own {
                let at = |run: u64| run.saturating_sub(block.runs.first) as usize;
                let end = at(runs.end).min(glances.len());
                let marked = glances[at(runs.start).min(end)..end].iter();
                marks[*row].extend(marked.filter_map(|it| mark(it, &columns)));
            }
        }
        Ok(())
    }

    /// Which of these tests a segment has, by their indexes, and which of its runs are theirs. `tests` are in order.
    async fn rows_of(
        &self,
        it: &SegmentMeta,
        tests: &[TestKey],
    ) -> Result<Vec<(usize, Range<u64>)>, HistoryError> {
        let footer = self.footer(it).await?;
        let mut rows = Vec::new();
        for (number, block) in footer.tests.iter().enumerate() {
            let next = footer.tests.get(number + 1).map(|next| &next.first);
            let from = tests.partition_point(|test| *test < block.first);
            let to = next.map_or(tests.len(), |next| tests.partition_point(|test| test < next));
            if from >= to {
                continue;
            }
            let sealed = self.segments.read(&it.name, block.block.range()).await?;
            let entries = segment::tests_of(&sealed, &block.block);
            let entries = entries.map_err(|source| damaged(it, source))?;
            for (row, test) in tests.iter().enumerate().take(to).skip(from) {
                if let Ok(at) = entries.binary_search_by(|entry| entry.test.cmp(test)) {
                    rows.push((row, entries[at].runs.clone()));
                }
            }
        }
        Ok(rows)
    }

    async fn glances(
        &self,
        it: &SegmentMeta,
        block: &RunsBlock,
    ) -> Result<Arc<Vec<Glance>>, HistoryError> {
        let key = (it.name.clone(), block.runs.first);
        let cached = self.glances.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let sealed = self.segments.read(&it.name, block.runs.range()).await?;
        let glances = segment::glances_of(&sealed, &block.runs);
        let glances = Arc::new(glances.map_err(|source| damaged(it, source))?);
        let mut kept = self.glances.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put(key, glances.clone());
        Ok(glances)
    }

    pub(super) async fn invocations(
        &self,
        it: &SegmentMeta,
    ) -> Result<Arc<Vec<Invocation>>, HistoryError> {
        let cached =
            self.invocations.lock().unwrap_or_else(PoisonError::into_inner).get(&it.name).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let footer = self.footer(it).await?;
        let mut invocations = Vec::new();
        for block in &footer.invocations {
            let sealed = self.segments.read(&it.name, block.range()).await?;
            let own = segment::invocations_of(&sealed, block);
            invocations.extend(own.map_err(|source| damaged(it, source))?);
        }
        let invocations = Arc::new(invocations);
        if invocations.len() <= CACHED_LIST {
            let mut kept = self.invocations.lock().unwrap_or_else(PoisonError::into_inner);
            kept.put(it.name.clone(), invocations.clone());
        }
        Ok(invocations)
    }
}

/// Whether one of these tests, which are in order, has this label, in whatever configuration.
fn has_label(tests: &[TestKey], instance: &str, label: &str) -> bool {
    let of = |it: &TestKey| (it.instance.as_str(), it.label.as_str()).cmp(&(instance, label));
    tests.binary_search_by(of).is_ok()
}

/// The places of columns in a row, by their names.
struct Places<'a> {
    query: &'a GridQuery,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Places<'a> {
    fn of(query: &'a GridQuery, columns: &'a [Column]) -> Self {
        let named = columns.iter().enumerate().map(|(at, it)| (it.name.as_str(), at));
        Self { query, by_name: named.collect() }
    }

    fn find(&self, it: &Invocation) -> Option<usize> {
        self.by_name.get(self.query.column(it)?).copied()
    }

    fn mark(&self, it: &Seen<'_>) -> Option<Mark> {
        let (of, seen) = (&it.origin, &it.outline);
        let name = self.query.column_of(&it.test.instance, of.id, of.commit, of.branch)?;
        let column = self.by_name.get(name).copied().filter(|_| seen.known.counts())?;
        let (run, shard) = (seen.slot.run, seen.slot.shard);
        Some(Mark { column, run, shard, outcome: seen.outcome, took: seen.took })
    }
}

impl GridQuery {
    fn column<'a>(&self, it: &'a Invocation) -> Option<&'a str> {
        self.column_of(&it.instance, &it.id, it.commit.as_deref(), it.branch.as_deref())
    }

    /// What the column of an invocation is called; nothing where it has none.
    fn column_of<'a>(
        &self,
        instance: &str,
        invocation: &'a str,
        commit: Option<&'a str>,
        branch: Option<&str>,
    ) -> Option<&'a str> {
        let is_wanted = self.instance.as_ref().is_none_or(|wanted| wanted == instance)
            && self.branch.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == branch);
        let name = match self.across {
            Across::Commits => commit,
            Across::Invocations => Some(invocation),
        };
        // A shadow run belongs to no invocation of anybody.
        name.filter(|_| is_wanted && !invocation.starts_with(SHADOW))
    }
}

fn add_column(found: &mut HashMap<String, Column>, query: &GridQuery, it: &Invocation) {
    let Some(name) = query.column(it) else { return };
    let known = match found.get_mut(name) {
        Some(known) => known,
        None => found.entry(name.to_owned()).or_insert(Column {
            name: name.to_owned(),
            commit: it.commit.clone(),
            branch: None,
            began: it.from,
            invocation: String::new(),
            last: Time(0),
        }),
    };
    // 0 says that nobody knows.
    if known.began == Time(0) || Time(0) < it.from && it.from < known.began {
        known.began = it.from;
    }
    if known.last <= it.from {
        known.last = it.from;
        known.branch.clone_from(&it.branch);
        known.invocation.clone_from(&it.id);
    }
}

fn mark(it: &Glance, columns: &[Option<usize>]) -> Option<Mark> {
    let column = (*columns.get(usize::try_from(it.invocation).ok()?)?)?;
    let Glance { outcome, run, shard, took, .. } = *it;
    it.known.counts().then_some(Mark { column, run, shard, outcome, took })
}

#[cfg(test)]
mod tests;
