//! What tests cost, and how far they can be trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::days::Day;
use super::grid::{Across, Cell, CellState, Grid, GridQuery};
use super::overview::Tested;
use super::{History, HistoryError};
use crate::model::TestKey;

/// Invocations that are looked at.
pub const LOOKED_AT: usize = 100;
/// Failed tests that are named of one invocation; with more it is no matter of single tests.
const MAX_FAILED: usize = 50;
/// Tests that are looked at, so that memory is bounded.
const MAX_TESTS: usize = 50_000;

/// What tests cost, and how far they can be trusted, over the last days.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub days: BTreeMap<u64, Day>,
    pub sum: Day,
    pub tests: u64,
    pub suites: Suites,
    /// The newest invocations one by one.
    pub runs: Vec<SuiteRun>,
}

/// The tests of one invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuiteRun {
    pub invocation: String,
    /// Tests that failed in all their attempts, at most [`MAX_FAILED`].
    pub failed: Vec<TestKey>,
    /// Whether no more tests failed than are listed.
    pub is_whole: bool,
    /// What attempts took that were made because others had failed, of tests that passed in the end.
    pub retries: Duration,
}

/// What is known of the newest invocations.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Suites {
    pub invocations: u64,
    /// How many of them had no test that failed in all its attempts.
    pub well: u64,
    /// How many of the well ones had a test that failed and passed, so that without retries they would have been red.
    pub false_red: u64,
    /// The chance of that by the flake rates of the tests that ran, on average over the well ones.
    pub predicted: Option<f64>,
    /// Sharded tests, and how long a shard takes on average, as a share of the longest one's time.
    pub sharded: u64,
    pub balance: Option<f64>,
}

impl Suites {
    pub fn observed(&self) -> Option<f64> {
        (self.well > 0).then(|| self.false_red as f64 / self.well as f64)
    }
}

impl History {
    /// What these tests, with their days, come to, and what the newest invocations do.
    pub async fn figures(&self, tests: &[Tested]) -> Result<Figures, HistoryError> {
        let mut figures = Figures { tests: tests.len() as u64, ..Figures::default() };
        for (number, day) in tests.iter().flat_map(|it| &it.days) {
            figures.days.entry(*number).or_default().add(day);
            figures.sum.add(day);
        }
        let keys: Vec<TestKey> = tests.iter().take(MAX_TESTS).map(|it| it.test.clone()).collect();
        let query =
            GridQuery { across: Across::Invocations, columns: LOOKED_AT, ..GridQuery::default() };
        let grid = self.grid(&query, &keys).await?;
        figures.suites = suites(&grid, tests);
        figures.runs = runs(&grid);
        Ok(figures)
    }
}

fn suites(grid: &Grid, tests: &[Tested]) -> Suites {
    let rates: Vec<f64> = tests.iter().map(rate).collect();
    let columns = (0..grid.columns.len()).map(|column| {
        let cells = grid.rows.iter().zip(&rates);
        cells.filter_map(move |((_, cells), rate)| Some((cells.get(column)?.as_ref()?, *rate)))
    });
    let mut suites = Suites::default();
    let (mut predicted, mut balance) = (0.0, 0.0);
    for cells in columns {
        let cells: Vec<(&Cell, f64)> = cells.collect();
        let has = |state| cells.iter().any(|(cell, _)| cell.state == state);
        suites.invocations += 1;
        for share in cells.iter().filter_map(|(cell, _)| cell.balance()) {
            suites.sharded += 1;
            balance += share;
        }
        if has(CellState::Failed) || has(CellState::TimedOut) {
            continue;
        }
        suites.well += 1;
        suites.false_red += u64::from(has(CellState::Flaky));
        let green: f64 = cells.iter().map(|(_, rate)| (-rate).ln_1p()).sum();
        predicted += 1.0 - green.exp();
    }
    suites.predicted = (suites.well > 0).then(|| predicted / suites.well as f64);
    suites.balance = (suites.sharded > 0).then(|| balance / suites.sharded as f64);
    suites
}

fn runs(grid: &Grid) -> Vec<SuiteRun> {
    let run = |(at, column): (usize, &super::grid::Column)| {
        let mut run = SuiteRun { invocation: column.invocation.clone(), ..SuiteRun::default() };
        let mut failed = 0;
        for (test, cells) in &grid.rows {
            let Some(Some(cell)) = cells.get(at) else { continue };
            match cell.state {
                CellState::Flaky => run.retries = run.retries.saturating_add(cell.again),
                CellState::Failed | CellState::TimedOut => {
                    failed += 1;
                    if failed <= MAX_FAILED {
                        run.failed.push(test.clone());
                    }
                }
                _ => {}
            }
        }
        run.is_whole = failed <= MAX_FAILED;
        run
    };
    grid.columns.iter().enumerate().map(run).collect()
}

/// The flake rate of a test, which is never certain, so that its logarithm is a number.
fn rate(tested: &Tested) -> f64 {
    let mut sum = Day::default();
    tested.days.values().for_each(|day| sum.add(day));
    sum.flake_rate().unwrap_or(0.0).min(0.999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(state: CellState, shards: u32) -> Option<Cell> {
        let total = Duration::from_secs(3) * shards / 2;
        let again = Duration::from_secs(2);
        Some(Cell { state, took: Some(Duration::from_secs(3)), attempts: 1, shards, total, again })
    }

    fn tested(label: &str, flaky: u64) -> Tested {
        let test = TestKey {
            instance: String::new(),
            label: label.to_owned(),
            configuration: String::new(),
        };
        let day = Day { first: 10, flaky, ..Day::default() };
        Tested { test, days: BTreeMap::from([(7, day)]) }
    }

    #[test]
    fn what_retries_hide_is_counted_among_what_was_well() {
        let tests = [tested("//a", 5), tested("//b", 0)];
        let states = [CellState::Flaky, CellState::Passed, CellState::Passed, CellState::Failed];
        let rows = tests
            .iter()
            .zip([states, [CellState::Passed; 4]])
            .map(|(it, states)| (it.test.clone(), states.map(|state| cell(state, 2)).to_vec()));
        let columns = vec![Default::default(); 4];
        let grid = Grid { columns, rows: rows.collect() };
        let runs = runs(&grid);
        let of = |at: usize| (runs[at].failed.len(), runs[at].retries.as_secs());
        assert_eq!([of(0), of(1), of(3)], [(0, 2), (0, 0), (1, 0)]);
        assert_eq!(runs[3].failed, [tests[0].test.clone()]);
        let suites = suites(&grid, &tests);
        assert_eq!((suites.invocations, suites.well, suites.false_red), (4, 3, 1));
        assert_eq!(suites.observed(), Some(1.0 / 3.0));
        assert!((suites.predicted.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!((suites.sharded, suites.balance), (8, Some(0.5)));
        assert_eq!(Suites::default().observed(), None);
    }
}
