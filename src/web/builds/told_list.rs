//! The list of builds that told of themselves.

use axum::response::Html;
use kiln_ci::events::Summary;
use maud::{Markup, html};

use super::search::{OUTCOMES, Search};
use crate::web::design::layout::{self, Place};
use crate::web::design::text::{build_link, nanos, visible, when};
use crate::web::error::WebError;
use crate::web::format::{abbreviated, count, short};
use crate::web::json;
use crate::web::state::WebState;
use crate::web::suite::millis;

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

fn table<'a>(builds: impl Iterator<Item = &'a Summary>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Builds" {
            table.rows {
                thead { tr {
                    th scope="col" { "Build" } th scope="col" { "Outcome" } th scope="col" { "Command" }
                    th scope="col" { "Who" } th scope="col" { "Branch" } th scope="col" { "Commit" }
                    th.num scope="col" { "Targets" } th.num scope="col" { "Tests" }
                    th.num scope="col" { "Took" } th.num scope="col" { "When" }
                } }
                tbody { @for it in builds { (row(it)) } }
            }
        }
    }
}

fn row(it: &Summary) -> Markup {
    let took =
        it.finished.zip(it.started).map_or(0, |(end, start)| millis(end.since(start).as_millis()));
    let text = |text: &Option<String>| {
        html! {
            @match text { Some(text) => bdi { (visible(text, 40)) }, None => span.dim { "–" } }
        }
    };
    html! {
        tr {
            td { a.mono href=(build_link(&it.stream.invocation)) { bdi { (visible(&abbreviated(&it.stream.invocation), 12)) } } }
            td { (outcome(it)) }
            td.wide { (visible(&it.command, 20)) " "
                @for pattern in it.patterns.iter().take(PATTERNS) { bdi.target { (visible(pattern, 80)) } " " }
                @if it.patterns.len() > PATTERNS { span.dim { "and more" } } }
            td { (text(&it.origin.user)) }
            td { (text(&it.origin.branch)) }
            td { @match &it.origin.commit { Some(commit) => span.mono { bdi { (visible(&abbreviated(commit), 12)) } }, None => span.dim { "–" } } }
            td.num { (failed_of(it.failed_targets, it.targets)) }
            td.num { (failed_of(it.failed_tests, it.tests)) }
            td.num { (nanos(took)) }
            td.num.dim { (when(it.started.map_or(0, json::nanos))) }
        }
    }
}

fn outcome(it: &Summary) -> Markup {
    let (class, word) = match (&it.exit_code, it.is_complete) {
        (Some((0, _)), _) => ("hit", "succeeded"),
        (None, false) => ("running", "going on"),
        _ => ("failed", "failed"),
    };
    html! { span class={ "chip " (class) } { (word) } }
}

fn failed_of(failed: u64, all: u64) -> Markup {
    html! { @if failed > 0 { span.bad { (count(failed)) } span.dim { " of " } } (count(all)) }
}
