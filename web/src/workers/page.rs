//! Queue and workers, as they are now.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_scheduler::Snapshot;
use kiln_scheduler::snapshot::{OperationView, PropertySetView, WorkerView};
use maud::{Markup, html};
use serde::Deserialize;

use super::activity::Activity;
use super::unserved::Unserved;
use crate::design::layout::{self, Live, Place};
use crate::design::parts;
use crate::design::text::{build_link, label};
use crate::error::WebError;
use crate::format::{abbreviated, count, counted, duration, encode, now, short};
use crate::state::WebState;

/// Slots drawn one by one.
const MAX_SLOTS: u32 = 128;

#[derive(Deserialize)]
pub struct Looking {
    /// Set: the page does not load itself again.
    hold: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    Arguments(looking): Arguments<Looking>,
) -> Result<Html<String>, WebError> {
    let snapshot = state.queue.snapshot().await?;
    let activity = Activity::of(&state.journal.recent_runs(), &snapshot, now());
    let unserved = Unserved::of(&snapshot);
    // What waits for its first worker is news as well.
    let busy = snapshot.running_count + snapshot.queue_depth > 0 || snapshot.workers.is_empty();
    let live = Live::of(busy, looking.hold.is_some());
    let expected = |operation: &OperationView| expected(&state, operation);
    let body = html! {
        div.title {
            h1 { "Queue & workers" }
            p {
                @if snapshot.draining { span.chip.failed { "draining" } " " }
                (layout::hold(live, "/queue"))
            }
        }
        (tiles(&snapshot))
        (unserved_sets(&unserved))
        section.panel {
            header {
                h2 { "Slots and queue" }
                p.legend { span.run { "running" } span.wait { "waiting" } span.limit { "slots" } }
            }
            @if activity.is_empty() { p.quiet { "Nothing has run lately." } }
            @else { (activity.chart(snapshot.slots)) }
        }
        section.panel { header { h2 { "Workers" } } (worker_table(&snapshot)) }
        (operations("Running", "Nothing is running.", &snapshot.running, snapshot.running_count, &unserved, &expected))
        (operations("Waiting", "Nothing waits for a worker.", &snapshot.queued, snapshot.queue_depth, &unserved, &expected))
        (property_sets(&snapshot.property_sets))
    };
    Ok(layout::live(Place::Queue, "Queue & workers", state.version, live, &body))
}

/// What waits in vain, above everything else.
fn unserved_sets(unserved: &Unserved) -> Markup {
    html! {
        @for (properties, queued, reason) in unserved.iter() {
            section.panel.alarm {
                header { h2 { "No worker can take " (counted(queued as u64, "waiting action")) } }
                p { "Required: " (tags(properties)) }
                p.quiet { (short(reason, 1000)) "." }
            }
        }
    }
}

/// Milliseconds that an operation is expected to run; `None`: its target has not run yet.
pub fn expected(state: &WebState, operation: &OperationView) -> Option<u64> {
    operation.expected_ms.filter(|_| state.journal.has_run(&operation.target, &operation.mnemonic))
}

fn tiles(snapshot: &Snapshot) -> Markup {
    let counters = &snapshot.counters;
    let free = snapshot.slots.saturating_sub(snapshot.running_count as u64);
    html! {
        dl.tiles {
            (parts::tile("Running", &html! {
                (snapshot.running_count) span.dim { " / " (snapshot.slots) " slots" }
            }, &html! { (free) " free" }))
            (parts::tile("Waiting", &html! { (count(snapshot.queue_depth as u64)) }, &html! {
                @match snapshot.oldest_queued_ms {
                    Some(ms) => { "oldest for " (millis(ms)) },
                    None => { "nobody waits" },
                }
            }))
            (parts::tile("Workers", &html! { (snapshot.workers.len()) }, &html! {
                (snapshot.workers.iter().filter(|worker| worker.draining).count()) " draining, "
                (snapshot.workers.iter().filter(|worker| worker.paused.is_some()).count()) " paused"
            }))
            (parts::tile("Merged", &html! { (count(counters.merged)) }, &html! { "joined a run in flight" }))
        }
    }
}

fn millis(ms: u64) -> String {
    duration(ms.saturating_mul(1_000_000))
}

/// Small: for the start page.
pub fn worker_cards(snapshot: &Snapshot) -> Markup {
    html! {
        @if snapshot.workers.is_empty() { (no_workers()) }
        ul.workers {
            @for worker in &snapshot.workers {
                li {
                    span.mono { (short(&worker.id, 28)) }
                    @if worker.draining { " " span.chip.failed { "draining" } }
                    @if worker.paused.is_some() { " " span.chip.failed { "paused" } }
                    span.right.dim { (worker.occupied) " / " (worker.slots) }
                    (slots(worker))
                }
            }
        }
    }
}

fn no_workers() -> Markup {
    html! {
        div.quiet {
            p { "No worker is connected: actions wait. Start one here or on another machine:" }
            pre { code { "kiln worker --server http://THIS-SERVER:8980" } }
        }
    }
}

/// A picture of a worker's slots: one square for each, those that are occupied marked.
fn slots(worker: &WorkerView) -> Markup {
    let drawn = worker.slots.clamp(1, MAX_SLOTS);
    let columns = drawn.min(32);
    let rows = drawn.div_ceil(columns);
    let words = format!("{} of {} slots occupied", worker.occupied, worker.slots);
    html! {
        svg.slots viewBox={ "0 0 " (columns * 10) " " (rows * 10) } role="img" aria-label=(words)
            preserveAspectRatio="xMinYMid" width=(columns * 10) height=(rows * 10) {
            @for slot in 0..drawn {
                rect class=(if slot < worker.occupied { "busy" } else { "free" })
                    x=(slot % columns * 10 + 1) y=(slot / columns * 10 + 1) width="8" height="8" rx="2" {}
            }
        }
    }
}

fn worker_table(snapshot: &Snapshot) -> Markup {
    html! {
        @if snapshot.workers.is_empty() { (no_workers()) }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Workers" {
                table.rows {
                    thead { tr {
                        th { "Worker" } th { "Host" } th { "Slots" } th { "Properties" }
                        th { "Not enforced" } th.num { "Last seen" } th { "Version" }
                    } }
                    tbody { @for worker in &snapshot.workers {
                        tr {
                            td.mono { (short(&worker.id, 40)) @if worker.draining { " " span.chip.failed { "draining" } }
                                @if let Some(reason) = &worker.paused {
                                    " " span.chip.failed { "paused" } div.dim { (short(reason, 200)) }
                                } }
                            td { (short(&worker.host_name, 40)) }
                            td.nowrap { (slots(worker)) " " span.dim { (worker.occupied) "/" (worker.slots) } }
                            td.many { (tags(&worker.properties)) }
                            td.many.dim { @if worker.not_enforced.is_empty() { "–" } @else {
                                (short(&worker.not_enforced.join("; "), 200)) } }
                            td.num.dim { (millis(worker.last_seen_ms)) " ago" }
                            td.dim { (short(&worker.version, 20)) }
                        }
                    } }
                }
            }
        }
    }
}

fn tags(properties: &[(String, String)]) -> Markup {
    html! {
        @if properties.is_empty() { span.dim { "–" } }
        @for (name, value) in properties.iter().take(20) {
            span.tag { (short(name, 60)) "=" (short(value, 80)) } " "
        }
    }
}

pub fn operations(
    title: &str,
    empty: &str,
    operations: &[OperationView],
    all: usize,
    unserved: &Unserved,
    expected: &dyn Fn(&OperationView) -> Option<u64>,
) -> Markup {
    html! {
        section.panel {
            header {
                h2 { (title) }
                @if all > operations.len() {
                    span.dim { "the oldest " (operations.len()) " of " (count(all as u64)) }
                }
            }
            @if operations.is_empty() { p.quiet { (empty) } }
            @else {
                div.scroll tabindex="0" role="region" aria-label=(title) {
                    table.rows {
                        thead { tr {
                            th { "Target" } th { "Mnemonic" } th { "Build" } th { "Worker" }
                            th.num { "For" } th.num { "Expected" } th.num { "Try" } th.num { "Clients" }
                        } }
                        tbody { @for operation in operations {
                            @let lacking = unserved.reason(&operation.properties);
                            (operation_row(operation, lacking, expected(operation)))
                        } }
                    }
                }
            }
        }
    }
}

pub fn operation_row(
    operation: &OperationView,
    lacking: Option<&str>,
    expected_ms: Option<u64>,
) -> Markup {
    let name = if operation.target.is_empty() { "(no target)" } else { &operation.target };
    html! {
        tr {
            td.wide {
                a.target href=(operation_link(operation)) { (label(&short(name, parts::MAX_CELL))) }
                @if let Some(lacking) = lacking { p.lacking { (short(lacking, 400)) } }
            }
            td { (short(&operation.mnemonic, 40)) }
            td { @if !operation.invocation.is_empty() {
                a.mono href=(build_link(&operation.invocation)) { (abbreviated(&operation.invocation)) }
            } }
            td.dim { (short(&operation.worker, 32)) }
            td.num { (millis(operation.for_ms)) }
            td.num.dim { @match expected_ms { Some(ms) => (millis(ms)), None => "–" } }
            td.num { (operation.attempt) }
            td.num { (operation.waiters) }
        }
    }
}

pub fn operation_link(operation: &OperationView) -> String {
    let function = if operation.action.starts_with("blake3/") { "" } else { "sha256/" };
    format!(
        "/actions/{function}{}?instance={}&operation={}",
        encode(&operation.action, true),
        encode(&operation.instance, false),
        encode(&operation.name, false)
    )
}

fn property_sets(sets: &[PropertySetView]) -> Markup {
    html! {
        @if !sets.is_empty() {
            section.panel {
                header { h2 { "Demand by properties" } }
                div.scroll tabindex="0" role="region" aria-label="Demand by properties" {
                    table.rows {
                        thead { tr {
                            th { "Properties" } th.num { "Waiting" } th.num { "Running" }
                            th.num { "Slots wanted" } th { "Served" }
                        } }
                        tbody { @for set in sets {
                            tr {
                                td.wide { (tags(&set.properties)) }
                                td.num { (set.queued) }
                                td.num { (set.running) }
                                td.num { (set.slots_wanted) }
                                td { @if set.served { span.chip.hit { "yes" } }
                                    @else if set.waits_in_vain() { span.chip.failed { "no worker" } }
                                    @else { span.dim { "no worker" } } }
                            }
                        } }
                    }
                }
            }
        }
    }
}
