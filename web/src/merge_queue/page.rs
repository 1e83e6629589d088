//! The page of one merge queue: what waits and why, what is tested, what has left.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use maud::{Markup, html};
use serde::Deserialize;

use super::api;
use super::parts::{
    MAX_NAME, MAX_REASON, about, address, branches, chip, commit, run_link, runner, state as of,
};
use crate::api::arguments;
use crate::design::layout::{self, Live, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::format::{counted, shell};
use crate::json::{MergeChange, MergeEnded, MergeQueueShown, MergeRan, MergeRequest, MergeRun};
use crate::state::WebState;

/// Changes, runs and what has left that are listed.
const MAX_CHANGES: usize = 200;
const MAX_ROWS: usize = 50;

#[derive(Debug, Default, Deserialize)]
pub struct Hold {
    hold: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    Path(queue): Path<String>,
    hold: Result<Arguments<Hold>, QueryRejection>,
) -> Result<Html<String>, WebError> {
    let hold = arguments(hold)?.hold.is_some();
    let found = api::found(&state, &queue, MAX_ROWS).await?;
    let shown = MergeQueueShown::from(&found);
    let name = &shown.queue.name;
    let lively = !shown.runs.is_empty() || !shown.requests.is_empty();
    let live = Live::of(lively, hold);
    let body = html! {
        (title(&shown, live))
        @if !shown.requests.is_empty() { (requests(&shown.requests)) }
        @if !shown.runs.is_empty() { (runs(&shown.runs)) }
        (changes(&shown))
        @if shown.batches.len() > 1 { (batches(&shown)) }
        @if !shown.ended.is_empty() { (ended(name, &shown.ended)) }
        @if !shown.ran.is_empty() { (ran(name, &shown.ran)) }
        (commands(name, &state.base_url))
    };
    Ok(layout::live(Place::MergeQueues, "Merge queue", state.version, live, &body))
}

fn title(it: &MergeQueueShown, live: Live) -> Markup {
    let one = &it.queue;
    let each = |count: u64| count.max(1) as f64;
    html! {
        div.title {
            h1 { (one.name) }
            span.dim { "lands on " (visible(&one.target, MAX_NAME)) }
            (of(one))
            (layout::hold(live, &address(&one.name)))
        }
        section.panel {
            dl.pairs.facts {
                dt { "Runner" } dd { (runner(&one.runner)) }
                @if let Some(why) = &one.paused { dt { "Paused" } dd { strong { (visible(why, MAX_REASON)) } } }
                dt { "Target" } dd {
                    @match &one.base { Some(base) => (commit(base)), None => "not looked at yet" }
                    @if it.base_state == "fails" { " " strong { "fails by itself: nobody is rejected until it is mended" } }
                }
                dt { "Repository" } dd { (visible(&one.runner.repository, MAX_REASON)) }
                dt { "Check" } dd { code { (visible(&one.runner.check, MAX_REASON)) } @if let Some(took) = it.check_s { ", usually " (about(took)) } }
                dt { "So far" } dd {
                    (one.totals.landed) " landed, " (one.totals.rejected) " rejected, " (one.totals.left) " left; "
                    (format!("{:.2}", one.totals.runs as f64 / each(one.totals.landed + one.totals.rejected))) " runs for each"
                    @if one.totals.landed > 0 { ", " (about(one.totals.waited_s / each(one.totals.landed))) " until landed" }
                }
                dt { "Learned" } dd { (format!("{:.1} % of changes are bad, {:.1} % of checks flake", it.bad * 100.0, it.flaky * 100.0)) }
            }
        }
    }
}

fn requests(all: &[MergeRequest]) -> Markup {
    html! {
        section.panel {
            h2 { "Asked for, and not taken in yet" }
            @for it in all.iter().take(MAX_ROWS) {
                p { (it.what) " " @if let Some(branch) = &it.branch { (visible(branch, MAX_NAME)) " " } span.dim { "by " (visible(&it.by, MAX_NAME)) " at " (it.at) } }
            }
        }
    }
}

fn runs(all: &[MergeRun]) -> Markup {
    html! {
        section.panel {
            h2 { "What is tested" }
            div.scroll tabindex="0" role="region" aria-label="What is tested" {
                table.rows {
                    thead { tr { th { "Run" } th { "" } th { "Branches" } th { "On top of" } th { "Commit" } th { "Began" } th { "Ends" } } }
                    tbody {
                        @for it in all.iter().take(MAX_ROWS) {
                            tr {
                                td { (it.run) }
                                td { (chip(&it.phase)) }
                                td.many { (branches(&it.branches)) }
                                td { (commit(&it.base)) }
                                td { @if let Some(it) = &it.commit { (commit(it)) } }
                                td { (it.began) }
                                td { @if let Some(left) = it.expected_s { (more(left)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How long it takes, as far as that is known by what others took.
fn more(left: f64) -> Markup {
    html! { @if left > 0.0 { "in about " (about(left)) } @else { "at any moment" } }
}

fn changes(shown: &MergeQueueShown) -> Markup {
    let row = |it: &MergeChange| {
        html! {
            tr {
                td { (visible(&it.branch, MAX_NAME)) }
                td { (commit(&it.head)) }
                td { (it.priority) }
                td { (it.added) }
                td { (chip(&it.standing)) }
                td.many { (visible(&it.why, MAX_REASON)) @if it.bad > 0.3 { p.dim { (format!("bad with a probability of {:.0} %", it.bad * 100.0)) } } }
                td { @if let Some(left) = it.expected_s { (more(left)) } }
            }
        }
    };
    let all = &shown.changes;
    html! {
        section.panel {
            h2 { "What waits" }
            @if all.is_empty() { p.dim { "Nothing." } } @else {
                div.scroll tabindex="0" role="region" aria-label="What waits" {
                    table.rows {
                        thead { tr { th { "Branch" } th { "Head" } th { "Priority" } th { "Since" } th { "" } th { "Why it waits" } th { "Lands" } } }
                        tbody { @for it in all.iter().take(MAX_CHANGES) { (row(it)) } }
                    }
                }
                @if all.len() > MAX_CHANGES { p.dim { "and " (all.len() - MAX_CHANGES) " more" } }
            }
        }
    }
}

fn batches(shown: &MergeQueueShown) -> Markup {
    html! {
        section.panel {
            h2 { "Batches" }
            @for it in shown.batches.iter().take(MAX_ROWS) {
                p { "batch " (it.id) ", " (counted(it.branches.len() as u64, "change")) @if it.lands { ": what passes of it lands" } }
            }
        }
    }
}

fn ended(queue: &str, all: &[MergeEnded]) -> Markup {
    let word = |it: &MergeEnded| match (it.landed, it.rejected) {
        (true, _) => "landed",
        (_, true) => "rejected",
        _ => "left",
    };
    html! {
        section.panel {
            h2 { "What has left" }
            div.scroll tabindex="0" role="region" aria-label="What has left" {
                table.rows {
                    thead { tr { th { "Branch" } th { "Head" } th { "When" } th { "" } th { "How" } th { "Log" } } }
                    tbody {
                        @for it in all {
                            tr {
                                td { (visible(&it.branch, MAX_NAME)) }
                                td { @if let Some(head) = &it.head { (commit(head)) } }
                                td { (it.ended) }
                                td { (chip(word(it))) }
                                td.many { (visible(&it.why, MAX_REASON)) }
                                td { @if let Some(run) = it.run { (run_link(queue, run)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn ran(queue: &str, all: &[MergeRan]) -> Markup {
    html! {
        section.panel {
            h2 { "Runs that have ended" }
            div.scroll tabindex="0" role="region" aria-label="Runs that have ended" {
                table.rows {
                    thead { tr { th { "Run" } th { "" } th { "Branches" } th { "Took" } th { "Ended" } th { "What failed" } } }
                    tbody {
                        @for it in all.iter().take(MAX_ROWS) {
                            tr {
                                td { (run_link(queue, it.run)) }
                                td { (chip(&it.verdict)) }
                                td.many { (branches(&it.branches)) }
                                td { (about(it.took_s)) }
                                td { (it.ended) }
                                td.many { (visible(&it.targets.join(", "), MAX_REASON)) @if let Some(why) = &it.why { (visible(why, MAX_REASON)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pages change nothing: a browser sends what any page tells it to.
fn commands(queue: &str, base_url: &str) -> Markup {
    let place = format!("--server {base_url} --queue {}", shell(queue));
    html! {
        section.panel {
            h2 { "To change it" }
            pre { code {
                "kiln queue add " (place) " --branch feature/login\n"
                "kiln queue remove " (place) " --branch feature/login\n"
                "kiln queue pause " (place) " --reason 'the target is being mended'\n"
                "kiln queue resume " (place)
            } }
        }
    }
}
