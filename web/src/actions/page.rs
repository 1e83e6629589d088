//! One action: what it was, what it did, where the time went, why it was not cached. The link
//! in `ExecuteResponse.message` opens this page.

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::JournalEntry;
use maud::{Markup, html};

use super::load::{Loaded, Options, load};
use super::parts as show;
use super::{rows, timeline, why};
use crate::ansi;
use crate::blobs::page::{link, listing};
use crate::blobs::tree::Kind;
use crate::content::parse_digest;
use crate::design::layout::{self, Live, Place};
use crate::design::text::{build_link, label, when};
use crate::error::WebError;
use crate::format::{abbreviated, code_name, duration, short};
use crate::json::Running;
use crate::state::WebState;
use crate::workers::page::operation_link;

pub async fn page(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
    Arguments(options): Arguments<Options>,
) -> Result<Html<String>, WebError> {
    let digest = parse_digest(&function, &hash, &size)?;
    let is_held = options.hold.is_some();
    let loaded = load(&state, digest, options).await?;
    let explanation = why::section(&state, &loaded).await;
    let logs = show::logs(&state, &loaded).await;
    let title = title(&loaded);
    let live = Live::of(loaded.running.is_some(), is_held);
    let body = html! {
        (head(&loaded, &title, live))
        @if let Some(remark) = loaded.remark { section.panel.slim { p.quiet { (remark) } } }
        div.columns {
            div.main {
                @if let Some(message) = failure(&loaded) { (message) }
                @if let Some(running) = &loaded.running { (output(running)) }
                (logs)
                (show::command(&loaded))
                (show::environment(&loaded))
                @if loaded.running.is_none() { (show::outputs(&loaded)) }
                (inputs(&loaded))
            }
            div.side {
                (time(&loaded))
                (explanation)
                (show::facts(&state, &loaded))
            }
        }
        (history("Runs of this action", &loaded.runs))
        (history("Runs of this target and mnemonic", &loaded.target_runs))
    };
    Ok(layout::live(Place::Elsewhere, &title, state.version, live, &body))
}

fn title(loaded: &Loaded) -> String {
    let ended = loaded.run.as_ref().map(|entry| entry.execution.target_id.as_str());
    let running = loaded.running.as_ref().map(|running| running.operation.target.as_str());
    match ended.or(running).filter(|target| !target.is_empty()) {
        Some(target) => short(target, 200),
        None => format!("Action {}", abbreviated(&loaded.digest.hex())),
    }
}

/// What an action that runs has printed so far.
fn output(running: &Running) -> Markup {
    html! {
        @if let Some(lacking) = &running.lacking {
            section.panel.alarm {
                header { h2 { "No worker can take it" } }
                p.quiet { (short(lacking, 1000)) "." }
            }
        }
        @if running.is_running {
            section.panel {
                header { h2 { "Output so far" } }
                @if running.output.is_empty() { p.quiet { "It has printed nothing yet." } }
                @else { pre.log tabindex="0" { (ansi::markup(&running.output)) } }
            }
        }
    }
}

/// How an action that has not ended goes.
fn now(running: &Running) -> Markup {
    let operation = &running.operation;
    let time = duration(operation.for_ms.saturating_mul(1_000_000));
    html! {
        span.chip.running { @if running.is_running { "running" } @else { "waiting" } } " "
        @if !operation.mnemonic.is_empty() { span.tag { (short(&operation.mnemonic, 60)) } " " }
        @if operation.attempt > 1 { span.chip.failed { "attempt " (operation.attempt) } " " }
        span.dim { "for " (time) @if !operation.worker.is_empty() { " on " (short(&operation.worker, 60)) } }
    }
}

fn crumbs(invocation: &str) -> Markup {
    html! {
        p.crumbs {
            a href="/builds" { "Builds" } " / "
            @if !invocation.is_empty() {
                a.mono href=(build_link(invocation)) { (abbreviated(invocation)) } " / "
            }
        }
    }
}

fn head(loaded: &Loaded, title: &str, live: Live) -> Markup {
    html! {
        div.title {
            @match (&loaded.run, &loaded.running) {
                (_, Some(running)) => {
                    (crumbs(&running.operation.invocation))
                    h1 { (label(title)) }
                    p { (now(running)) " " (layout::hold(live, &operation_link(&running.operation))) }
                }
                (Some(entry), None) => {
                    @let run = &entry.execution;
                    (crumbs(&run.invocation_id))
                    h1 { (label(title)) }
                    p { (rows::chip(run)) " "
                        @if !run.mnemonic.is_empty() { span.tag { (short(&run.mnemonic, 60)) } " " }
                        @if loaded.is_cached { span.chip.hit { "in the action cache" } " " }
                        @if run.attempts > 1 { span.chip.failed { "attempt " (run.attempts) } " " }
                        span.dim { (when(run.timeline.unwrap_or_default().finished)) }
                    }
                }
                (None, None) => {
                    h1 { (title) }
                    p.dim { "The journal has no run of it." }
                }
            }
        }
    }
}

fn failure(loaded: &Loaded) -> Option<Markup> {
    let run = &loaded.run.as_ref()?.execution;
    if run.status_code == 0 && run.status_message.is_empty() {
        return None;
    }
    let failed = run.status_code != 0 || run.exit_code != 0;
    let class = if failed { "panel alarm" } else { "panel" };
    let title = if run.status_code == 0 { "Reason" } else { code_name(run.status_code) };
    Some(html! {
        section class=(class) {
            header { h2 { (title) } }
            pre.wrap { (short(&run.status_message, 4000)) }
        }
    })
}

fn time(loaded: &Loaded) -> Markup {
    let Some(entry) = &loaded.run else { return html! {} };
    let timeline = entry.execution.timeline.unwrap_or_default();
    let is_hit = entry.execution.origin() == Origin::CacheHit;
    html! {
        section.panel {
            header { h2 { "Timeline" } }
            @if is_hit { p.quiet { "Answered from the action cache: nothing had to run." } }
            @else if timeline::phases(&timeline).is_empty() { p.quiet { "No times of it are known." } }
            @else {
                (timeline::timeline(&timeline))
                @if timeline.leased == 0 { p.note { "No worker ever had it." } }
            }
        }
    }
}

fn inputs(loaded: &Loaded) -> Markup {
    html! {
        section.panel {
            header { h2 { "Inputs" }
                @if let Ok((digest, _)) = &loaded.input_root {
                    a href=(link(digest, Kind::Directory, "")) { "Open the input root" }
                }
            }
            @match &loaded.input_root {
                Ok((digest, directory)) => (listing(directory, digest, Kind::Directory, "")),
                Err(error) => p.quiet { (error.to_string()) },
            }
        }
    }
}

fn history(title: &str, runs: &[JournalEntry]) -> Markup {
    html! {
        @if runs.len() > 1 {
            section.panel {
                header { h2 { (title) } }
                (rows::executions(runs, true, title))
            }
        }
    }
}
