//! The page of one run: its way, its stages over time, and what each of them says.

use axum::extract::{Path, RawQuery, State};
use axum::response::Html;
use maud::{Markup, html};

use super::api::readable;
use super::lanes::seconds;
use super::list::chip;
use super::{lanes, way};
use crate::design::layout::{self, Live, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::format::counted;
use crate::json::{PipelineShown, PipelineStage};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Characters of a name and of a reason.
const MAX_NAME: usize = 120;
const MAX_REASON: usize = 600;
/// Stages that are listed.
const MAX_ROWS: usize = 500;

pub async fn page(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Html<String>, WebError> {
    let shown = readable(&state, &caller, &id).await?;
    let live = Live::of(!shown.run.ended, query.is_some_and(|it| it.contains("hold")));
    let address = format!("/pipelines/{}", shown.run.id);
    let body = html! {
        (title(&shown, &layout::hold(live, &address)))
        (asks(&shown))
        section.panel {
            h2 { "Way" }
            (way::picture(&shown))
        }
        section.panel {
            h2 { "Over time" }
            (lanes::picture(&shown))
        }
        (stages(&shown))
    };
    Ok(layout::live(Place::Pipelines, "Run of a pipeline", state.version, live, &body))
}

fn title(it: &PipelineShown, hold: &Markup) -> Markup {
    let run = &it.run;
    html! {
        div.title {
            h1 { (visible(&run.pipeline, MAX_NAME)) }
            code { (run.id) }
            (chip(&run.stands))
            p { (hold) }
        }
        section.panel {
            dl.pairs.facts {
                @if !it.description.is_empty() { dt { "What" } dd { (visible(&it.description, MAX_REASON)) } }
                dt { "Begun" } dd { (run.created) ", " (run.trigger) ", by " (visible(&run.by, MAX_NAME)) }
                @if !run.branch.is_empty() { dt { "Branch" } dd { (visible(&run.branch, MAX_NAME)) } }
                @if !run.commit.is_empty() { dt { "Commit" } dd { code { (visible(&run.commit, MAX_NAME)) } } }
                @if let Some(group) = &run.group { dt { "Takes turns in" } dd { (visible(group, MAX_NAME)) } }
                @for (name, value) in &it.inputs { dt { (name) } dd { (visible(value, MAX_REASON)) } }
                dt { "Took" } dd { (seconds(it.took_s)) @if !run.ended { " so far" } }
                dt { "Stages" } dd { (run.passed) " passed, " (run.failed) " failed, " (run.skipped) " skipped, " (run.running) " running, of " (run.stages) }
                @if run.resumed > 0 { dt { "Resumed" } dd { (counted(run.resumed.into(), "time")) } }
                @if let Some(why) = &it.stopped { dt { "Ended because" } dd { strong { (visible(why, MAX_REASON)) } } }
            }
        }
    }
}

/// What people have to do.
fn asks(it: &PipelineShown) -> Markup {
    let asking: Vec<_> = it.stages.iter().filter(|it| it.stands == "asking").collect();
    html! {
        @if !asking.is_empty() {
            section.panel {
                h2 { "Waits for people" }
                @for stage in asking.iter().take(MAX_ROWS) {
                    p { strong { (visible(&stage.name, MAX_NAME)) } @if let Some(asked) = &stage.reason { ": " (visible(asked, MAX_REASON)) } }
                    pre { code { "kiln pipeline approve " (it.run.id) " --stage " (crate::format::shell(&stage.name)) } }
                }
            }
        }
    }
}

fn stages(it: &PipelineShown) -> Markup {
    let more = it.stages.len().saturating_sub(MAX_ROWS);
    html! {
        section.panel {
            h2 { "Stages" }
            div.scroll tabindex="0" role="region" aria-label="Stages" {
                table.rows {
                    thead { tr { th { "Stage" } th { "Stands" } th { "Kind" } th { "Took" } th { "Attempts" } th { "What it says" } } }
                    tbody { @for (at, stage) in it.stages.iter().enumerate().take(MAX_ROWS) { (row(&it.run.id, at, stage)) } }
                }
            }
            @if more > 0 { p.dim { (more) " more; the API has all" } }
        }
    }
}

fn row(run: &str, at: usize, it: &PipelineStage) -> Markup {
    let prints = it.attempts > 0 && it.kind != "approve";
    html! {
        tr id={ "stage-" (at) } {
            td.wide {
                @if prints { a href={ "/pipelines/" (run) "/log/" (at) } { (visible(&it.name, MAX_NAME)) } }
                @else { (visible(&it.name, MAX_NAME)) }
                @if it.critical { " " span.tag { "critical" } }
            }
            td { (chip(&it.stands)) }
            td { (it.kind) }
            td.num { @if it.started.is_some() { (seconds(it.took_s)) } }
            td.num { (it.attempts) }
            td.many {
                @if let Some(reason) = &it.reason { (visible(reason, MAX_REASON)) }
                @if !it.approved.is_empty() { " approved by " (visible(&it.approved.join(", "), MAX_REASON)) }
                @for link in &it.links {
                    @if link.address.starts_with('/') && !link.address.starts_with("//") { " " a href=(link.address) { (visible(&link.name, MAX_NAME)) } }
                }
            }
        }
    }
}
