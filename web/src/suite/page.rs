//! The page of one test: how long it takes, how it fails, and each attempt at it.

use std::collections::BTreeMap;

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_ci::attempts::Attempt;
use kiln_ci::history::Day;
use kiln_ci::model::TestKey;
use maud::{Markup, html};
use serde::Deserialize;

use super::attempts;
use super::chart;
use super::filter::{DAYS, SPANS};
use super::id::{Found, Which, find, link};
use super::list::millis;
use super::signatures::{Group, groups};
use super::tabs::tabs;
use crate::blobs::present::Present;
use crate::design::layout::{self, Place};
use crate::design::parts::tile;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{label, nanos, visible, when};
use crate::error::WebError;
use crate::format::{count, counted, percent};
use crate::kept::{shown_days, today};
use crate::state::WebState;

/// Attempts that are read, the newest ones.
pub const ATTEMPTS: usize = 200;
/// Attempts that are listed where all are shown.
const LISTED: usize = 50;
/// Groups of failures that are shown.
const GROUPS: usize = 10;

#[derive(Deserialize, Default)]
pub struct Options {
    /// The beginning of a commit or of an invocation: its attempts alone.
    #[serde(default)]
    at: String,
    days: Option<u64>,
}

impl Options {
    fn days(&self) -> u64 {
        self.days.filter(|days| SPANS.contains(days)).unwrap_or(DAYS)
    }

    fn is_shown(&self, it: &Attempt) -> bool {
        it.invocation.starts_with(&self.at)
            || it.commit.as_ref().is_some_and(|commit| commit.starts_with(&self.at))
    }
}

/// What is known of a test.
pub struct Known {
    pub test: TestKey,
    /// Tests of the same label in other configurations and instances.
    pub others: Vec<TestKey>,
    pub days: BTreeMap<u64, Day>,
    pub newest: Vec<Attempt>,
    /// The parts in which the server ran some of these.
    pub parts: Vec<Attempt>,
}

pub async fn load(state: &WebState, id: &str, which: &Which) -> Result<Known, WebError> {
    let Found { test, others } = find(state, id, which).await?;
    let history = state.tests.history.clone();
    let read = async move {
        let days = history.days(&test).await?;
        let all = history.newest_with_parts(&test, ATTEMPTS).await?;
        let (parts, newest) = all.into_iter().partition(Attempt::is_part);
        Ok::<_, kiln_ci::history::HistoryError>(Known { test, others, days, newest, parts })
    };
    Ok(state.kept.beside(read).await??)
}

pub async fn page(
    State(state): State<WebState>,
    Path(id): Path<String>,
    Arguments(options): Arguments<Options>,
) -> Result<Html<String>, WebError> {
    let known = load(&state, &id, &Which::default()).await?;
    let shown: Vec<Attempt> =
        known.newest.iter().filter(|it| options.is_shown(it)).take(LISTED).cloned().collect();
    let mut blobs = attempts::blobs(&known.newest);
    // Those of all parts may be thousands, each of which the store is asked for.
    let parts = shown.iter().flat_map(|it| attempts::parts_of(it, &known.parts));
    blobs.extend(attempts::blobs(parts));
    let present = Present::of(&state, blobs).await?;
    let span = shown_days(today(), options.days());
    let mut sum = Day::default();
    known.days.range(span.clone()).for_each(|(_, day)| sum.add(day));
    let address = link(&known.test);
    let body = html! {
        (head(&known.test))
        (tabs(None))
        (tiles(&sum, options.days()))
        div.charts {
            section.panel {
                header { h2 { "Durations" } p.legend { span.passed { "passed" } span.failed { "failed" } } }
                (chart::durations(&known.newest))
                p.note { "The newest " (counted(known.newest.len() as u64, "attempt")) "." }
            }
            section.panel {
                header { h2 { "Outcomes by day" } (spans(&address, options.days())) }
                (chart::outcomes(&known.days, &span))
            }
        }
        (failures(&groups(&known.newest), &present, known.newest.len()))
        section.panel {
            header { h2 { "Attempts" }
                @if !options.at.is_empty() {
                    span { "at " span.mono { bdi { (visible(&options.at, 40)) } } ", " a href=(address) { "show all" } }
                }
            }
            @if shown.is_empty() { p.quiet { "None of the newest " (known.newest.len()) " attempts is like that." } }
            @else { (attempts::table(&shown, &known.parts, &present)) }
            @if options.at.is_empty() && known.newest.len() > LISTED {
                p.note { "The newest " (LISTED) " are listed; " code { "kiln tests show" } " lists more." }
            }
        }
    };
    let title = format!("Test {}", visible(&known.test.label, 100));
    Ok(layout::page(Place::Tests, &title, state.version, &body))
}

fn head(test: &TestKey) -> Markup {
    html! {
        div.title {
            p.crumbs { a href="/tests" { "Tests" } " / " }
            h1.path { bdi { (label(&visible(&test.label, 400))) } }
            p.dim {
                @if !test.instance.is_empty() { "instance " bdi { (visible(&test.instance, 80)) } " " }
                @if !test.configuration.is_empty() { "configuration " span.mono { bdi { (visible(&test.configuration, 16)) } } }
            }
        }
    }
}

fn spans(address: &str, chosen: u64) -> Markup {
    html! {
        p { @for days in SPANS.into_iter().skip(1) {
            @if days == chosen { b { (days) " d" } } @else { a href={ (address) "?days=" (days) } { (days) " d" } }
            " "
        } }
    }
}

fn tiles(sum: &Day, days: u64) -> Markup {
    let failed = sum.failed + sum.timed_out;
    html! {
        dl.tiles {
            (tile("Flake rate", &html! { @match sum.flake_rate() { Some(rate) => (percent(rate)), None => "–" } }, &html! {
                (count(sum.flaky)) " of " (counted(sum.first, "first attempt"))
            }))
            (tile("Failed", &html! { @if failed > 0 { span.bad { (count(failed)) } } @else { "0" } }, &html! {
                "of " (counted(sum.attempts(), "attempt")) " in " (counted(days, "day"))
            }))
            (tile("Timed out", &html! { (count(sum.timed_out)) }, &html! { "counted among the failed" }))
            (tile("Mean", &html! { (nanos(millis(sum.mean().map_or(0, |it| it.as_millis())))) }, &html! { "of what passed" }))
            (tile("Longest", &html! { (nanos(millis(sum.longest.into()))) }, &html! { "of what passed" }))
        }
    }
}

fn failures(groups: &[Group<'_>], present: &Present, looked_at: usize) -> Markup {
    html! {
        @if !groups.is_empty() {
            section.panel {
                header { h2 { "Failures that look alike" } span.dim { "of the newest " (looked_at) " attempts" } }
                (rows::table("Failures that look alike", &GROUP, groups.iter().take(GROUPS).map(|it| group_row(it, present))))
            }
        }
    }
}

const GROUP: [Column; 5] = [
    Column("What was said", "wide"),
    Column("Attempts", "num"),
    Column("Log", ""),
    Column("First", "num"),
    Column("Last", "num"),
];

fn group_row(group: &Group<'_>, present: &Present) -> Line {
    let at = |it: &Attempt| i64::try_from(millis(it.started.0.into())).unwrap_or(i64::MAX);
    let log = group.newest.log.as_ref();
    let cells = vec![
        said(group),
        html! { (count(group.attempts)) },
        html! { @match log { Some(log) => (present.link(log, "newest log", "test.log")), None => span.dim { "–" } } },
        html! { span.dim { (when(at(group.oldest))) } },
        html! { span.dim { (when(at(group.newest))) } },
    ];
    cells.into()
}

fn said(group: &Group<'_>) -> Markup {
    html! {
        @if group.excerpt.is_empty() { span.dim { "nothing" } }
        @else { pre.log.tail { (crate::ansi::markup(group.excerpt)) } }
        @if !group.cases.is_empty() {
            p.dim { @for (number, case) in group.cases.iter().enumerate() {
                @if number > 0 { ", " } bdi { (visible(case, 120)) }
            }
            @if group.more_cases > 0 { " and " (group.more_cases) " more" } }
        }
    }
}
