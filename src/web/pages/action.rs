//! One action: what it was, what it did, where the time went, why it was not cached. The link
//! in `ExecuteResponse.message` opens this page.

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_scheduler::journal::Entry;
use maud::{Markup, html};

use super::action_parts as show;
use super::layout::{self, Place};
use super::tree::listing;
use super::{chart, parts, why};
use crate::web::WebState;
use crate::web::action::{Loaded, Options, load};
use crate::web::content::parse_digest;
use crate::web::error::WebError;
use crate::web::format::{abbreviated, code_name, short};
use crate::web::tree::Kind;

pub async fn page(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
    Arguments(options): Arguments<Options>,
) -> Result<Html<String>, WebError> {
    let digest = parse_digest(&function, &hash, &size)?;
    let loaded = load(&state, digest, options).await?;
    let explanation = why::section(&state, &loaded).await;
    let logs = show::logs(&state, &loaded).await;
    let title = title(&loaded);
    let body = html! {
        (head(&loaded, &title))
        div.columns {
            div.main {
                @if let Some(message) = failure(&loaded) { (message) }
                (logs)
                (show::command(&loaded))
                (show::outputs(&loaded))
                (inputs(&loaded))
            }
            div.side {
                (time(&loaded))
                (explanation)
                (show::facts(&loaded))
                (show::environment(&loaded))
            }
        }
        (history("Runs of this action", &loaded.runs))
        (history("Runs of this target and mnemonic", &loaded.target_runs))
    };
    Ok(layout::page(Place::Elsewhere, &title, state.version, &body))
}

fn title(loaded: &Loaded) -> String {
    match &loaded.run {
        Some(entry) if !entry.execution.target_id.is_empty() => {
            short(&entry.execution.target_id, 200)
        }
        _ => format!("Action {}", abbreviated(&loaded.digest.hex())),
    }
}

fn head(loaded: &Loaded, title: &str) -> Markup {
    html! {
        div.title {
            @match &loaded.run {
                Some(entry) => {
                    @let run = &entry.execution;
                    p.crumbs {
                        @if run.invocation_id.is_empty() { a href="/builds" { "Builds" } }
                        @else {
                            a href="/builds" { "Builds" } " / "
                            a.mono href=(parts::build_link(&run.invocation_id)) { (abbreviated(&run.invocation_id)) }
                        }
                        " / "
                    }
                    h1 { (parts::label(title)) }
                    p { (parts::chip(run)) " "
                        @if !run.mnemonic.is_empty() { span.tag { (short(&run.mnemonic, 60)) } " " }
                        @if loaded.is_cached { span.chip.hit { "in the action cache" } " " }
                        @if run.attempts > 1 { span.chip.failed { "attempt " (run.attempts) } " " }
                        span.dim { (parts::when(run.timeline.unwrap_or_default().finished)) }
                    }
                }
                None => {
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
    let class = if run.status_code == 0 { "panel" } else { "panel alarm" };
    Some(html! {
        section class=(class) {
            header { h2 { (code_name(run.status_code)) } }
            pre.wrap { (short(&run.status_message, 4000)) }
        }
    })
}

fn time(loaded: &Loaded) -> Markup {
    let timeline = loaded.run.as_ref().and_then(|entry| entry.execution.timeline);
    html! {
        @if let Some(timeline) = timeline {
            section.panel {
                header { h2 { "Timeline" } }
                @if chart::phases(&timeline).is_empty() {
                    p.quiet { "Answered from the action cache: nothing had to run." }
                } @else { (chart::timeline(&timeline)) }
            }
        }
    }
}

fn inputs(loaded: &Loaded) -> Markup {
    html! {
        section.panel {
            header { h2 { "Inputs" }
                @if let Ok((digest, _)) = &loaded.input_root {
                    a href=(super::tree::link(digest, Kind::Directory, "")) { "Open the input root" }
                }
            }
            @match &loaded.input_root {
                Ok((digest, directory)) => (listing(directory, digest, Kind::Directory, "")),
                Err(error) => p.quiet { (error.to_string()) },
            }
        }
    }
}

fn history(title: &str, runs: &[Entry]) -> Markup {
    html! {
        @if runs.len() > 1 {
            section.panel {
                header { h2 { (title) } }
                (parts::executions(runs, true, title))
            }
        }
    }
}
