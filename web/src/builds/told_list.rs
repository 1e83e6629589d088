//! The list of builds that told of themselves.

use axum::response::Html;
use kiln_ci::events::Summary;
use maud::{Markup, html};

use super::search::{OUTCOMES, Search};
use crate::design::layout::{self, Place};
use crate::design::rows::{self, Column, Line};
use crate::design::text::{build_link, nanos, visible, when};
use crate::error::WebError;
use crate::format::{abbreviated, count, short};
use crate::json;
use crate::state::WebState;
use crate::suite::millis;

const PAGE: usize = 50;
/// Patterns shown of one build.
const PATTERNS: usize = 3;

pub async fn page(state: &WebState, wanted: &Search) -> Result<Html<String>, WebError> {
    let found = wanted.find(&state.tests.streams, PAGE).await?;
    let body = html! {
        div.title { h1 { "Builds" } p { a.button href="/builds" { "All builds" } } }
        section.panel {
            header { (form(wanted)) }
            @if found.builds.is_empty() { p.quiet { "No build is like that." } }
            @else { (table(found.builds.iter().map(|it| &it.summary))) }
        }
        @if let Some(next) = &found.next { p.pager { a.button href=(wanted.link(next)) { "Older" } } }
    };
    Ok(layout::page(Place::Builds, "Builds", state.version, &body))
}

pub fn form(wanted: &Search) -> Markup {
    let field = |name: &str, words: &str, value: &str| {
        html! {
            label { span.sr { (words) }
                input.short type="search" name=(name) placeholder=(words) maxlength="200" value=(short(value, 200)); }
        }
    };
    html! {
        form.filter method="get" action="/builds" {
            (field("user", "user", &wanted.user))
            (field("branch", "branch", &wanted.branch))
            (field("commit", "commit", &wanted.commit))
            (field("command", "command", &wanted.command))
            (field("target", "target", &wanted.target))
            label { span.sr { "Outcome" }
                select name="outcome" {
                    @for (value, text) in OUTCOMES {
                        option value=(value) selected[value == wanted.outcome] { (text) }
                    }
                }
            }
            button type="submit" name="told" value="1" { "Find" }
        }
    }
}

const COLUMNS: [Column; 10] = [
    Column("Build", ""),
    Column("Outcome", ""),
    Column("Command", "wide"),
    Column("Who", ""),
    Column("Branch", ""),
    Column("Commit", ""),
    Column("Targets", "num"),
    Column("Tests", "num"),
    Column("Took", "num"),
    Column("When", "num"),
];

fn table<'a>(builds: impl Iterator<Item = &'a Summary>) -> Markup {
    rows::table("Builds", &COLUMNS, builds.map(row))
}

fn row(it: &Summary) -> Line {
    let took =
        it.finished.zip(it.started).map_or(0, |(end, start)| millis(end.since(start).as_millis()));
    let text = |text: &Option<String>| {
        html! {
            @match text { Some(text) => bdi { (visible(text, 40)) }, None => span.dim { "–" } }
        }
    };
    let cells = vec![
        html! { a.mono href=(build_link(&it.stream.invocation)) { bdi { (visible(&abbreviated(&it.stream.invocation), 12)) } } },
        outcome(it),
        html! { (visible(&it.command, 20)) " "
        @for pattern in it.patterns.iter().take(PATTERNS) { bdi.target { (visible(pattern, 80)) } " " }
        @if it.patterns.len() > PATTERNS { span.dim { "and more" } } },
        text(&it.origin.user),
        text(&it.origin.branch),
        html! { @match &it.origin.commit { Some(commit) => span.mono { bdi { (visible(&abbreviated(commit), 12)) } }, None => span.dim { "–" } } },
        failed_of(it.failed_targets, it.targets),
        failed_of(it.failed_tests, it.tests),
        nanos(took),
        html! { span.dim { (when(it.started.map_or(0, json::nanos))) } },
    ];
    cells.into()
}

/// How a build ended, as its tool said.
pub fn outcome(it: &Summary) -> Markup {
    let (class, word) = match (&it.exit_code, it.is_complete) {
        (Some((0, _)), _) => ("hit", "succeeded"),
        (None, false) => ("running", "going on"),
        _ => ("failed", "failed"),
    };
    let why = it
        .exit_code
        .as_ref()
        .map(|(code, name)| format!("{}, exit code {code}", visible(name, 60)));
    html! { span class={ "chip " (class) } title=[why] { (word) } }
}

fn failed_of(failed: u64, all: u64) -> Markup {
    html! { @if failed > 0 { span.bad { (count(failed)) } span.dim { " of " } } (count(all)) }
}
