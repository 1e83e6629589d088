//! The grid: tests down, commits or invocations across.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_ci::history::{Across, Grid, GridQuery};
use kiln_ci::model::TestKey;
use maud::{Markup, html};
use serde::Deserialize;

use super::filter::{Filter, SPANS, instances, unknown};
use super::grid_table::table;
use super::list::{no_tests, pager};
use super::names::Names;
use super::tabs::{Tab, tabs};
use crate::design::layout::{self, Place};
use crate::error::WebError;
use crate::format::{counted, encode, short};
use crate::kept::AllTests;
use crate::state::WebState;

/// Tests of a page.
pub const ROWS: usize = 100;
/// Columns to choose from, and how many there are when nothing is chosen.
const COLUMNS: [usize; 4] = [25, 50, 100, 200];
const DEFAULT_COLUMNS: usize = 50;

/// What stands in the address beside what [`Filter`] reads.
#[derive(Deserialize, Default, Clone, schemars::JsonSchema)]
pub struct Wanted {
    /// What a column is: `commits` or `invocations`.
    #[serde(default)]
    pub across: String,
    /// The branch whose runs are shown; empty: all branches.
    #[serde(default)]
    pub branch: String,
    pub columns: Option<usize>,
}

/// A page of the grid.
pub struct Shown {
    pub grid: Grid,
    pub across: Across,
    /// Tests on all pages.
    pub tests: usize,
    pub at: usize,
    pub pages: usize,
}

impl Wanted {
    pub fn across(&self) -> Across {
        if self.across == "invocations" { Across::Invocations } else { Across::Commits }
    }

    fn columns(&self) -> usize {
        let most = COLUMNS[COLUMNS.len() - 1];
        self.columns.filter(|it| *it <= most && *it > 0).unwrap_or(DEFAULT_COLUMNS)
    }

    pub fn check(&self) -> Result<(), WebError> {
        if !["", "commits", "invocations"].contains(&self.across.as_str()) {
            return Err(unknown("across", &self.across, "commits, invocations"));
        }
        match self.columns {
            Some(columns) if columns != self.columns() => {
                Err(unknown("columns", &columns.to_string(), "1 to 200"))
            }
            _ => Ok(()),
        }
    }

    /// The part of another page's address that asks for the same columns.
    fn link(&self) -> String {
        let mut link = "&across=".to_owned()
            + if self.across() == Across::Commits { "commits" } else { "invocations" };
        if !self.branch.is_empty() {
            link.push_str(&format!("&branch={}", encode(&short(&self.branch, 200), false)));
        }
        if let Some(columns) = self.columns {
            link.push_str(&format!("&columns={columns}"));
        }
        link
    }
}

/// The tests of the page that the filter asks for, with what became of them.
pub async fn shown(
    state: &WebState,
    tests: &AllTests,
    filter: &Filter,
    wanted: &Wanted,
    limit: usize,
) -> Result<Shown, WebError> {
    let rows = filter.rows(tests);
    let pages = rows.len().div_ceil(limit);
    let at = filter.page.min(pages.saturating_sub(1));
    let keys = rows.iter().skip(at * limit).take(limit);
    let keys: Vec<TestKey> = keys.map(|row| row.tested.test.clone()).collect();
    let query = GridQuery {
        across: wanted.across(),
        instance: Some(filter.instance.clone()).filter(|it| !it.is_empty()),
        branch: Some(wanted.branch.clone()).filter(|it| !it.is_empty()),
        columns: wanted.columns(),
    };
    let (across, tests) = (query.across, rows.len());
    let history = state.tests.history.clone();
    let grid = state.kept.beside(async move { in_order(&history, &query, keys).await }).await??;
    Ok(Shown { grid, across, tests, at, pages })
}

/// The history reads tests in the order of their names; the page has its own.
async fn in_order(
    history: &kiln_ci::history::History,
    query: &GridQuery,
    wanted: Vec<TestKey>,
) -> Result<Grid, kiln_ci::history::HistoryError> {
    let mut sorted = wanted.clone();
    sorted.sort_unstable();
    let Grid { columns, rows } = history.grid(query, &sorted).await?;
    let mut rows: std::collections::HashMap<_, _> = rows.into_iter().collect();
    let rows = wanted.into_iter().filter_map(|test| rows.remove_entry(&test)).collect();
    Ok(Grid { columns, rows })
}

pub async fn page(
    State(state): State<WebState>,
    Arguments(filter): Arguments<Filter>,
    Arguments(wanted): Arguments<Wanted>,
) -> Result<Html<String>, WebError> {
    let tests = state.kept.tested(&state.tests.history, filter.days()).await?;
    let shown = shown(&state, &tests, &filter, &wanted, ROWS).await?;
    let columns = shown.grid.columns.len() as u64;
    let names = Names::of(tests.iter().map(|it| &it.test));
    let what = if shown.across == Across::Commits { "commit" } else { "invocation" };
    let body = html! {
        div.title { h1 { "Grid of tests" }
            p.dim { (counted(shown.tests as u64, "test")) ", the newest " (counted(columns, what)) } }
        (tabs(Some(Tab::Grid)))
        @if tests.is_empty() { (no_tests(filter.days())) } @else {
            section.panel {
                header { (form(&filter, &wanted, &instances(&tests))) }
                @if columns == 0 { (no_columns(shown.across)) }
                @else if shown.tests == 0 { p.quiet { "No test is like that." } }
                @else { (table(&shown.grid, shown.across, &names)) }
            }
            (pager(&filter, "/tests/grid", shown.at, shown.pages, &wanted.link()))
        }
    };
    Ok(layout::page(Place::Tests, "Grid of tests", state.version, &body))
}

fn no_columns(across: Across) -> Markup {
    html! {
        @match across {
            Across::Commits => p.quiet { "The commits of these runs are not known. Bazel tells them with build events, from "
                code { "--build_metadata=COMMIT_SHA=…" } " or a workspace status command; "
                a href="/tests/grid?across=invocations" { "by invocation" } " there is more to see." },
            Across::Invocations => p.quiet { "No invocation is like that." },
        }
    }
}

fn form(filter: &Filter, wanted: &Wanted, instances: &std::collections::BTreeSet<&str>) -> Markup {
    let is_across = |across| wanted.across() == across;
    html! {
        form.filter method="get" action="/tests/grid" {
            (super::list::fields(filter, instances, &SPANS))
            label { span.sr { "Across" }
                select name="across" {
                    option value="commits" selected[is_across(Across::Commits)] { "by commit" }
                    option value="invocations" selected[is_across(Across::Invocations)] { "by invocation" }
                }
            }
            label { span.sr { "Branch" }
                input.short type="text" name="branch" placeholder="branch" maxlength="200"
                    value=(short(&wanted.branch, 200)); }
            label { span.sr { "Columns" }
                select name="columns" {
                    @for columns in COLUMNS {
                        option value=(columns) selected[columns == wanted.columns()] { (columns) " columns" }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}
