//! The grid as a table. Each cell has a sign, so that nobody needs its colour; Tab leads from one cell that is
//! not green to the next, since thousands of others would be in between.

use kiln_ci::attempts::IMPORT;
use kiln_ci::history::{Across, Cell, CellState, Column, Grid};
use kiln_ci::model::TestKey;
use maud::{Markup, html};

use super::id::link;
use super::list::millis;
use super::names::Names;
use crate::design::text::{build_link, label, visible};
use crate::format::{abbreviated, date, duration, encode, utc};

/// Longest label shown, in characters.
const MAX_LABEL: usize = 120;
/// Characters of a column's name in the address of a cell.
pub const AT: usize = 16;

const STATES: [CellState; 6] = [
    CellState::Passed,
    CellState::Failed,
    CellState::TimedOut,
    CellState::Flaky,
    CellState::Infrastructure,
    CellState::Skipped,
];

/// Class, sign and word.
pub fn words(state: CellState) -> (&'static str, &'static str, &'static str) {
    match state {
        CellState::Passed => ("p", "✓", "passed"),
        CellState::Failed => ("f", "✗", "failed"),
        CellState::TimedOut => ("t", "T", "timed out"),
        CellState::Flaky => ("k", "~", "failed and passed"),
        CellState::Infrastructure => ("i", "!", "infrastructure failed"),
        CellState::Skipped => ("s", "–", "skipped"),
    }
}

pub fn table(grid: &Grid, across: Across, tests: &Names<'_>) -> Markup {
    let names: Vec<String> = grid.columns.iter().map(at).collect();
    html! {
        p.legend.cells { @for state in STATES {
            @let (class, sign, word) = words(state);
            span { b.(class) { (sign) } (word) }
        } }
        div.scroll tabindex="0" role="region" aria-label="Grid of tests" {
            table.grid {
                thead {
                    tr.days { td {} @for (day, columns) in days(&grid.columns) {
                        th colspan=(columns) scope="colgroup" { span { (date(day)) } }
                    } }
                    tr { th scope="col" { "Test" }
                        @for column in &grid.columns { (head(column, across)) } }
                }
                tbody { @for (test, cells) in &grid.rows { (row(test, cells, &names, tests)) } }
            }
        }
    }
}

/// The beginning of a column's name, by which the page of a test finds its attempts.
fn at(column: &Column) -> String {
    let name =
        column.name.char_indices().nth(AT).map_or(&*column.name, |(end, _)| &column.name[..end]);
    encode(name, false)
}

/// Neighbours of one day.
fn days(columns: &[Column]) -> Vec<(u64, usize)> {
    let groups = columns.chunk_by(|a, b| a.began.day() == b.began.day());
    groups.map(|group| (group[0].began.day(), group.len())).collect()
}

fn head(column: &Column, across: Across) -> Markup {
    let began = utc(i64::try_from(millis(column.began.0.into())).unwrap_or(i64::MAX));
    let branch = column.branch.as_deref().map(|it| format!(", branch {}", visible(it, 80)));
    let what = if across == Across::Commits { "commit" } else { "invocation" };
    let words = format!(
        "{what} {}{}, began {began}",
        visible(&column.name, 80),
        branch.unwrap_or_default()
    );
    html! {
        th.column scope="col" {
            // Reports that were brought in are of no build.
            @if column.invocation.starts_with(IMPORT) {
                span title=(words) { bdi { (visible(&abbreviated(&column.name), 8)) } }
            } @else {
                a href=(build_link(&column.invocation)) title=(words) { bdi { (visible(&abbreviated(&column.name), 8)) } }
            }
        }
    }
}

fn row(test: &TestKey, cells: &[Option<Cell>], names: &[String], tests: &Names<'_>) -> Markup {
    let link = link(test);
    html! {
        tr {
            th scope="row" { a.target href=(link) title=(visible(&test.label, 1000)) {
                bdi { (label(&visible(&test.label, MAX_LABEL))) } } (tests.tags(test)) }
            @for (cell, at) in cells.iter().zip(names) {
                @match cell {
                    None => td {},
                    Some(cell) => (full(cell, &link, at)),
                }
            }
        }
    }
}

fn full(cell: &Cell, link: &str, at: &str) -> Markup {
    let (class, sign, word) = words(cell.state);
    let mut title = word.to_owned();
    if let Some(took) = cell.took {
        title = format!("{title}, {}", duration(millis(took.as_millis())));
    }
    if cell.attempts > 1 {
        title = format!("{title}, {} attempts", cell.attempts);
    }
    let is_passed = matches!(cell.state, CellState::Passed | CellState::Skipped);
    html! {
        td.(class) { a href={ (link) "?at=" (at) } title=(title) tabindex=[is_passed.then_some("-1")] { (sign) } }
    }
}
