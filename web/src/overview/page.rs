//! The start page: how well the cache does, how busy the workers are, what was built last.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_cas::stores::StorageSnapshot;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{BuildSummary, Counts, JournalEntry, Page, Query, has_failed};
use maud::{Markup, html};
use serde::Deserialize;

use crate::actions::rows::{chip, target};
use crate::builds::list::with_progress;
use crate::builds::rows;
use crate::design::layout::{self, Live, Place};
use crate::design::text::when;
use crate::design::{chart, parts};
use crate::error::WebError;
use crate::format::{bytes, count, counted, duration, now};
use crate::json::Shared;
use crate::state::{LinksFrom, WebState};
use crate::workers::activity::Activity;
use crate::workers::page::worker_cards;

/// Builds in the chart.
const COLUMNS: usize = 48;
const BUILDS: usize = 10;
/// Executions among which failures are looked for.
const EXECUTIONS: usize = 1000;
const FAILURES: usize = 6;

#[derive(Deserialize)]
pub struct Looking {
    hold: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    LinksFrom(base_url): LinksFrom,
    Arguments(looking): Arguments<Looking>,
) -> Result<Html<String>, WebError> {
    let builds = state.journal.builds(Page::first(COLUMNS)).await?;
    let recent = state.journal.executions(&Query::Recent, Page::first(EXECUTIONS)).await?;
    let snapshot = state.queue.snapshot().await?;
    let shared = match &state.shared {
        Some(shared) => Some(shared.usage().await?),
        None => None,
    };
    let activity = Activity::of(&state.journal.recent_runs(), &snapshot, now());
    let newest = builds.iter().take(BUILDS).cloned().collect();
    let newest = with_progress(&state, newest, &snapshot).await?;
    let busy = snapshot.running_count + snapshot.queue_depth > 0;
    let is_lively = busy || newest.iter().any(|it| it.progress.is_lively);
    let live = Live::of(is_lively, looking.hold.is_some());
    let body = html! {
        h1.sr { "Overview" }
        (tiles(&state, &builds, &snapshot, shared.as_ref()))
        @if builds.is_empty() && recent.is_empty() { (welcome(&base_url)) }
        @else { (charts(&builds, &activity, snapshot.slots)) }
        div.columns {
            @if !builds.is_empty() {
                section.panel.main {
                    header { h2 { "Recent builds" } p.pager { (layout::hold(live, "/")) " " a href="/builds" { "All builds" } } }
                    (rows::builds(&newest))
                }
            }
            div.side {
                section.panel {
                    header { h2 { "Workers" } a href="/queue" { "Queue & workers" } }
                    (worker_cards(&snapshot))
                }
                @if !recent.is_empty() { (failures(&recent)) }
            }
        }
    };
    Ok(layout::live(Place::Overview, "Overview", state.version, live, &body))
}

fn tiles(
    state: &WebState,
    builds: &[BuildSummary],
    snapshot: &Snapshot,
    shared: Option<&Shared>,
) -> Markup {
    let mut all = Counts::default();
    for build in builds {
        all.hits += build.counts.hits;
        all.merged += build.counts.merged;
        all.executed += build.counts.executed;
        all.refused += build.counts.refused;
        // Of each build by itself: what one was asked to execute was not missed in another.
        all.missed += build.counts.ran_at_client();
        all.failed += build.counts.failed;
        all.cancelled += build.counts.cancelled;
        all.queue_ns = all.queue_ns.saturating_add(build.counts.queue_ns);
        all.run_ns = all.run_ns.saturating_add(build.counts.run_ns);
    }
    let storage: StorageSnapshot = (state.storage)();
    let stats = state.journal.stats();
    let oldest = snapshot.oldest_queued_ms.map(|ms| duration(ms.saturating_mul(1_000_000)));
    let mean_wait = all.queue_ns.checked_div(all.executed + all.refused).unwrap_or(0);
    let uptime = state.started.elapsed().unwrap_or_default().as_nanos();
    html! {
        dl.tiles {
            (parts::tile("Cache hit rate", &html! { (rows::rate(&all)) }, &html! {
                "last " (counted(builds.len() as u64, "build")) ", " (counted(all.actions(), "action"))
            }))
            (parts::tile("Running", &html! {
                (snapshot.running_count) span.dim { " / " (snapshot.slots) " slots" }
            }, &html! { (counted(snapshot.workers.len() as u64, "worker")) @if snapshot.draining { ", draining" } }))
            (parts::tile("Queued", &html! { (count(snapshot.queue_depth as u64)) }, &html! {
                @match oldest {
                    Some(oldest) => { "oldest waits " (oldest) },
                    None => { "mean wait " (duration(mean_wait)) },
                }
            }))
            (parts::tile("Executed", &html! { (count(all.executed)) }, &html! {
                (duration(all.run_ns)) " of work, " (count(all.failed)) " failed"
            }))
            (storage_tile(&storage, shared))
            (parts::tile("Up", &html! {
                (duration(u64::try_from(uptime).unwrap_or(u64::MAX)))
            }, &html! { (counted(stats.counts.total(), "request")) " answered" }))
        }
    }
}

/// What a fleet shares where it shares anything; what is here are copies then.
fn storage_tile(here: &StorageSnapshot, shared: Option<&Shared>) -> Markup {
    match shared {
        None => parts::tile(
            "Storage",
            &html! {
                (bytes(here.used_bytes))
                @if here.max_bytes > 0 { span.dim { " / " (bytes(here.max_bytes)) } }
            },
            &html! {
                @if here.cut_blobs_total > 0 {
                    "too small: promises were cut short, " (bytes(here.wanted_bytes)) " would do"
                } @else { (counted(here.blobs, "blob")) }
            },
        ),
        Some(shared) => parts::tile(
            "Shared storage",
            &html! { (bytes(shared.bytes)) },
            &html! {
                @if shared.index_incomplete { "incomplete: kiln index rebuild" }
                @else { (counted(shared.blobs, "blob")) ", " (bytes(here.used_bytes)) " copied here" }
            },
        ),
    }
}

fn charts(builds: &[BuildSummary], activity: &Activity, slots: u64) -> Markup {
    html! {
        div.charts {
            section.panel {
                header {
                    h2 { "Actions by build" }
                    p.legend {
                        span.hit { "hit" } span.merged { "merged" } span.executed { "executed" }
                        span.client { "run by clients" } span.failed { "failed" } span.line { "hit rate" }
                    }
                }
                (chart::builds(builds, COLUMNS))
            }
            section.panel {
                header {
                    h2 { "Slots and queue" }
                    p.legend {
                        span.run { "running" } span.wait { "waiting" } span.limit { "slots" }
                    }
                }
                @if activity.is_empty() {
                    p.quiet { "Nothing has run lately." }
                } @else { (activity.chart(slots)) }
            }
        }
    }
}

fn failures(recent: &[JournalEntry]) -> Markup {
    let failed: Vec<_> =
        recent.iter().filter(|entry| has_failed(&entry.execution)).take(FAILURES).collect();
    html! {
        section.panel {
            header { h2 { "Recent failures" } }
            @if failed.is_empty() { p.quiet { "None among the last " (count(recent.len() as u64)) " actions." } }
            ul.plain {
                @for entry in failed {
                    @let run = &entry.execution;
                    li {
                        (chip(run)) " " (target(run))
                        span.dim.right { (when(run.timeline.unwrap_or_default().finished)) }
                    }
                }
            }
        }
    }
}

fn welcome(base_url: &str) -> Markup {
    html! {
        section.panel.empty {
            h2 { "Ready for the first build" }
            p { "Nothing has been built here yet. Point a build tool at this server:" }
            (parts::how_to_build(base_url))
        }
    }
}
