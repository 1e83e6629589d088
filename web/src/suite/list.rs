//! All tests, page by page.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use maud::{Markup, html};

use super::chart::sparkline;
use super::filter::{Filter, OUTCOMES, Row, SORTS, SPANS, instances};
use super::names::Names;
use super::tabs::{Tab, tabs};
use crate::design::layout::{self, Place};
use crate::design::rows::{self, Column, Line};
use crate::design::text::nanos;
use crate::error::WebError;
use crate::format::{count, counted, percent, short};
use crate::kept::{shown_days, today};
use crate::state::WebState;

/// Rows of a page.
const PAGE: usize = 100;
/// Instances to choose from.
const MAX_INSTANCES: usize = 200;

pub async fn page(
    State(state): State<WebState>,
    Arguments(filter): Arguments<Filter>,
) -> Result<Html<String>, WebError> {
    let tests = state.kept.tested(&state.tests.history, filter.days()).await?;
    let rows = filter.rows(&tests);
    let pages = rows.len().div_ceil(PAGE);
    let at = filter.page.min(pages.saturating_sub(1));
    let shown = &rows[(at * PAGE).min(rows.len())..rows.len().min((at + 1) * PAGE)];
    let span = shown_days(today(), filter.days());
    let names = Names::of(tests.iter().map(|it| &it.test));
    let body = html! {
        div.title { h1 { "Tests" }
            p.dim { (counted(rows.len() as u64, "test")) " in " (counted(filter.days(), "day")) } }
        (tabs(Some(Tab::List)))
        @if tests.is_empty() { (no_tests(filter.days())) } @else {
            section.panel {
                header { (form(&filter, &instances(&tests))) }
                @if shown.is_empty() { p.quiet { "No test is like that." } }
                @else { (table(shown, &names, &span)) }
            }
            (pager(&filter, "/tests", at, pages, ""))
        }
    };
    Ok(layout::page(Place::Tests, "Tests", state.version, &body))
}

pub fn no_tests(days: u64) -> Markup {
    html! {
        section.panel.empty {
            h2 { "No test ran in " (counted(days, "day")) }
            p { "Each test that Kiln executes appears here by itself. With build events there are commits, attempts and tests that ran elsewhere as well:" }
            pre { code { "bazel test --bes_backend=grpc://HOST:PORT --remote_executor=grpc://HOST:PORT //..." } }
            p { "What other runners report can be brought in: " code { "kiln tests import" } "." }
            p { a href={ "/tests?days=" (SPANS[SPANS.len() - 1]) } { "Look further back" } }
        }
    }
}

fn choice<T: ToString + PartialEq>(
    name: &str,
    words: &str,
    options: impl IntoIterator<Item = (T, String)>,
    chosen: &T,
) -> Markup {
    html! {
        label { span.sr { (words) }
            select name=(name) {
                @for (value, text) in options {
                    option value=(value.to_string()) selected[value == *chosen] { (text) }
                }
            }
        }
    }
}

fn form(filter: &Filter, instances: &BTreeSet<&str>) -> Markup {
    html! {
        form.filter method="get" action="/tests" {
            (fields(filter, instances, &SPANS))
            button type="submit" { "Show" }
        }
    }
}

/// What is looked for, and in which order.
pub fn fields(filter: &Filter, instances: &BTreeSet<&str>, spans: &[u64]) -> Markup {
    let named = |of: &[(&'static str, &str)]| -> Vec<(String, String)> {
        of.iter().map(|(value, text)| ((*value).to_owned(), (*text).to_owned())).collect()
    };
    let days = spans.iter().map(|days| (*days, counted(*days, "day")));
    html! {
        label { span.sr { "Label" }
            input type="search" name="q" placeholder="parts of the label" maxlength="200"
                value=(short(&filter.q, 200)); }
        @if instances.len() > 1 { (instance_choice(filter, instances)) }
        (choice("outcome", "Outcome", named(&OUTCOMES), &filter.outcome))
        (choice("sort", "Order", named(&SORTS), &filter.sort))
        (choice("days", "Days", days, &filter.days()))
    }
}

/// Empty: all of them.
fn instance_choice(filter: &Filter, instances: &BTreeSet<&str>) -> Markup {
    html! {
        label { span.sr { "Instance" }
            input type="text" name="instance" list="instances" placeholder="instance" maxlength="200"
                value=(short(&filter.instance, 200)); }
        datalist id="instances" {
            @for instance in instances.iter().take(MAX_INSTANCES).filter(|it| it.len() <= 200) {
                option value=(instance) {}
            }
        }
    }
}

const COLUMNS: [Column; 8] = [
    Column("Test", "wide"),
    Column("By day", "bar"),
    Column("Runs", "num"),
    Column("Failed", "num"),
    Column("Flaky", "num"),
    Column("Flake rate", "num"),
    Column("Mean", "num"),
    Column("Longest", "num"),
];

fn table(rows: &[Row<'_>], names: &Names<'_>, span: &RangeInclusive<u64>) -> Markup {
    rows::table("Tests", &COLUMNS, rows.iter().map(|row| test_row(row, names, span)))
}

fn test_row(row: &Row<'_>, names: &Names<'_>, span: &RangeInclusive<u64>) -> Line {
    let sum = &row.sum;
    let failed = sum.failed + sum.timed_out;
    let number = |number: u64, class: &str| {
        html! { @if number > 0 { span class=(class) { (count(number)) } } @else { span.dim { "0" } } }
    };
    let cells = vec![
        names.link(&row.tested.test),
        sparkline(&row.tested.days, span),
        html! { (count(sum.attempts())) },
        number(failed, "bad"),
        number(sum.flaky, "flaky-ink"),
        html! { @match sum.flake_rate() { Some(rate) => (percent(rate)), None => span.dim { "–" } } },
        nanos(millis(sum.mean().map_or(0, |it| it.as_millis()))),
        nanos(millis(sum.longest.into())),
    ];
    cells.into()
}

/// Nanoseconds of so many milliseconds, as much as fits.
pub fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(1_000_000)
}

/// `more`: what else stands in the addresses of the other pages.
pub fn pager(filter: &Filter, path: &str, at: usize, pages: usize, more: &str) -> Markup {
    let link = |page| filter.link(path, page) + more;
    html! {
        @if pages > 1 {
            p.pager {
                @if at > 0 { a.button href=(link(at - 1)) { "Previous" } }
                span.dim { "Page " (at + 1) " of " (count(pages as u64)) }
                @if at + 1 < pages { a.button href=(link(at + 1)) { "Next" } }
            }
        }
    }
}
