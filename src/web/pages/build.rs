//! One build: what was cached, what ran where and when, what failed, what was slow.

use std::cmp::Reverse;

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{BuildSummary, Entry, MAX_PAGE, Page, Query, queue_ns, run_ns};
use maud::{Markup, html};
use serde::Deserialize;

use super::chart;
use super::layout::{self, Place};
use super::parts::{self, State as Ended};
use super::queue::operations;
use super::waterfall::waterfall;
use crate::web::WebState;
use crate::web::error::WebError;
use crate::web::format::{abbreviated, count, duration, short};

/// Rows of the list of actions.
const ROWS: usize = 300;
const SLOWEST: usize = 8;
const MAX_FAILED: usize = 20;

#[derive(Deserialize, Default)]
pub struct Filter {
    /// Part of target or mnemonic.
    #[serde(default)]
    q: String,
    /// A class of [`Ended`], or empty.
    #[serde(default)]
    show: String,
    /// `slowest`, `queued`, or by time.
    #[serde(default)]
    sort: String,
}

const SHOW: [(&str, &str); 5] = [
    ("", "everything"),
    ("executed", "executed"),
    ("hit", "cache hits"),
    ("merged", "merged"),
    ("failed", "failed"),
];
const SORT: [(&str, &str); 3] =
    [("", "newest first"), ("slowest", "slowest first"), ("queued", "longest queued first")];

pub async fn page(
    State(state): State<WebState>,
    Path(invocation): Path<String>,
    Arguments(filter): Arguments<Filter>,
) -> Result<Html<String>, WebError> {
    let Some(build) = state.journal.build(&invocation).await? else {
        return begun(&state, &invocation).await;
    };
    let query = Query::Invocation(invocation.clone());
    let entries = state.journal.executions(&query, Page::first(MAX_PAGE)).await?;
    let title = format!("Build {}", abbreviated(&invocation));
    let body = html! {
        div.title {
            p.crumbs { a href="/builds" { "Builds" } " / " }
            h1 { "Build " span.mono { (short(&invocation, 80)) } }
            p.dim { (parts::tool(&build)) " · " (parts::when(build.first_at))
                @if !build.instance_name.is_empty() { " · instance " (short(&build.instance_name, 60)) } }
        }
        (tiles(&build))
        (by_worker(&entries))
        div.columns {
            div.main { (by_mnemonic(&build)) (failed(&entries)) }
            div.side { (slowest(&entries)) }
        }
        (actions(&build, &entries, &filter))
    };
    Ok(layout::page(Place::Builds, &title, state.version, &body))
}

/// A build of which no action has ended yet.
async fn begun(state: &WebState, invocation: &str) -> Result<Html<String>, WebError> {
    let Snapshot { running, queued, .. } = state.queue.snapshot().await?;
    let own: Vec<_> = running
        .into_iter()
        .chain(queued)
        .filter(|operation| operation.invocation == invocation)
        .collect();
    if own.is_empty() {
        return Err(WebError::not_found(
            format!("no build with invocation id {:?}", short(invocation, 100)),
            "It appears with its first action; the oldest builds are removed. \
             Bazel prints the id at the start, and --invocation_id sets it.",
        ));
    }
    let title = format!("Build {}", abbreviated(invocation));
    let body = html! {
        div.title {
            p.crumbs { a href="/builds" { "Builds" } " / " }
            h1 { "Build " span.mono { (short(invocation, 80)) } }
            p.dim { "begun; nothing has finished yet" }
        }
        (operations("Running or waiting", "", &own, own.len()))
    };
    Ok(layout::page(Place::Builds, &title, state.version, &body))
}

fn tiles(build: &BuildSummary) -> Markup {
    let counts = &build.counts;
    let elapsed = build.elapsed_ns();
    let speed_up = counts.run_ns as f64 / elapsed.max(1) as f64;
    html! {
        dl.tiles {
            (parts::tile("Cache hit rate", &parts::rate(counts), &html! {
                (count(counts.hits)) " hits, " (count(counts.merged)) " merged"
            }))
            (parts::tile("Executed", &html! { (count(counts.executed)) }, &html! {
                "of " (count(counts.total())) " actions"
            }))
            (parts::tile("Failed", &html! {
                @if counts.failed > 0 { span.bad { (count(counts.failed)) } } @else { "0" }
            }, &html! { (count(build.targets)) " targets" }))
            (parts::tile("Took", &html! { (duration(elapsed)) }, &html! { "first request to last answer" }))
            (parts::tile("Work", &html! { (duration(counts.run_ns)) }, &html! {
                (format!("{speed_up:.1}")) " actions at a time"
            }))
            (parts::tile("Waited", &html! { (duration(counts.queue_ns)) }, &html! {
                "mean " (duration(counts.queue_ns.checked_div(counts.executed).unwrap_or(0)))
            }))
        }
    }
}

fn by_worker(entries: &[Entry]) -> Markup {
    html! {
        @if let Some(chart) = waterfall(entries) {
            section.panel {
                header {
                    h2 { "By worker slot" }
                    p.legend { span.executed { "executed" } span.failed { "failed" } }
                }
                (chart)
            }
        }
    }
}

fn by_mnemonic(build: &BuildSummary) -> Markup {
    let mut mnemonics: Vec<_> = build.mnemonics.iter().collect();
    mnemonics.sort_by_key(|m| Reverse((m.counts.run_ns, m.counts.total())));
    html! {
        section.panel {
            header { h2 { "By mnemonic" } }
            div.scroll tabindex="0" role="region" aria-label="By mnemonic" {
                table.rows {
                    thead { tr {
                        th { "Mnemonic" } th.num { "Actions" } th { "Cached" } th.num { "Hit rate" }
                        th.num { "Failed" } th.num { "Ran" } th.num { "Mean" }
                    } }
                    tbody { @for m in mnemonics {
                        @let mean = m.counts.run_ns.checked_div(m.counts.executed).unwrap_or(0);
                        tr {
                            td { @if m.mnemonic.is_empty() { span.dim { "(none)" } } @else { (short(&m.mnemonic, 48)) } }
                            td.num { (count(m.counts.total())) }
                            td.bar { (chart::share_bar(&m.counts)) }
                            td.num { (parts::rate(&m.counts)) }
                            td.num { @if m.counts.failed > 0 { span.bad { (m.counts.failed) } } @else { span.dim { "0" } } }
                            td.num { (parts::nanos(m.counts.run_ns)) }
                            td.num { (parts::nanos(mean)) }
                        }
                    } }
                }
            }
        }
    }
}

fn failed(entries: &[Entry]) -> Markup {
    let failed: Vec<_> = entries
        .iter()
        .filter(|entry| Ended::of(&entry.execution) == Ended::Failed)
        .take(MAX_FAILED)
        .cloned()
        .collect();
    html! {
        @if !failed.is_empty() {
            section.panel {
                header { h2 { "Failed" } }
                (parts::executions(&failed, false, "Failed actions"))
            }
        }
    }
}

fn slowest(entries: &[Entry]) -> Markup {
    let run = |entry: &Entry| run_ns(&entry.execution.timeline.unwrap_or_default());
    let is_own = |entry: &&Entry| {
        !matches!(Ended::of(&entry.execution), Ended::Hit | Ended::Merged) && run(entry) > 0
    };
    let mut slowest: Vec<_> = entries.iter().filter(is_own).collect();
    slowest.sort_by_key(|entry| Reverse(run(entry)));
    let longest = slowest.first().map_or(1, |entry| run(entry)).max(1) as f64;
    html! {
        section.panel {
            header { h2 { "Slowest" } }
            @if slowest.is_empty() { p.quiet { "Nothing had to run: all of it was cached." } }
            ul.ranking {
                @for entry in slowest.into_iter().take(SLOWEST) {
                    li {
                        (parts::target(&entry.execution))
                        span.right { (duration(run(entry))) }
                        svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                            rect.ground x="0" y="0" width="100" height="4" {}
                            rect class=(Ended::of(&entry.execution).class()) x="0" y="0" height="4"
                                width=(chart::num(run(entry) as f64 / longest * 100.0)) {}
                        }
                    }
                }
            }
        }
    }
}

fn actions(build: &BuildSummary, entries: &[Entry], filter: &Filter) -> Markup {
    let wanted = filter.q.to_lowercase();
    let matches = |entry: &&Entry| {
        let run = &entry.execution;
        let named = wanted.is_empty()
            || run.target_id.to_lowercase().contains(&wanted)
            || run.mnemonic.to_lowercase().contains(&wanted);
        named && (filter.show.is_empty() || Ended::of(run).class() == filter.show)
    };
    let mut found: Vec<Entry> = entries.iter().filter(matches).cloned().collect();
    let timeline = |entry: &Entry| entry.execution.timeline.unwrap_or_default();
    match filter.sort.as_str() {
        "slowest" => found.sort_by_key(|entry| Reverse(run_ns(&timeline(entry)))),
        "queued" => found.sort_by_key(|entry| Reverse(queue_ns(&timeline(entry)))),
        _ => {}
    }
    let matching = found.len();
    found.truncate(ROWS);
    html! {
        section.panel #actions {
            header { h2 { "Actions" } (filter_form(filter)) }
            @if found.is_empty() { p.quiet { "No action matches. " a href="?" { "Show all" } } }
            @else { (parts::executions(&found, false, "Actions of this build")) }
            p.note {
                (count(found.len() as u64)) " of " (count(matching as u64)) " shown. "
                @if (entries.len() as u64) < build.counts.total() {
                    "The build made " (count(build.counts.total())) " requests: the newest "
                    (count(entries.len() as u64)) " that are kept one by one are searched; "
                    "the counts above are exact."
                }
            }
        }
    }
}

fn filter_form(filter: &Filter) -> Markup {
    let choice = |name: &str, label: &str, options: &[(&str, &str)], chosen: &str| {
        html! {
            label { span.sr { (label) }
                select name=(name) {
                    @for (value, text) in options {
                        option value=(value) selected[*value == chosen] { (text) }
                    }
                }
            }
        }
    };
    html! {
        form.filter method="get" action="#actions" {
            label { span.sr { "Target or mnemonic" }
                input type="search" name="q" placeholder="target or mnemonic" maxlength="200"
                    value=(short(&filter.q, 200)); }
            (choice("show", "Show", &SHOW, &filter.show))
            (choice("sort", "Order", &SORT, &filter.sort))
            button type="submit" { "Filter" }
        }
    }
}
