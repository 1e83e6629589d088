//! All runs, newest first, and the pipelines that the operator declares.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::api::{self, Page};
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::json::{PipelineDeclared, PipelineRun};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Characters of a name and of a description.
const MAX_NAME: usize = 100;
const MAX_TEXT: usize = 300;

pub async fn page(State(state): State<WebState>, caller: Caller) -> Result<Html<String>, WebError> {
    let listed = api::listed(&state, &caller, Page::default()).await?;
    let body = html! {
        div.title { h1 { "Pipelines" } }
        @if !listed.declared.is_empty() { (declared(&listed.declared)) }
        @if listed.runs.is_empty() { (none()) } @else { (table(&listed.runs)) }
    };
    Ok(layout::page(Place::Pipelines, "Pipelines", state.version, &body))
}

fn none() -> Markup {
    html! {
        section.panel.empty {
            h2 { "No pipeline has run yet" }
            p { "A file says which stages there are, what they need, and what begins a run." }
            pre { code { "kiln pipeline run kiln-pipeline.toml --source ." } }
        }
    }
}

fn declared(all: &[PipelineDeclared]) -> Markup {
    html! {
        section.panel {
            h2 { "Declared by the operator" }
            dl.pairs {
                @for it in all {
                    dt { (visible(&it.name, MAX_NAME)) }
                    dd {
                        (visible(&it.description, MAX_TEXT))
                        @if let Some(next) = &it.next { span.dim { " next at " (next) } }
                    }
                }
            }
        }
    }
}

/// How a run or a stage stands, as a word with a colour.
pub fn chip(stands: &str) -> Markup {
    let class = match stands {
        "passed" => "hit",
        "failed" | "blocked" => "failed",
        "running" | "cancelling" | "stopping" => "executed",
        "asking" | "pausing" | "queued" => "merged",
        _ => "cancelled",
    };
    html! { span class={ "chip " (class) } { (stands.replace('_', " ")) } }
}

fn table(all: &[PipelineRun]) -> Markup {
    html! {
        section.panel {
            div.scroll tabindex="0" role="region" aria-label="Runs" {
                table.rows {
                    thead { tr { th { "Run" } th { "Pipeline" } th { "Stands" } th { "Passed" } th { "Begun by" } th { "Branch" } th { "At" } } }
                    tbody { @for it in all { (row(it)) } }
                }
            }
        }
    }
}

fn row(it: &PipelineRun) -> Markup {
    html! {
        tr {
            td { a href={ "/pipelines/" (it.id) } { code { (it.id) } } }
            td.wide { (visible(&it.pipeline, MAX_NAME)) }
            td { (chip(&it.stands)) }
            td { (it.passed) " of " (it.stages) @if it.failed > 0 { ", " (it.failed) " failed" } }
            td.many { (it.trigger) ", " (visible(&it.by, MAX_NAME)) }
            td { (visible(&it.branch, MAX_NAME)) }
            td { (it.created) }
        }
    }
}
