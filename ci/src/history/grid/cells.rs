//! What attempts at a test come to at one commit or in one invocation.

use std::time::Duration;

use crate::model::Outcome;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CellState {
    Skipped,
    Passed,
    /// The infrastructure failed, and nothing else is known.
    Infrastructure,
    /// The test failed and passed.
    Flaky,
    TimedOut,
    Failed,
}

/// What became of a test at one commit or in one invocation; of several shards and runs the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub state: CellState,
    /// What the attempt took that took longest.
    pub took: Option<Duration>,
    pub attempts: u32,
    /// How many shards and runs of the test are in this cell.
    pub shards: u32,
    /// What shards and runs took, of each the attempt that took longest.
    pub total: Duration,
    /// What all their other attempts took.
    pub again: Duration,
}

impl Cell {
    /// What a shard took on average, as a share of the longest one; nothing for tests without shards.
    pub fn balance(&self) -> Option<f64> {
        let longest = self.took.filter(|it| self.shards > 1 && !it.is_zero())?;
        Some(self.total.as_secs_f64() / f64::from(self.shards) / longest.as_secs_f64())
    }
}

/// An attempt at its place.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub column: usize,
    pub run: u32,
    pub shard: u32,
    pub outcome: Outcome,
    pub took: Option<Duration>,
}

/// The cells of a row with so many columns.
pub fn cells_of(mut marks: Vec<Mark>, columns: usize) -> Vec<Option<Cell>> {
    marks.sort_unstable_by_key(|it| (it.column, it.run, it.shard));
    let mut cells: Vec<Option<Cell>> = vec![None; columns];
    for group in marks.chunk_by(|a, b| (a.column, a.run, a.shard) == (b.column, b.run, b.shard)) {
        let Some(state) = state(group) else { continue };
        let took = group.iter().map(|it| it.took).max().flatten();
        let cell = cells[group[0].column].get_or_insert(Cell {
            state,
            took: None,
            attempts: 0,
            shards: 0,
            total: Duration::ZERO,
            again: Duration::ZERO,
        });
        cell.state = cell.state.max(state);
        cell.took = took.max(cell.took);
        cell.shards = cell.shards.saturating_add(1);
        let longest = took.unwrap_or_default();
        let all =
            group.iter().filter_map(|it| it.took).fold(Duration::ZERO, Duration::saturating_add);
        cell.total = cell.total.saturating_add(longest);
        cell.again = cell.again.saturating_add(all.saturating_sub(longest));
        cell.attempts =
            cell.attempts.saturating_add(u32::try_from(group.len()).unwrap_or(u32::MAX));
    }
    cells
}

/// The state of one run and shard, by the marks of its attempts.
fn state(group: &[Mark]) -> Option<CellState> {
    let has = |outcome| group.iter().any(|it| it.outcome == outcome);
    let failed = has(Outcome::Failed) || has(Outcome::TimedOut);
    let states = [
        (has(Outcome::Passed) && failed, CellState::Flaky),
        (has(Outcome::Passed), CellState::Passed),
        (has(Outcome::Failed), CellState::Failed),
        (failed, CellState::TimedOut),
        (has(Outcome::Infrastructure), CellState::Infrastructure),
        (has(Outcome::Skipped), CellState::Skipped),
    ];
    states.into_iter().find(|(is_so, _)| *is_so).map(|(_, state)| state)
}
