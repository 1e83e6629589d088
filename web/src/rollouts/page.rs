//! The page of one rollout: its steps, what the judge says in words, what was measured, and what happened.

use axum::extract::{Path, State};
use axum::response::Html;
use maud::{Markup, html};

use super::api;
use super::bands;
use super::list::chip;
use crate::design::layout::{self, Live, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::format::counted;
use crate::json::{RolloutLook, RolloutSets, RolloutShown, RolloutStep, RolloutTarget};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Characters of a name and of a reason.
const MAX_NAME: usize = 100;
const MAX_REASON: usize = 600;
/// Targets of one step that are named.
const MAX_NAMES: usize = 10;
/// Targets, looks and events that are listed.
const MAX_ROWS: usize = 60;

pub async fn page(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Html<String>, WebError> {
    api::may_read(&state, &caller)?;
    let found = state.rollouts.show(&id).await?;
    let shown = RolloutShown::from(&found);
    let series = found.latest.as_ref().map(|it| it.series.as_slice()).unwrap_or_default();
    let body = html! {
        (title(&shown))
        (steps(&shown))
        @if let Some(latest) = &shown.latest {
            section.panel { h2 { "What was measured last" } (bands::shown(latest, series)) }
        }
        @if !shown.judgements.is_empty() { (looks(&shown.judgements)) }
        @if !shown.told.is_empty() { (targets(&shown.told)) }
        (events(&shown))
    };
    let live = if shown.rollout.ended { Live::No } else { Live::Yes };
    Ok(layout::live(Place::Rollouts, "Rollout", state.version, live, &body))
}

fn title(it: &RolloutShown) -> Markup {
    let one = &it.rollout;
    html! {
        div.title {
            h1 { (visible(&one.release, MAX_NAME)) }
            span.dim { "for " (visible(&one.service, MAX_NAME)) " in " (visible(&one.environment, MAX_NAME)) }
            (chip(&one.phase, one.paused))
            @if one.drill_s.is_some() { " " span.chip.merged { "drill" } }
        }
        section.panel {
            dl.pairs.facts {
                dt { "Began" } dd { (one.started) " by " (visible(&one.by, MAX_NAME)) ": " (visible(&one.reason, MAX_REASON)) }
                dt { "Returns to" } dd { @match &one.previous { Some(it) => (visible(it, MAX_NAME)), None => "nothing: it is the first" } }
                dt { "Since" } dd { (it.since) }
                @if let Some(next) = &it.next { dt { "Next decision" } dd { (next) " at the earliest" } }
                @if let Some(deadline) = &it.deadline { dt { "Reverted after" } dd { (deadline) } }
                @if let Some(what) = &it.waits_for { dt { "Waits" } dd { strong { (visible(what, MAX_REASON)) } } }
                @if let Some(why) = &it.paused_why { dt { "Paused" } dd { (visible(why, MAX_REASON)) } }
                @if let Some(why) = &it.why { dt { "Reverted because" } dd { strong { (visible(why, MAX_REASON)) } } }
                @if let Some(sets) = &it.sets { dt { "Requests go" } dd { (switched(sets)) } }
                @if let Some(most) = it.unavailable { dt { "Down at once" } dd { "at most " (counted(most as u64, "target")) } }
                @if let Some(down) = it.crowded { dt { "Waits" } dd { strong { (counted(down as u64, "target")) @if down == 1 { " is" } @else { " are" } " down, which is as many as may be" } } }
                @if let Some(drill) = &it.drill { dt { "Drill" } dd { @if drill.passed { "passed" } @else { strong { "failed" } } ", with " (drill.budget_s) " s to revert" } }
                @if let Some(took) = it.reverted_s { dt { "Reverted within" } dd { (format!("{took:.1} s")) } }
            }
        }
    }
}

fn switched(it: &RolloutSets) -> Markup {
    html! {
        "from " (visible(&it.live, MAX_NAME)) " (" (counted(it.live_targets as u64, "target")) ") to "
        (visible(&it.idle, MAX_NAME)) " (" (it.heard) " of " (counted(it.idle_targets as u64, "target")) " answered when it began)"
    }
}

/// Names, the first few of them.
fn names(all: &[String]) -> Markup {
    html! {
        (all.iter().take(MAX_NAMES).map(|it| visible(it, MAX_NAME)).collect::<Vec<_>>().join(", "))
        @if all.len() > MAX_NAMES { " …" }
    }
}

fn steps(it: &RolloutShown) -> Markup {
    let anew = it.steps.iter().any(|step| !step.fresh.is_empty());
    let row = |step: &RolloutStep| {
        let class = match step.standing.as_str() {
            "done" => "hit",
            "now" => "executed",
            _ => "merged",
        };
        html! {
            tr {
                td { (visible(&step.name, MAX_NAME)) }
                td { (step.targets) " of " (it.rollout.targets) }
                td { @match step.traffic { Some(share) => { (share) " %" }, None => "as targets" } }
                td { (step.bake_s) " s" }
                @if anew { td.many { (names(&step.fresh)) } }
                td { @if step.gate { "a person lets it in" } }
                td { span class={ "chip " (class) } { (step.standing) } }
            }
        }
    };
    html! {
        section.panel {
            h2 { "Steps" }
            div.scroll tabindex="0" role="region" aria-label="Steps" {
                table.rows {
                    thead { tr { th { "Step" } th { "Targets" } th { "Traffic" } th { "Bakes" } @if anew { th { "Started anew" } } th { "Gate" } th { "" } } }
                    tbody { @for step in &it.steps { (row(step)) } }
                }
            }
        }
    }
}

fn looks(all: &[RolloutLook]) -> Markup {
    let row = |it: &RolloutLook| {
        let class = match it.verdict.as_str() {
            "promote" => "hit",
            "rollback" => "failed",
            _ => "merged",
        };
        html! {
            tr {
                td { (it.at) }
                td { span class={ "chip " (class) } { (it.verdict) } }
                td { (it.canary) " with " (it.baseline) }
                td.many { @for reason in &it.reasons { p { (visible(reason, MAX_REASON)) } } }
            }
        }
    };
    html! {
        section.panel {
            h2 { "What the judge said" }
            div.scroll tabindex="0" role="region" aria-label="What the judge said" {
                table.rows {
                    thead { tr { th { "When" } th { "Verdict" } th { "Compared" } th { "Why" } } }
                    tbody { @for it in all.iter().take(MAX_ROWS) { (row(it)) } }
                }
            }
        }
    }
}

fn targets(all: &[RolloutTarget]) -> Markup {
    // Those that need somebody come first.
    let mut sorted: Vec<_> = all.iter().collect();
    sorted.sort_by_key(|it| it.standing == "settled");
    html! {
        section.panel {
            h2 { "Targets that were told" }
            div.scroll tabindex="0" role="region" aria-label="Targets" {
                table.rows {
                    thead { tr { th { "Target" } th { "Runs it" } th { "Version" } } }
                    tbody {
                        @for it in sorted.iter().take(MAX_ROWS) {
                            tr {
                                td { (visible(&it.name, MAX_NAME)) }
                                td { span class={ "chip " (if it.standing == "settled" { "hit" } else { "failed" }) } { (it.standing) } }
                                td { code { (crate::format::abbreviated(it.desired.trim_start_matches("sha256:"))) } }
                            }
                        }
                    }
                }
            }
            @if all.len() > MAX_ROWS { p.dim { (all.len() - MAX_ROWS) " more; the API has all" } }
        }
    }
}

fn events(it: &RolloutShown) -> Markup {
    let told = it.events.iter().filter_map(|event| Some((event, event.text.as_ref()?)));
    html! {
        section.panel {
            h2 { "What happened" }
            div.scroll tabindex="0" role="region" aria-label="Events" {
                table.rows {
                    thead { tr { th { "#" } th { "When" } th { "Event" } } }
                    tbody {
                        @for (event, text) in told.rev().take(MAX_ROWS) {
                            tr {
                                td { (event.number) }
                                td { (event.at) }
                                td.many { (visible(text, MAX_REASON)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
