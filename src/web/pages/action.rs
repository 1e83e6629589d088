//! One action: what it was, what it did, where the time went, why it was not cached. The link
//! in `ExecuteResponse.message` opens this page.

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_cas::{Digest, StoreError};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi;
use kiln_scheduler::journal::{Earlier, Entry, Page, Query};
use maud::{Markup, html};
use prost::Message;
use serde::Deserialize;

use super::action_parts as show;
use super::layout::{self, Place};
use super::tree::listing;
use super::{chart, parts, why};
use crate::web::WebState;
use crate::web::content::{MAX_MESSAGE, digest, parse_digest};
use crate::web::error::WebError;
use crate::web::format::{abbreviated, short};
use crate::web::tree::Kind;

const RUNS: usize = 12;

#[derive(Deserialize, Default)]
pub struct Options {
    #[serde(default)]
    instance: String,
    /// Name of the operation; empty: the last run.
    #[serde(default)]
    operation: String,
}

/// Everything the page shows; a part that cannot be read says why.
pub struct Loaded {
    pub digest: Digest,
    pub instance: String,
    pub action: Result<reapi::Action, StoreError>,
    pub command: Result<reapi::Command, StoreError>,
    pub input_root: Result<(Digest, reapi::Directory), StoreError>,
    /// The run that is shown; `None`: the journal knows none.
    pub run: Option<Entry>,
    pub result: Option<reapi::ActionResult>,
    pub is_cached: bool,
    pub runs: Vec<Entry>,
    pub target_runs: Vec<Entry>,
    /// The last run of the same target and mnemonic, where this one missed the cache.
    pub compared: Option<Entry>,
}

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

async fn load(state: &WebState, digest: Digest, options: Options) -> Result<Loaded, WebError> {
    let runs = state.journal.executions(&Query::Action(digest), Page::first(RUNS)).await?;
    let named = match options.operation.as_str() {
        "" => None,
        operation => state.journal.execution(operation).await?,
    };
    let run = named.or_else(|| runs.first().cloned());
    let instance = match &run {
        Some(run) if options.instance.is_empty() => run.execution.instance_name.clone(),
        _ => options.instance,
    };
    let action: Result<reapi::Action, _> = state.message(&digest, MAX_MESSAGE).await;
    let (command, input_root) = match &action {
        Ok(action) => (
            message_at(state, action.command_digest.as_ref(), digest).await.map(|found| found.1),
            message_at(state, action.input_root_digest.as_ref(), digest).await,
        ),
        Err(error) => (Err(error.clone()), Err(error.clone())),
    };
    if action.is_err() && run.is_none() {
        let hint = "Neither the store nor the journal has it: it was never executed here, or \
                    is older than what is kept.";
        return Err(WebError::not_found(format!("nothing is known of action {digest}"), hint));
    }
    let cached = state.cached(&instance, &digest).await;
    let is_cached = cached.is_some();
    let result = run.as_ref().and_then(own_result).or(cached);
    let (target_runs, compared) = related(state, run.as_ref(), &digest).await?;
    Ok(Loaded {
        digest,
        instance,
        action,
        command,
        input_root,
        run,
        result,
        is_cached,
        runs,
        target_runs,
        compared,
    })
}

fn own_result(run: &Entry) -> Option<reapi::ActionResult> {
    let encoded = &run.execution.action_result;
    if encoded.is_empty() {
        return None;
    }
    reapi::ActionResult::decode(encoded.clone()).ok()
}

async fn message_at<M: Message + Default>(
    state: &WebState,
    wire: Option<&reapi::Digest>,
    action: Digest,
) -> Result<(Digest, M), StoreError> {
    let digest = digest(wire, action.function)
        .ok_or_else(|| StoreError::Invalid("the action names it with no proper digest".into()))?;
    Ok((digest, state.message(&digest, MAX_MESSAGE).await?))
}

async fn related(
    state: &WebState,
    run: Option<&Entry>,
    digest: &Digest,
) -> Result<(Vec<Entry>, Option<Entry>), WebError> {
    let Some(entry) = run.filter(|entry| !entry.execution.target_id.is_empty()) else {
        return Ok((Vec::new(), None));
    };
    let run = &entry.execution;
    let query =
        Query::Target { target: run.target_id.clone(), mnemonic: Some(run.mnemonic.clone()) };
    let runs = state.journal.executions(&query, Page::first(RUNS)).await?;
    if run.origin() != Origin::Executed {
        return Ok((runs, None));
    }
    let configuration = run.configuration_id.as_str();
    let earlier = Earlier {
        target: &run.target_id,
        mnemonic: &run.mnemonic,
        configuration: Some(configuration).filter(|c| !c.is_empty()),
        not_action: Some(digest),
        before: Some(entry.seq),
    };
    Ok((runs, state.journal.last_run_before(earlier).await?))
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
            header { h2 { (parts::code_name(run.status_code)) } }
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
